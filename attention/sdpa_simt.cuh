// Causal attention without tensor cores, forward and backward: plain kernels for fp32 and for head sizes that have no
// tensor-core kernel, any d_qk, d_v <= 256, and the reference that the fast kernels can be held against on the GPU itself.
// Equations: sdpa.h; the same three walks as in sdpa_forward.cuh and sdpa_backward.cuh. Not for speed: one multiply-add per
// shared load or two, so bound by shared memory at a few TFLOP/s.
// Block: 4 warps; a warp owns ROWS rows (of queries, or of keys in sdpa_simt_kv_kernel), held in shared memory as float; tiles of
// 32 rows of the other side stream through shared memory. First half of a step: a lane is one of the 32 streamed rows, and takes
// the scalar products with the warp's rows. Second half: a lane is columns lane, lane + 32, ... of the warp's sums.
#pragma once
#include "attention/sdpa_common.cuh"

inline constexpr int SIMT_ROWS = 3, SIMT_OWN = SDPA_WARPS * SIMT_ROWS, SIMT_STREAM = 32;   // 3 rows: 256 + 256 columns fit 99 KiB
inline constexpr int SIMT_MAX_D = 256, SIMT_COLUMNS = SIMT_MAX_D / 32;

// Shared memory: own rows of two matrices, streamed rows of two (one column of padding: lanes reading one column of 32 rows hit
// 32 banks), and per warp two rows x streamed tables for P and dS.
struct SimtTiles { float *own1, *own2, *stream1, *stream2, *p, *ds; int ld1, ld2; };
__device__ __forceinline__ SimtTiles simt_tiles(int d1, int d2) {
    SimtTiles x;
    x.ld1 = d1 | 1;
    x.ld2 = d2 | 1;
    x.own1 = reinterpret_cast<float*>(dyn_smem);
    x.own2 = x.own1 + SIMT_OWN * x.ld1;
    x.stream1 = x.own2 + SIMT_OWN * x.ld2;
    x.stream2 = x.stream1 + SIMT_STREAM * x.ld1;
    x.p = x.stream2 + SIMT_STREAM * x.ld2;
    x.ds = x.p + SIMT_OWN * SIMT_STREAM;
    return x;
}
inline size_t simt_smem(const SdpaShape& s) {
    return sizeof(float) * size_t((SIMT_OWN + SIMT_STREAM) * ((s.d_qk | 1) + (s.d_v | 1)) + 2 * SIMT_OWN * SIMT_STREAM);
}

// rows row0 .. row0 + rows - 1 as float; zeros from T on
__device__ __forceinline__ void simt_load(float* tile, int ld, const floatX* matrix, int row0, int rows, int T, int d, size_t stride) {
    for (int i = threadIdx.x; i < rows * d; i += SDPA_THREADS) {
        int r = i / d, c = i % d;
        tile[r * ld + c] = row0 + r < T ? float(matrix[size_t(row0 + r) * stride + c]) : 0.0f;
    }
}
// s[r] = own row r . streamed row `lane`
__device__ __forceinline__ void simt_products(float (&s)[SIMT_ROWS], const float* own, const float* stream, int ld, int d, int lane) {
    for (int r = 0; r < SIMT_ROWS; r++) s[r] = 0.0f;
    for (int c = 0; c < d; c++) {
        float x = stream[lane * ld + c];
#pragma unroll
        for (int r = 0; r < SIMT_ROWS; r++) s[r] += own[r * ld + c] * x;
    }
}
// sum[r][columns of this lane] += sum_j weights[r][j] * streamed row j
__device__ __forceinline__ void simt_accumulate(float (&sum)[SIMT_ROWS][SIMT_COLUMNS], const float* weights, const float* stream, int ld,
                                                int d, int lane) {
    for (int j = 0; j < SIMT_STREAM; j++)
#pragma unroll
        for (int i = 0; i < SIMT_COLUMNS; i++) {
            if (lane + 32 * i >= d) break;
            float x = stream[j * ld + lane + 32 * i];
#pragma unroll
            for (int r = 0; r < SIMT_ROWS; r++) sum[r][i] += weights[r * SIMT_STREAM + j] * x;
        }
}
__device__ __forceinline__ void simt_store(floatX* matrix, const float (&sum)[SIMT_ROWS][SIMT_COLUMNS], int row0, int T, int d,
                                           size_t stride, int lane) {
#pragma unroll
    for (int r = 0; r < SIMT_ROWS; r++)
#pragma unroll
        for (int i = 0; i < SIMT_COLUMNS; i++)
            if (row0 + r < T && lane + 32 * i < d) matrix[size_t(row0 + r) * stride + lane + 32 * i] = floatX(sum[r][i]);
}

