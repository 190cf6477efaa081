// Attention of decoding on the GPU (and its emulation). See sdpa_decode.h.
// One block: one row of the batch, one key/value head with up to HEADS of its query heads, one piece of the keys.
//   1. scores      a warp takes a key, its lanes the elements: the key is read once, coalesced, for all the heads
//   2. softmax     a warp takes a head: maximum and sum of the piece, weights in shared memory
//   3. output      a thread takes a column of V and walks the keys in order, for all the heads
// Bytes: the piece of K and V once a block (V again from L2 where it is K): memory-bound for a token. A chunk of a prompt reads the
// cache once a row, from L2; for long prompts the tensor-core kernel of training would be faster.
#include "attention/sdpa_decode.h"

#include "layers/cuda_common.cuh"

namespace {
constexpr int BLOCK = 128, WARPS = BLOCK / WARP;

__device__ __forceinline__ float decode_bias(const PositionBias& b, int h, int distance) {
    if (b.kind == BiasKind::alibi) return -b.slope[h] * float(distance);
    if (b.kind == BiasKind::power) return -float(b.p[h]) * logf(1 + float(b.a[h]) * float(distance));
    return 0;
}

// Adds element i of a key, for the queries of all heads: q (HEADS, width) in shared memory.
template <int HEADS> __device__ __forceinline__ void add_products(float (&sum)[HEADS], const float* q, int width, int i, float element) {
#pragma unroll
    for (int g = 0; g < HEADS; g++) sum[g] += q[g * width + i] * element;
}

// Grid: (pieces, NKV * head groups, rows). Shared: q (HEADS, d_k + d_shared), weights (HEADS, DECODE_SPLIT).
// (unroll 1: unrolled, the loops spill registers; so do 8 heads a block. More heads than 4 read the cache again, from L2.)
template <int HEADS> __global__ void __launch_bounds__(BLOCK)
    sdpa_decode_kernel(float* partial, const floatX* q, const floatX* q_shared, const floatX* k, const floatX* v, const floatX* shared,
                       const float* k_rope, PositionBias bias, DecodeShape s, DecodeBatch batch, float scale) {
    const int row = int(blockIdx.z), group = s.NH / s.NKV, groups = (group + HEADS - 1) / HEADS;
    const int kv = int(blockIdx.y) / groups, g0 = int(blockIdx.y) % groups * HEADS, heads = min(HEADS, group - g0), h0 = kv * group + g0;
    const int position = batch.position[row], sequence = batch.sequence[row], j0 = int(blockIdx.x) * DECODE_SPLIT;
    const int keys = min(DECODE_SPLIT, position + 1 - j0), width = s.d_k + s.d_shared;
    if (keys <= 0) return;                                   // the whole block
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    float* q_s = reinterpret_cast<float*>(dyn_smem);
    float* weights = q_s + HEADS * width;
    for (int i = int(threadIdx.x); i < HEADS * width; i += BLOCK) {
        const int g = i / width, c = i % width;
        float value = 0;                                     // heads beyond the group: multiplied, never stored
        if (g < heads && c < s.d_k) value = float(q[row * s.q_row + (h0 + g) * s.q_head + c]);
        else if (g < heads) value = float(q_shared[row * s.shared_row + (h0 + g) * s.shared_head + c - s.d_k]);
        q_s[i] = value * scale;
    }
    __syncthreads();
    const size_t head = (size_t(sequence) * s.NKV + kv) * batch.capacity + j0;
#pragma unroll 1
    for (int j = warp; j < keys; j += WARPS) {
        float sum[HEADS] = {};
        const floatX* key = k + (head + j) * s.d_k;
        if (k_rope) {
            const float* angles = k_rope + size_t(j0 + j) * s.d_k;
            const int half = s.d_k / 2;
#pragma unroll 1
            for (int i = lane; i < half; i += WARP) {
                const float c = angles[2 * i], sine = angles[2 * i + 1], x = float(key[i]), y = float(key[i + half]);
                add_products(sum, q_s, width, i, x * c - y * sine);
                add_products(sum, q_s, width, i + half, x * sine + y * c);
            }
        } else {
#pragma unroll 1
            for (int i = lane; i < s.d_k; i += WARP) add_products(sum, q_s, width, i, float(key[i]));
        }
        const floatX* one = shared + (size_t(sequence) * batch.capacity + j0 + j) * s.d_shared;
#pragma unroll 1
        for (int i = lane; i < s.d_shared; i += WARP) add_products(sum, q_s + s.d_k, width, i, float(one[i]));
#pragma unroll
        for (int g = 0; g < HEADS; g++) {
            const float total = warp_sum(sum[g]);
            if (lane == 0) weights[g * DECODE_SPLIT + j] = total + (g < heads ? decode_bias(bias, h0 + g, position - j0 - j) : 0.0f);
        }
    }
    __syncthreads();
    const size_t piece = size_t(s.d_v) + 2;
    float* out = partial + ((size_t(row) * s.NH + h0) * gridDim.x + blockIdx.x) * piece;
    for (int g = warp; g < heads; g += WARPS) {
        float* mine = weights + g * DECODE_SPLIT;
        float top = -INFINITY, sum = 0;
        for (int j = lane; j < keys; j += WARP) top = fmaxf(top, mine[j]);
        top = warp_max(top);
        for (int j = lane; j < keys; j += WARP) {
            const float weight = exp2f((mine[j] - top) * 1.4426950408889634f);
            mine[j] = weight;
            sum += weight;
            if (batch.weights) batch.weights[(size_t(row) * s.NH + h0 + g) * batch.capacity + j0 + j] = weight;
        }
        sum = warp_sum(sum);
        if (lane == 0) {
            out[g * gridDim.x * piece] = top;
            out[g * gridDim.x * piece + 1] = sum;
        }
    }
    __syncthreads();
    for (int c = int(threadIdx.x); c < s.d_v; c += BLOCK) {
        float sum[HEADS] = {};
#pragma unroll 1
        for (int j = 0; j < keys; j++) {
            const float value = float(v[(head + j) * s.d_v + c]);
#pragma unroll
            for (int g = 0; g < HEADS; g++) sum[g] += weights[g * DECODE_SPLIT + j] * value;
        }
#pragma unroll
        for (int g = 0; g < HEADS; g++)
            if (g < heads) out[g * gridDim.x * piece + 2 + c] = sum[g];
    }
}

// One block: one head of one row. The pieces are added in their order.
__global__ void __launch_bounds__(BLOCK) combine_kernel(floatX* o, const float* partial, DecodeShape s, DecodeBatch batch, int splits) {
    const size_t head = size_t(blockIdx.y) * s.NH + blockIdx.x, piece = size_t(s.d_v) + 2;
    const int pieces = batch.position[blockIdx.y] / DECODE_SPLIT + 1;
    const float* from = partial + head * splits * piece;
    float top = from[0], sum = 0;
    for (int i = 1; i < pieces; i++) top = fmaxf(top, from[i * piece]);
    for (int i = 0; i < pieces; i++) sum += exp2f((from[i * piece] - top) * 1.4426950408889634f) * from[i * piece + 1];
    for (int c = int(threadIdx.x); c < s.d_v; c += BLOCK) {
        float mixed = 0;
        for (int i = 0; i < pieces; i++) mixed += exp2f((from[i * piece] - top) * 1.4426950408889634f) * from[i * piece + 2 + c];
        o[head * s.d_v + c] = floatX(mixed / sum);
    }
    if (!batch.weights) return;
    float* weights = batch.weights + head * batch.capacity;
    for (int j = int(threadIdx.x); j < batch.capacity; j += BLOCK)
        weights[j] = j <= batch.position[blockIdx.y]
                         ? weights[j] * exp2f((from[j / DECODE_SPLIT * piece] - top) * 1.4426950408889634f) / sum
                         : 0.0f;
}

// One thread: one element of one row.
__global__ void __launch_bounds__(BLOCK)
    cache_append_kernel(floatX* cache, const floatX* from, size_t from_row, int heads, int width, DecodeBatch batch) {
    const size_t i = size_t(blockIdx.x) * BLOCK + threadIdx.x, per_row = size_t(heads) * width, row = i / per_row, h = i % per_row / width;
    if (row >= size_t(batch.rows)) return;
    const size_t slot = (size_t(batch.sequence[row]) * heads + h) * batch.capacity + batch.position[row];
    cache[slot * width + i % width] = from[row * from_row + i % per_row];
}
}  // namespace

