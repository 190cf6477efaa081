// What the tensor-core and the plain attention kernels share: the positional bias, the per-row statistics that the backward
// reads, and the reduction of the bias's gradients. Equations: sdpa.h. Not for use outside attention/sdpa*.cu(h).
#pragma once
#include "attention/sdpa.h"
#include "layers/cuda_common.cuh"

inline constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;
inline constexpr int STAT_ROWS = 128;               // the statistics are padded to a multiple of every kernel's tile of queries
inline constexpr int SDPA_THREADS = 128, SDPA_WARPS = SDPA_THREADS / 32;    // of every kernel here but the last reduction
inline constexpr int DELTA_LANES = 8;

// ---- positional bias --------------------------------------------------------------------------------------------------
// Scores are kept in units of log2, so that the softmax needs exp2 only. The bias depends on the distance d = i - j alone:
//   bias(d) log2(e) = coefficient * term(d)        alibi: -slope log2(e) * d        power: -p * log2(1 + a d)
// A kernel tabulates term(d) for the distances that occur in a pair of tiles (their side lengths' sum, ~200 values) in shared
// memory, so that an element costs one multiply-add and one shared load instead of a logarithm.
struct HeadBias { BiasKind kind; float coefficient, p, a; };

__device__ __forceinline__ HeadBias head_bias(const PositionBias& b, int h) {
    if (b.kind == BiasKind::alibi) return {b.kind, -b.slope[h] * LOG2_E, 0.0f, 0.0f};
    if (b.kind == BiasKind::power) return {b.kind, -float(b.p[h]), float(b.p[h]), float(b.a[h])};
    return {BiasKind::none, 0.0f, 0.0f, 0.0f};
}
// Negative distances are masked; 0 keeps their scores finite until then.
__device__ __forceinline__ float bias_term(const HeadBias& b, int distance) {
    float d = float(max(distance, 0));
    return b.kind == BiasKind::power ? log2f(1.0f + b.a * d) : d;
}
// The factor of da_h = -p sum dS d / (1 + a d) that depends on the distance.
__device__ __forceinline__ float bias_term_a(const HeadBias& b, int distance) {
    float d = float(max(distance, 0));
    return d / (1.0f + b.a * d);
}

// One block's share of the bias's gradients, summed over its 128 threads in a fixed order. scratch: 8 floats of shared memory.
__device__ __forceinline__ void store_bias_partial(float2* out, float2 sum, float factor, float* scratch) {
    float x = warp_sum(sum.x), y = warp_sum(sum.y);
    __syncthreads();                                // scratch may still be read as something else
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = x;
        scratch[4 + threadIdx.x / 32] = y;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        *out = make_float2(factor * (scratch[0] + scratch[1] + scratch[2] + scratch[3]),
                           factor * (scratch[4] + scratch[5] + scratch[6] + scratch[7]));
}

// dp, da (=, or += when accumulate) from one float2 (sum dS log2(1 + a d), sum dS d / (1 + a d)) per head and tile of queries.
// partials: (B, NH, tiles). One warp per head, grid (NH); each lane adds every 32nd partial, then a shuffle tree: a fixed order.
__global__ void sdpa_bias_gradient_kernel(float* dp, float* da, const float2* partials, PositionBias bias, int B, int NH, int tiles,
                                          int accumulate) {
    const int h = blockIdx.x, lane = threadIdx.x;
    float sum_p = 0.0f, sum_a = 0.0f;
    for (int i = lane; i < B * tiles; i += 32) {
        float2 part = partials[(size_t(i / tiles) * NH + h) * tiles + i % tiles];
        sum_p += part.x;
        sum_a += part.y;
    }
    sum_p = -LN_2 * warp_sum(sum_p);
    sum_a = -float(bias.p[h]) * warp_sum(sum_a);
    if (lane > 0) return;
    dp[h] = accumulate ? dp[h] + sum_p : sum_p;
    da[h] = accumulate ? da[h] + sum_a : sum_a;
}

// ---- statistics of the backward ---------------------------------------------------------------------------------------
// stats (B, NH, T_pad, 2): {lse log2(e), scale * D} with D = rowsum(dO * O), so that
//   P = exp2(score - stats.x)          scale * dS = P * (scale * dP - stats.y)
// cost one multiply-add each. Rows t >= T hold {inf, 0}: their P and dS are 0, so no kernel tests for them again.
// DELTA_LANES threads per row, loads of N elements (PACK, or 1 where rows are not 16-byte aligned), grid over all B NH T_pad rows.
// Bytes: O and dO read once, 4 B T NH d_v in bf16; bound by memory.
template <int N>
__global__ void __launch_bounds__(SDPA_THREADS) sdpa_delta_kernel(float2* stats, const floatX* o, const floatX* dout, const float* lse,
                                                                  SdpaShape s, int T_pad, float scale) {
    const size_t row = (size_t(blockIdx.x) * SDPA_THREADS + threadIdx.x) / DELTA_LANES;       // (b NH + h) T_pad + t
    const int lane = threadIdx.x % DELTA_LANES, t = int(row % T_pad);
    const size_t head = row / T_pad, b = head / s.NH, h = head % s.NH;
    const bool exists = head < size_t(s.B) * s.NH, inside = exists && t < s.T;
    float sum = 0.0f;
    if (inside) {
        const size_t at = (b * s.T + t) * s.o_row + h * s.d_v;
        for (int c = lane * N; c < s.d_v; c += DELTA_LANES * N) {
            float x[N], y[N];
            load_floats<N>(x, o + at + c);
            load_floats<N>(y, dout + at + c);
#pragma unroll
            for (int i = 0; i < N; i++) sum += x[i] * y[i];
        }
    }
#pragma unroll
    for (int offset = DELTA_LANES / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
    if (lane > 0 || !exists) return;
    stats[row] = inside ? make_float2(lse[head * s.T + t] * LOG2_E, scale * sum) : make_float2(INFINITY, 0.0f);
}
