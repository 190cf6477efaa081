// The attention kernels that scripts/sass_check.sh reads the machine code of: head size 64 in bf16, with K and V apart (QKV) and one (QV).
// Compiled by nvcc to a cubin, never linked or run. Each empty kernel carries in its name the shared memory of the one it is named for.
#include "attention/sdpa_backward.cuh"
#include "attention/sdpa_forward.cuh"

template <int D, bool K_IS_V, size_t BYTES> __global__ void smem_of_forward() {}
template <int D, bool K_IS_V, size_t BYTES> __global__ void smem_of_backward_kv() {}
template <int D, bool K_IS_V, size_t BYTES> __global__ void smem_of_backward_q() {}

#define KERNELS(D, K_IS_V)                                                                                                \
    template __global__ void sdpa_forward_kernel<D, D, K_IS_V>(bf16*, float*, const bf16*, const bf16*, const bf16*,      \
                                                               PositionBias, SdpaShape, float, const float*);             \
    template __global__ void sdpa_backward_kv_kernel<D, D, K_IS_V>(bf16*, bf16*, const bf16*, const float2*, const bf16*, \
                                                                   const bf16*, const bf16*, PositionBias, SdpaShape,     \
                                                                   int, float, const float*);                             \
    template __global__ void sdpa_backward_q_kernel<D, D, K_IS_V>(bf16*, float2*, const bf16*, const float2*, const bf16*,\
                                                                  const bf16*, const bf16*, PositionBias, SdpaShape,      \
                                                                  int, float, const float*);                              \
    template __global__ void smem_of_forward<D, K_IS_V, ForwardTile<D, D, K_IS_V>::SMEM>();                               \
    template __global__ void smem_of_backward_kv<D, K_IS_V, BackwardKvTile<D, D, K_IS_V>::SMEM>();                        \
    template __global__ void smem_of_backward_q<D, K_IS_V, BackwardQTile<D, D, K_IS_V>::SMEM>();

KERNELS(64, false)
KERNELS(64, true)
