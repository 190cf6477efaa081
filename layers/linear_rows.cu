// linear for few rows on the GPU. See linear_rows.h.
#include "layers/linear_rows.h"

#include "layers/cuda_common.cuh"
#include "layers/gelu.cuh"

namespace {
constexpr int BLOCK = 256, WARPS = BLOCK / WARP;

// One warp: one column of y (one row of W) for ROWS rows of x. Each lane sums its own N-element pieces of W's row, in order; then the
// lanes are added in a fixed tree. Grid: (columns / 8, heads, rows / ROWS). Bytes: W once, x from L1 and L2: memory-bound.
// Fused multiply-adds are written out: a compiler that may choose fuses for one row and not for eight (g++ 14 does, in
// emulation), and a row's bits must not depend on how many there are.
template <int ROWS, int N> __global__ void __launch_bounds__(BLOCK)
linear_rows_kernel(floatX* y, floatX* gelu_out, const floatX* x, const floatX* w, const floatX* b, LinearShape s, int accumulate) {
    const int column = int(blockIdx.x) * WARPS + int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    const size_t first = size_t(blockIdx.z) * ROWS;
    if (column >= s.out) return;                             // whole warps leave
    const int rows = s.rows - first < ROWS ? int(s.rows - first) : ROWS;
    x += blockIdx.y * s.batch_x + first * s.ld_in;
    w += blockIdx.y * s.batch_w + size_t(column) * s.ld_w;
    float sum[ROWS] = {};
    for (int i = lane * N; i < s.in; i += WARP * N) {
        float weight[N];
        load_floats(weight, w + i);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (r >= rows) continue;
            float v[N];
            load_floats(v, x + r * s.ld_in + i);
#pragma unroll
            for (int k = 0; k < N; k++) sum[r] = fmaf(weight[k], v[k], sum[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) sum[r] = warp_sum(sum[r]);
    if (lane != 0) return;
    const float bias = b ? float(b[column]) : 0.0f;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (r >= rows) continue;
        size_t at = blockIdx.y * s.batch_out + (first + r) * s.ld_out + column;
        float value = rounded((accumulate ? float(y[at]) : 0.0f) + sum[r] + bias);
        y[at] = floatX(value);
        if (gelu_out) gelu_out[at] = floatX(gelu(value));
    }
}

// One thread: one column of x, a chain over the rows of W. Grid: (columns / 256, heads, rows).
__global__ void __launch_bounds__(BLOCK) linear_absorb_kernel(floatX* x, const floatX* y, const floatX* w, LinearShape s) {
    const int column = int(blockIdx.x) * BLOCK + int(threadIdx.x);
    if (column >= s.in) return;
    y += blockIdx.y * s.batch_out + blockIdx.z * s.ld_out;
    w += blockIdx.y * s.batch_w + column;
    float sum = 0;
    for (int k = 0; k < s.out; k++) sum = fmaf(float(y[k]), float(w[k * s.ld_w]), sum);
    x[blockIdx.y * s.batch_x + blockIdx.z * s.ld_in + column] = floatX(sum);
}
}  // namespace

void linear_rows_forward(floatX* y, const floatX* x, const floatX* w, const floatX* b, const LinearShape& s, bool accumulate,
                         floatX* gelu_out) {
    if (s.rows == 0 || s.out == 0) return;
    const bool pack = s.in % PACK == 0 && s.ld_in % PACK == 0 && s.ld_w % PACK == 0 && s.batch_x % PACK == 0 && s.batch_w % PACK == 0 &&
                      all_aligned16(x, w);
    auto kernel = s.rows == 1 ? (pack ? linear_rows_kernel<1, PACK> : linear_rows_kernel<1, 1>)
                              : (pack ? linear_rows_kernel<8, PACK> : linear_rows_kernel<8, 1>);
    const size_t rows = s.rows == 1 ? 1 : 8;
    launch(kernel, dim3(grid_size(size_t(s.out), WARPS), unsigned(s.batch), unsigned(ceil_div(s.rows, rows))), dim3(BLOCK), 0)(
        y, gelu_out, x, w, b, s, int(accumulate));
}

void linear_rows_absorb(floatX* x, const floatX* y, const floatX* w, const LinearShape& s) {
    for (size_t row = 0; row < s.rows; row += 65535) {       // a grid's third dimension
        const size_t rows = std::min(s.rows - row, size_t(65535));
        if (s.in > 0)
            launch(linear_absorb_kernel, dim3(grid_size(size_t(s.in), BLOCK), unsigned(s.batch), unsigned(rows)), dim3(BLOCK), 0)(
                x + row * s.ld_in, y + row * s.ld_out, w, s);
    }
}