void sdpa_decode(floatX* o, floatM* partial, const floatX* q, const floatX* q_shared, const floatX* k, const floatX* v,
                 const floatX* shared, const floatM* k_rope, const PositionBias& bias, const DecodeShape& s, const DecodeBatch& batch) {
    if (batch.rows == 0) return;
    const int group = s.NH / s.NKV, heads = group == 1 ? 1 : 4, splits = int(ceil_div(size_t(batch.longest), size_t(DECODE_SPLIT)));
    const size_t smem = size_t(heads) * (s.d_k + s.d_shared + DECODE_SPLIT) * sizeof(float);
    ensure(batch.rows <= 65535, "sdpa_decode: %d rows in one call; a grid holds 65535, use a smaller chunk or batch", batch.rows);
    auto kernel = heads == 1 ? sdpa_decode_kernel<1> : sdpa_decode_kernel<4>;
    launch(kernel, dim3(unsigned(splits), unsigned(s.NKV) * unsigned(ceil_div(size_t(group), size_t(heads))), unsigned(batch.rows)),
           dim3(BLOCK), smem)(partial, q, q_shared, k, v, shared, k_rope, bias, s, batch, float(s.scale));
    launch(combine_kernel, dim3(unsigned(s.NH), unsigned(batch.rows)), dim3(BLOCK), 0)(o, partial, s, batch, splits);
}

void cache_append(floatX* cache, const floatX* from, size_t from_row, int heads, int width, const DecodeBatch& batch) {
    const size_t elements = size_t(batch.rows) * heads * width;
    if (elements > 0) launch(cache_append_kernel, grid_size(elements, BLOCK), dim3(BLOCK), 0)(cache, from, from_row, heads, width, batch);
}
