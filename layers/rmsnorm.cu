// RMSNorm on the GPU, alone and fused with the residual addition. See rmsnorm.h. The code is kept plain: one warp per row, re-reading
// the row from L1 instead of keeping it, and a separate pass for dw (which reads dy and x once more; layernorm.cu does it in one).
#include "layers/rmsnorm.h"

#include "layers/column_sums.cuh"

namespace {
constexpr int WARPS = 4;

// Grid: one warp per row. branch == null: y = rmsnorm(x). Otherwise sum = x + branch, y = rmsnorm(sum): a lane re-reads what it wrote.
// Bytes a row of bf16: 2 C read, 2 C written alone, 4 C and 4 C fused: memory-bound.
template <int N> __global__ void __launch_bounds__(WARPS* WARP)
    rmsnorm_forward_kernel(floatX* sum, floatX* y, float* rstd, const floatX* x, const floatX* branch, const floatX* w, size_t rows,
                           int C, size_t ld_x) {
    int lane = int(threadIdx.x) % WARP;
    size_t row = size_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (row >= rows) return;
    float squares = 0;
    for (int c = lane * N; c < C; c += WARP * N) {
        float v[N];
        load_floats(v, x + row * ld_x + c);
        if (branch) {
            float u[N];
            load_floats(u, branch + row * C + c);
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = rounded(v[i] + u[i]);
            store_floats(sum + row * C + c, v);
        }
#pragma unroll
        for (int i = 0; i < N; i++) squares += v[i] * v[i];
    }
    float r = rsqrtf(warp_sum(squares) / C + float(RMSNORM_EPS));
    const floatX* source = branch ? sum + row * C : x + row * ld_x;
    for (int c = lane * N; c < C; c += WARP * N) {
        float v[N], gain[N];
        load_floats(v, source + c);
        load_floats(gain, w + c);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = v[i] * r * gain[i];
        store_floats(y + row * C + c, v);
    }
    if (lane == 0) rstd[row] = r;
}

// Grid: one warp per row. Bytes a row of bf16: dy and x read, dx written, 6 C; 8 C when adding to dx.
template <int N> __global__ void __launch_bounds__(WARPS* WARP)
    rmsnorm_backward_input_kernel(floatX* dx, const floatX* dy, const floatX* x, const floatX* w, const float* rstd, size_t rows, int C,
                                  size_t ld_x, bool add_to_dx) {
    int lane = int(threadIdx.x) % WARP;
    size_t row = size_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (row >= rows) return;
    float r = rstd[row], sum = 0;
    for (int c = lane * N; c < C; c += WARP * N) {
        float d[N], v[N], gain[N];
        load_floats(d, dy + row * C + c);
        load_floats(v, x + row * ld_x + c);
        load_floats(gain, w + c);
#pragma unroll
        for (int i = 0; i < N; i++) sum += d[i] * gain[i] * (v[i] * r);
    }
    float mean_gn = warp_sum(sum) / C;
    for (int c = lane * N; c < C; c += WARP * N) {
        float d[N], v[N], gain[N];
        load_floats(d, dy + row * C + c);
        load_floats(v, x + row * ld_x + c);
        load_floats(gain, w + c);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = r * (d[i] * gain[i] - v[i] * r * mean_gn);
        if (add_to_dx) {
            float old[N];
            load_floats(old, dx + row * ld_x + c);
#pragma unroll
            for (int i = 0; i < N; i++) v[i] += old[i];
        }
        store_floats(dx + row * ld_x + c, v);
    }
}

// Grid: (tiles of 32 columns, row blocks), block (32, 8). Stage 1 of dw = sum over rows of dy x rstd.
constexpr int ROW_LANES = 8;
__global__ void __launch_bounds__(WARP* ROW_LANES)
    rmsnorm_backward_gain_kernel(float* partial, const floatX* dy, const floatX* x, const float* rstd, size_t rows, int C, size_t ld_x,
                                 size_t rows_per_block) {
    __shared__ float sums[ROW_LANES][WARP];
    int c = int(blockIdx.x) * WARP + int(threadIdx.x);
    size_t first = blockIdx.y * rows_per_block, end = first + rows_per_block < rows ? first + rows_per_block : rows;
    float sum = 0;
    if (c < C)
        for (size_t r = first + threadIdx.y; r < end; r += ROW_LANES) sum += float(dy[r * C + c]) * float(x[r * ld_x + c]) * rstd[r];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c >= C) return;
    float total = 0;
    for (int j = 0; j < ROW_LANES; j++) total += sums[j][threadIdx.x];
    partial[size_t(blockIdx.y) * C + c] = total;
}
}  // namespace

static void forward(floatX* sum, floatX* y, floatM* rstd, const floatX* x, const floatX* branch, const floatX* w, size_t rows, int C,
                    size_t ld_x) {
    if (rows == 0) return;
    bool pack = C % PACK == 0 && ld_x % PACK == 0 && all_aligned16(sum, y, x, branch, w);
    auto kernel = pack ? rmsnorm_forward_kernel<PACK> : rmsnorm_forward_kernel<1>;
    launch(kernel, grid_size(rows, WARPS), dim3(WARPS * WARP), 0)(sum, y, rstd, x, branch, w, rows, C, ld_x);
}

void rmsnorm_forward(floatX* y, floatM* rstd, const floatX* x, const floatX* w, size_t rows, int C, size_t ld_x) {
    forward(nullptr, y, rstd, x, nullptr, w, rows, C, ld_x);
}

void residual_rmsnorm_forward(floatX* sum, floatX* y, floatM* rstd, const floatX* x, const floatX* branch, const floatX* w, size_t rows,
                              int C) {
    forward(sum, y, rstd, x, branch, w, rows, C, size_t(C));
}

void rmsnorm_backward(floatX* dx, floatM* dw, const floatX* dy, const floatX* x, const floatX* w, const floatM* rstd, size_t rows, int C,
                      size_t ld_x, bool accumulate, bool add_to_dx) {
    if (rows > 0) {
        bool pack = C % PACK == 0 && ld_x % PACK == 0 && all_aligned16(dx, dy, x, w);
        auto kernel = pack ? rmsnorm_backward_input_kernel<PACK> : rmsnorm_backward_input_kernel<1>;
        launch(kernel, grid_size(rows, WARPS), dim3(WARPS * WARP), 0)(dx, dy, x, w, rstd, rows, C, ld_x, add_to_dx);
    }
    size_t rows_per_block = std::max(round_up(ceil_div(rows, 256), ROW_LANES), size_t(64));
    unsigned row_blocks = std::max(1u, grid_size(rows, rows_per_block));
    float* partial = static_cast<float*>(device_scratch(size_t(row_blocks) * C * sizeof(float)));
    launch(rmsnorm_backward_gain_kernel, dim3(grid_size(size_t(C), WARP), row_blocks), dim3(WARP, ROW_LANES), 0)(
        partial, dy, x, rstd, rows, C, ld_x, rows_per_block);
    finish_column_sums(dw, partial, int(row_blocks), C, size_t(C), accumulate);
}