// o, lse =. Grid (tiles of SIMT_OWN queries, NH, B).
__global__ void __launch_bounds__(SDPA_THREADS)
    sdpa_simt_forward_kernel(floatX* o, float* lse, const floatX* q, const floatX* k, const floatX* v, PositionBias position_bias,
                             SdpaShape s, float scale) {
    const SimtTiles x = simt_tiles(s.d_qk, s.d_v);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, T = s.T;
    const int q0 = blockIdx.x * SIMT_OWN, h = blockIdx.y, b = blockIdx.z, kv = h / (s.NH / s.NKV), row0 = q0 + warp * SIMT_ROWS;
    const HeadBias bias = head_bias(position_bias, h);
    const float *own = x.own1 + warp * SIMT_ROWS * x.ld1, scale_log2 = scale * LOG2_E;
    float* p = x.p + warp * SIMT_ROWS * SIMT_STREAM;
    float sum[SIMT_ROWS][SIMT_COLUMNS] = {}, row_max[SIMT_ROWS], row_sum[SIMT_ROWS];
    for (int r = 0; r < SIMT_ROWS; r++) row_max[r] = -INFINITY, row_sum[r] = 0.0f;
    simt_load(x.own1, x.ld1, q + size_t(b) * T * s.q_row + size_t(h) * s.d_qk, q0, SIMT_OWN, T, s.d_qk, s.q_row);

    for (int k0 = 0; k0 < min(q0 + SIMT_OWN, T); k0 += SIMT_STREAM) {
        __syncthreads();
        simt_load(x.stream1, x.ld1, k + size_t(b) * T * s.k_row + size_t(kv) * s.d_qk, k0, SIMT_STREAM, T, s.d_qk, s.k_row);
        simt_load(x.stream2, x.ld2, v + size_t(b) * T * s.v_row + size_t(kv) * s.d_v, k0, SIMT_STREAM, T, s.d_v, s.v_row);
        __syncthreads();
        if (k0 > row0 + SIMT_ROWS - 1) continue;
        float score[SIMT_ROWS];
        simt_products(score, own, x.stream1, x.ld1, s.d_qk, lane);
#pragma unroll
        for (int r = 0; r < SIMT_ROWS; r++) {
            int distance = row0 + r - (k0 + lane);
            float masked = distance < 0 ? -INFINITY : score[r] * scale_log2 + bias.coefficient * bias_term(bias, distance);
            float top = fmaxf(row_max[r], warp_max(masked));
            if (top == -INFINITY) top = 0.0f;                            // a later row of this warp reaches the tile, this one does not
            float weight = exp2f(masked - top), shrink = exp2f(row_max[r] - top);
            p[r * SIMT_STREAM + lane] = weight;
            row_sum[r] = row_sum[r] * shrink + warp_sum(weight);
            row_max[r] = top;
#pragma unroll
            for (int i = 0; i < SIMT_COLUMNS; i++) sum[r][i] *= shrink;
        }
        __syncwarp();
        simt_accumulate(sum, p, x.stream2, x.ld2, s.d_v, lane);
        __syncwarp();
    }
#pragma unroll
    for (int r = 0; r < SIMT_ROWS; r++) {
        if (lane == 0 && row0 + r < T) lse[(size_t(b) * s.NH + h) * T + row0 + r] = row_max[r] * LN_2 + logf(row_sum[r]);
#pragma unroll
        for (int i = 0; i < SIMT_COLUMNS; i++) sum[r][i] /= row_sum[r];
    }
    simt_store(o + size_t(b) * T * s.o_row + size_t(h) * s.d_v, sum, row0, T, s.d_v, s.o_row, lane);
}

