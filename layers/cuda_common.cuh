// The one include of every .cu file: CUDA itself under nvcc, its emulation on the CPU (runtime/device/emu) under g++ or clang++ with
// -DBACKEND_EMU; then what the kernels share: launching with checks, 16-byte loads, reductions, scratch memory.
//
//   launch(kernel, grid, block, smem_bytes)(arguments...);       on the compute stream, checked, names file and line on error
//   dyn_smem                                                     dynamic shared memory, 1024-byte aligned bytes
//   cuda_check(cudaSomething(...))                               nvcc only
// PTX wrappers: layers/ptx.cuh. What the emulation asks of a kernel: runtime/device/emu/emu.h.
#pragma once
#include <algorithm>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#elif defined(BACKEND_EMU)
#include "runtime/device/emu/emu.h"
#else
#error "a .cu file is compiled by nvcc (BACKEND=cuda), or by g++ -x c++ -DBACKEND_EMU (BACKEND=emu)"
#endif
#include "layers/ptx.cuh"
#include "runtime/device/bf16.h"
#include "runtime/device/replay.h"
#include "runtime/run/error.h"
#include "runtime/device/types.h"

#if defined(__CUDACC__)
cudaStream_t compute_stream();                   // backend_cuda.cu

inline void cuda_check_at(cudaError_t status, const char* expression, const char* file, int line) {
    if (status == cudaSuccess) return;
    fail("%s: %s, from %s at %s:%d", cudaGetErrorName(status), cudaGetErrorString(status), expression, file, line);
}
#define cuda_check(expression) cuda_check_at(expression, #expression, __FILE__, __LINE__)

extern __shared__ __align__(1024) unsigned char dyn_smem[];

template <class... P> struct Launch {
    void (*kernel)(P...);
    dim3 grid, threads;
    size_t smem_bytes;
    const char* file;
    int line;
    template <class... A> void operator()(A&&... a) const {
        static_assert(sizeof...(A) == sizeof...(P), "wrong number of kernel arguments");
        if (smem_bytes > 48 * 1024)              // more than every device gives unasked
            cuda_check_at(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(smem_bytes)),
                          "shared memory of a kernel", file, line);
        if (hook_takes(kernel, grid, threads, smem_bytes, nullptr, a...)) return;
        kernel<<<grid, threads, smem_bytes, compute_stream()>>>(static_cast<A&&>(a)...);
        cuda_check_at(cudaGetLastError(), "a kernel launch", file, line);
    }
};
template <class... P> Launch<P...> launch(void (*kernel)(P...), dim3 grid, dim3 threads, size_t smem_bytes,
                                          const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {kernel, grid, threads, smem_bytes, file, line};
}
#endif

inline constexpr int WARP = 32;
inline constexpr unsigned ALL_LANES = 0xffffffffu;

// Device memory for the reductions' partial sums, allocated once by backend_init. Every call may hand out the same bytes: a
// kernel's partial sums are used up by the kernel launched right after it. Fails where more than the fixed size is asked for.
inline constexpr size_t SCRATCH_BYTES = size_t(32) << 20;
void* device_scratch(size_t bytes);

// A grid dimension from a product of sizes, checked.
inline unsigned grid_size(size_t items, size_t items_per_block = 1) {
    size_t blocks = ceil_div(items, items_per_block);
    ensure(blocks <= 0x7fffffff, "%zu items at %zu a block are more blocks than a grid has; use a smaller --micro-batch", items,
           items_per_block);
    return unsigned(blocks);
}

// ---- loads and stores of N elements as floats: 16 bytes a time where N fills them, else element by element

// Elements of 16 bytes. A kernel templated on N is launched with N = PACK where sizes and addresses allow, else with N = 1.
inline constexpr int PACK = 16 / int(sizeof(floatX));
template <class... P> bool all_aligned16(const P*... p) { return ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...); }

__device__ __forceinline__ float from_bits_low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float from_bits_high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
// Two floats rounded to bf16, the first in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#if defined(__CUDACC__)
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return uint32_t(__bfloat16_as_ushort(pair.x)) | uint32_t(__bfloat16_as_ushort(pair.y)) << 16;
#else
    return uint32_t(bf16(low).bits) | uint32_t(bf16(high).bits) << 16;
#endif
}

typedef uint32_t __attribute__((may_alias)) PairOfBf16;

template <class T> __device__ __forceinline__ T load16(const void* p) {        // T: 16 bytes
#if defined(BACKEND_EMU)
    emu::note_shared_access(p);
#endif
    return *static_cast<const T*>(p);
}
template <class T> __device__ __forceinline__ void store16(void* p, T v) {
#if defined(BACKEND_EMU)
    emu::note_shared_access(p);
#endif
    *static_cast<T*>(p) = v;
}

template <int N> __device__ __forceinline__ void load_floats(float (&v)[N], const float* p) {
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 x = load16<float4>(p + i);
            v[i] = x.x, v[i + 1] = x.y, v[i + 2] = x.z, v[i + 3] = x.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = p[i];
    }
}
template <int N> __device__ __forceinline__ void store_floats(float* p, const float (&v)[N]) {
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) store16(p + i, make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]));
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) p[i] = v[i];
    }
}
template <int N> __device__ __forceinline__ void load_floats(float (&v)[N], const bf16* p) {
    if constexpr (N % 8 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 8) {
            uint4 x = load16<uint4>(p + i);
            v[i] = from_bits_low(x.x), v[i + 1] = from_bits_high(x.x), v[i + 2] = from_bits_low(x.y), v[i + 3] = from_bits_high(x.y);
            v[i + 4] = from_bits_low(x.z), v[i + 5] = from_bits_high(x.z), v[i + 6] = from_bits_low(x.w), v[i + 7] = from_bits_high(x.w);
        }
    } else if constexpr (N % 4 == 0) {           // 8 bytes
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            uint2 x = *reinterpret_cast<const uint2*>(p + i);
            v[i] = from_bits_low(x.x), v[i + 1] = from_bits_high(x.x), v[i + 2] = from_bits_low(x.y), v[i + 3] = from_bits_high(x.y);
        }
    } else if constexpr (N == 2) {
        uint32_t x = *reinterpret_cast<const PairOfBf16*>(p);
        v[0] = from_bits_low(x), v[1] = from_bits_high(x);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = float(p[i]);
    }
}
template <int N> __device__ __forceinline__ void store_floats(bf16* p, const float (&v)[N]) {
    if constexpr (N % 8 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 8)
            store16(p + i, make_uint4(pack_bf16(v[i], v[i + 1]), pack_bf16(v[i + 2], v[i + 3]), pack_bf16(v[i + 4], v[i + 5]),
                                      pack_bf16(v[i + 6], v[i + 7])));
    } else if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4)
            *reinterpret_cast<uint2*>(p + i) = make_uint2(pack_bf16(v[i], v[i + 1]), pack_bf16(v[i + 2], v[i + 3]));
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) p[i] = bf16(v[i]);
    }
}

// ---- reductions. Fixed order: every lane gets the same bits, run after run.

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(ALL_LANES, v, offset);
    return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, offset));
    return v;
}
// What a value becomes by being stored: the next reader of memory and this thread then see the same number.
__device__ __forceinline__ float rounded(float v) { return float(floatX(v)); }
__device__ __forceinline__ double warp_sum(double v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(ALL_LANES, v, offset);
    return v;
}
