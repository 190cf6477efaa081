// Rotary position embedding on the GPU. See rope.h.
#include "layers/rope.h"

#include "layers/cuda_common.cuh"

namespace {
constexpr int BLOCK = 256;

// The strides of the side that is read and of the side that is written; a head stride of 0 shares one head.
struct Rotation {
    int T, heads, half;
    size_t from_row, from_head, to_row, to_head;
    float sign;                                              // +1: by the angle, -1: back
    bool add;
    const int* position;                                     // of each row; null: row % T
};

// cos and sin of N neighbouring pairs, from the interleaved table
template <int N> __device__ __forceinline__ void load_angles(float (&c)[N], float (&s)[N], const float* table, float sign) {
    float pairs[2 * N];
    load_floats(pairs, table);
#pragma unroll
    for (int i = 0; i < N; i++) c[i] = pairs[2 * i], s[i] = sign * pairs[2 * i + 1];
}

// (x, y) -> (x cos - y sin, x sin + y cos) for elements i .. i+N-1 and their partners half further
template <int N> __device__ __forceinline__ void rotate(float (&x)[N], float (&y)[N], const float (&c)[N], const float (&s)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        float first = x[i] * c[i] - y[i] * s[i], second = x[i] * s[i] + y[i] * c[i];
        x[i] = first;
        y[i] = second;
    }
}

// One thread turns N pairs of one head of one row. `from` and `to` may be the same memory. Reads and writes each element once:
// memory-bound (the table stays in L2).
template <int N> __global__ void __launch_bounds__(BLOCK)
rope_kernel(floatX* to, const floatX* from, const float* table, size_t rows, Rotation r) {
    size_t index = size_t(blockIdx.x) * BLOCK + threadIdx.x;
    int per_head = r.half / N;
    int i = int(index % per_head) * N, head = int(index / per_head % r.heads);
    size_t row = index / per_head / r.heads;
    if (row >= rows) return;
    float x[N], y[N], c[N], s[N];
    load_floats(x, from + row * r.from_row + head * r.from_head + i);
    load_floats(y, from + row * r.from_row + head * r.from_head + r.half + i);
    load_angles(c, s, table + ((r.position ? r.position[row] : row % r.T) * r.half + i) * 2, r.sign);
    rotate(x, y, c, s);
    floatX* out = to + row * r.to_row + head * r.to_head + i;
    if (r.add) {
        float old_x[N], old_y[N];
        load_floats(old_x, out);
        load_floats(old_y, out + r.half);
#pragma unroll
        for (int k = 0; k < N; k++) x[k] += old_x[k], y[k] += old_y[k];
    }
    store_floats(out, x);
    store_floats(out + r.half, y);
}

// The backward of a shared head: one thread sums its pairs over the heads, in order, then turns the sum once.
template <int N> __global__ void __launch_bounds__(BLOCK)
rope_sum_heads_kernel(floatX* to, const floatX* from, const float* table, size_t rows, Rotation r) {
    size_t index = size_t(blockIdx.x) * BLOCK + threadIdx.x;
    int per_head = r.half / N, i = int(index % per_head) * N;
    size_t row = index / per_head;
    if (row >= rows) return;
    float x[N] = {}, y[N] = {}, c[N], s[N];
    for (int head = 0; head < r.heads; head++) {
        float u[N], v[N];
        load_floats(u, from + row * r.from_row + head * r.from_head + i);
        load_floats(v, from + row * r.from_row + head * r.from_head + r.half + i);
#pragma unroll
        for (int k = 0; k < N; k++) x[k] += u[k], y[k] += v[k];
    }
    load_angles(c, s, table + (row % r.T * r.half + i) * 2, r.sign);
    rotate(x, y, c, s);
    floatX* out = to + row * r.to_row + i;
    if (r.add) {
        float old_x[N], old_y[N];
        load_floats(old_x, out);
        load_floats(old_y, out + r.half);
#pragma unroll
        for (int k = 0; k < N; k++) x[k] += old_x[k], y[k] += old_y[k];
    }
    store_floats(out, x);
    store_floats(out + r.half, y);
}

void turn(floatX* to, const floatX* from, const floatM* table, int B, Rotation r, bool sum_heads) {
    size_t rows = size_t(B) * r.T;
    if (rows == 0 || r.half == 0) return;
    bool pack = r.half % PACK == 0 && r.from_row % PACK == 0 && r.from_head % PACK == 0 && r.to_row % PACK == 0 && r.to_head % PACK == 0 &&
                all_aligned16(to, from, table);
    size_t threads = rows * (sum_heads ? 1 : r.heads) * (r.half / (pack ? PACK : 1));
    auto kernel = sum_heads ? (pack ? rope_sum_heads_kernel<PACK> : rope_sum_heads_kernel<1>) : (pack ? rope_kernel<PACK> : rope_kernel<1>);
    launch(kernel, grid_size(threads, BLOCK), dim3(BLOCK), 0)(to, from, table, rows, r);
}
}  // namespace

void rope_forward(floatX* out, const floatX* in, const floatM* table, const RopeShape& s, bool inverse) {
    turn(out, in, table, s.B,
         {s.T, s.heads, s.d / 2, s.in_row, s.in_head, s.out_row, s.out_head, inverse ? -1.0f : 1.0f, false, s.position}, false);
}

void rope_backward(floatX* din, const floatX* dout, const floatM* table, const RopeShape& s, bool accumulate, bool inverse) {
    turn(din, dout, table, s.B,
         {s.T, s.heads, s.d / 2, s.out_row, s.out_head, s.in_row, s.in_head, inverse ? 1.0f : -1.0f, accumulate, nullptr},
         s.in_head == 0);
}