// dq =, bias_partials (B, NH, gridDim.x) for power. Grid as in the forward.
__global__ void __launch_bounds__(SDPA_THREADS)
    sdpa_simt_q_kernel(floatX* dq, float2* bias_partials, const floatX* dout, const float2* stats, const floatX* q, const floatX* k,
                       const floatX* v, PositionBias position_bias, SdpaShape s, int T_pad, float scale) {
    const SimtTiles x = simt_tiles(s.d_qk, s.d_v);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, T = s.T;
    const int q0 = blockIdx.x * SIMT_OWN, h = blockIdx.y, b = blockIdx.z, kv = h / (s.NH / s.NKV), row0 = q0 + warp * SIMT_ROWS;
    const size_t head = size_t(b) * s.NH + h;
    const HeadBias bias = head_bias(position_bias, h);
    const float *own_q = x.own1 + warp * SIMT_ROWS * x.ld1, *own_do = x.own2 + warp * SIMT_ROWS * x.ld2, scale_log2 = scale * LOG2_E;
    float *ds = x.ds + warp * SIMT_ROWS * SIMT_STREAM, sum[SIMT_ROWS][SIMT_COLUMNS] = {};
    float2 bias_sum = make_float2(0.0f, 0.0f);
    simt_load(x.own1, x.ld1, q + size_t(b) * T * s.q_row + size_t(h) * s.d_qk, q0, SIMT_OWN, T, s.d_qk, s.q_row);
    simt_load(x.own2, x.ld2, dout + size_t(b) * T * s.o_row + size_t(h) * s.d_v, q0, SIMT_OWN, T, s.d_v, s.o_row);

    for (int k0 = 0; k0 < min(q0 + SIMT_OWN, T); k0 += SIMT_STREAM) {
        __syncthreads();
        simt_load(x.stream1, x.ld1, k + size_t(b) * T * s.k_row + size_t(kv) * s.d_qk, k0, SIMT_STREAM, T, s.d_qk, s.k_row);
        simt_load(x.stream2, x.ld2, v + size_t(b) * T * s.v_row + size_t(kv) * s.d_v, k0, SIMT_STREAM, T, s.d_v, s.v_row);
        __syncthreads();
        if (k0 > row0 + SIMT_ROWS - 1) continue;
        float score[SIMT_ROWS], dp[SIMT_ROWS];
        simt_products(score, own_q, x.stream1, x.ld1, s.d_qk, lane);
        simt_products(dp, own_do, x.stream2, x.ld2, s.d_v, lane);
#pragma unroll
        for (int r = 0; r < SIMT_ROWS; r++) {
            int distance = row0 + r - (k0 + lane);
            float term = bias_term(bias, distance), value = 0.0f;
            if (distance >= 0 && row0 + r < T) {
                float2 stat = stats[head * T_pad + row0 + r];
                value = exp2f(score[r] * scale_log2 + bias.coefficient * term - stat.x) * (dp[r] * scale - stat.y);
            }
            ds[r * SIMT_STREAM + lane] = value;
            bias_sum.x += value * term;
            bias_sum.y += value * bias_term_a(bias, distance);
        }
        __syncwarp();
        simt_accumulate(sum, ds, x.stream1, x.ld1, s.d_qk, lane);
        __syncwarp();
    }
    simt_store(dq + size_t(b) * T * s.q_row + size_t(h) * s.d_qk, sum, row0, T, s.d_qk, s.q_row, lane);
    if (bias.kind == BiasKind::power) store_bias_partial(bias_partials + head * gridDim.x + blockIdx.x, bias_sum, 1.0f / scale, x.p);
}

// dk, dv =; k_is_v: both terms into dv. Grid (tiles of SIMT_OWN keys, NKV, B); walks over all query heads of the group.
__global__ void __launch_bounds__(SDPA_THREADS)
    sdpa_simt_kv_kernel(floatX* dk, floatX* dv, const floatX* dout, const float2* stats, const floatX* q, const floatX* k,
                        const floatX* v, PositionBias position_bias, SdpaShape s, int T_pad, float scale, int k_is_v) {
    const SimtTiles x = simt_tiles(s.d_qk, s.d_v);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, T = s.T, group = s.NH / s.NKV;
    const int k0 = blockIdx.x * SIMT_OWN, kv = blockIdx.y, b = blockIdx.z, row0 = k0 + warp * SIMT_ROWS;
    const float *own_k = x.own1 + warp * SIMT_ROWS * x.ld1, *own_v = x.own2 + warp * SIMT_ROWS * x.ld2, scale_log2 = scale * LOG2_E;
    float *p = x.p + warp * SIMT_ROWS * SIMT_STREAM, *ds = x.ds + warp * SIMT_ROWS * SIMT_STREAM;
    float dk_sum[SIMT_ROWS][SIMT_COLUMNS] = {}, dv_sum[SIMT_ROWS][SIMT_COLUMNS] = {};
    simt_load(x.own1, x.ld1, k + size_t(b) * T * s.k_row + size_t(kv) * s.d_qk, k0, SIMT_OWN, T, s.d_qk, s.k_row);
    simt_load(x.own2, x.ld2, v + size_t(b) * T * s.v_row + size_t(kv) * s.d_v, k0, SIMT_OWN, T, s.d_v, s.v_row);

    for (int h = kv * group; h < (kv + 1) * group; h++) {
        const HeadBias bias = head_bias(position_bias, h);
        for (int q0 = k0 / SIMT_STREAM * SIMT_STREAM; q0 < T; q0 += SIMT_STREAM) {
            __syncthreads();
            simt_load(x.stream1, x.ld1, q + size_t(b) * T * s.q_row + size_t(h) * s.d_qk, q0, SIMT_STREAM, T, s.d_qk, s.q_row);
            simt_load(x.stream2, x.ld2, dout + size_t(b) * T * s.o_row + size_t(h) * s.d_v, q0, SIMT_STREAM, T, s.d_v, s.o_row);
            __syncthreads();
            float score[SIMT_ROWS], dp[SIMT_ROWS];
            simt_products(score, own_k, x.stream1, x.ld1, s.d_qk, lane);
            simt_products(dp, own_v, x.stream2, x.ld2, s.d_v, lane);
            const float2 stat = stats[(size_t(b) * s.NH + h) * T_pad + q0 + lane];
#pragma unroll
            for (int r = 0; r < SIMT_ROWS; r++) {
                int distance = q0 + lane - (row0 + r);
                float weight = distance < 0 ? 0.0f : exp2f(score[r] * scale_log2 + bias.coefficient * bias_term(bias, distance) - stat.x);
                p[r * SIMT_STREAM + lane] = weight;
                ds[r * SIMT_STREAM + lane] = weight * (dp[r] * scale - stat.y);
            }
            __syncwarp();
            simt_accumulate(dv_sum, p, x.stream2, x.ld2, s.d_v, lane);
            simt_accumulate(dk_sum, ds, x.stream1, x.ld1, s.d_qk, lane);
            __syncwarp();
        }
    }
    if (k_is_v)
#pragma unroll
        for (int r = 0; r < SIMT_ROWS; r++)
#pragma unroll
            for (int i = 0; i < SIMT_COLUMNS; i++) dv_sum[r][i] += dk_sum[r][i];
    else simt_store(dk + size_t(b) * T * s.k_row + size_t(kv) * s.d_qk, dk_sum, row0, T, s.d_qk, s.k_row, lane);
    simt_store(dv + size_t(b) * T * s.v_row + size_t(kv) * s.d_v, dv_sum, row0, T, s.d_v, s.v_row, lane);
}
