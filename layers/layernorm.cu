// LayerNorm on the GPU, alone and fused with the residual addition. See layernorm.h.
// One warp per row. A row's elements are kept in shared memory between the passes over it (each lane re-reads only what it wrote,
// so no barrier is needed), which makes it one read and one write of device memory for any C that fits.
#include "layers/layernorm.h"

#include "layers/column_sums.cuh"

namespace {
constexpr int FORWARD_WARPS = 4, BACKWARD_WARPS = 8;

// Grid: one warp per row. branch == null: y = layernorm(x). Otherwise sum = x + branch, y = layernorm(sum).
// Bytes a row of bf16: 2 C read and 2 C written alone, 4 C and 4 C fused (against 10 C for two kernels): memory-bound.
// Two passes over the kept row (mean, then squared deviations) cost nothing and do not cancel, unlike E[x^2] - mean^2.
template <int N> __global__ void __launch_bounds__(FORWARD_WARPS * WARP)
layernorm_forward_kernel(floatX* sum, floatX* y, float* mean, float* rstd, const floatX* x, const floatX* branch, const floatX* w, const floatX* b,
                         size_t rows, int C, int kept_stride) {
    int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
    size_t row = size_t(blockIdx.x) * (blockDim.x / WARP) + warp;
    if (row >= rows) return;                                 // whole warps leave; the kernel has no barrier
    floatX* kept = reinterpret_cast<floatX*>(dyn_smem) + size_t(warp) * kept_stride;
    float total = 0;
    for (int c = lane * N; c < C; c += WARP * N) {
        float v[N];
        load_floats(v, x + row * C + c);
        if (branch) {
            float u[N];
            load_floats(u, branch + row * C + c);
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = rounded(v[i] + u[i]);
            store_floats(sum + row * C + c, v);
        }
        store_floats(kept + c, v);
#pragma unroll
        for (int i = 0; i < N; i++) total += v[i];
    }
    float m = warp_sum(total) / C, squares = 0;
    for (int c = lane * N; c < C; c += WARP * N) {
        float v[N];
        load_floats(v, kept + c);
#pragma unroll
        for (int i = 0; i < N; i++) squares += (v[i] - m) * (v[i] - m);
    }
    float r = rsqrtf(warp_sum(squares) / C + float(LAYERNORM_EPS));
    for (int c = lane * N; c < C; c += WARP * N) {
        float v[N], gain[N], bias[N];
        load_floats(v, kept + c);
        load_floats(gain, w + c);
        load_floats(bias, b + c);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = (v[i] - m) * r * gain[i] + bias[i];
        store_floats(y + row * C + c, v);
    }
    if (lane == 0) {
        mean[row] = m;
        rstd[row] = r;
    }
}

// dx of one row by one warp; leaves dy and x in shared memory for the column sums.
template <int N> __device__ void backward_row(floatX* dx, floatX* kept_dy, floatX* kept_x, const floatX* dy, const floatX* x, const floatX* w, float m,
                                              float r, int C, bool add_to_dx) {
    int lane = int(threadIdx.x) % WARP;
    float sum_g = 0, sum_gn = 0;
    for (int c = lane * N; c < C; c += WARP * N) {
        float d[N], v[N], gain[N];
        load_floats(d, dy + c);
        load_floats(v, x + c);
        load_floats(gain, w + c);
        store_floats(kept_dy + c, d);
        store_floats(kept_x + c, v);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float g = d[i] * gain[i];
            sum_g += g;
            sum_gn += g * ((v[i] - m) * r);
        }
    }
    float mean_g = warp_sum(sum_g) / C, mean_gn = warp_sum(sum_gn) / C;
    for (int c = lane * N; c < C; c += WARP * N) {
        float d[N], v[N], gain[N], out[N];
        load_floats(d, kept_dy + c);
        load_floats(v, kept_x + c);
        load_floats(gain, w + c);
#pragma unroll
        for (int i = 0; i < N; i++) out[i] = 0;
        if (add_to_dx) load_floats(out, dx + c);
#pragma unroll
        for (int i = 0; i < N; i++) out[i] += r * (d[i] * gain[i] - mean_g - (v[i] - m) * r * mean_gn);
        store_floats(dx + c, out);
    }
}

// Grid: up to 512 blocks, each walking tiles of tile_rows rows. Per tile: warps compute dx row by row and leave dy and x in
// shared memory; then every thread adds the tile's rows to the running sums of its own columns. partial: (blocks, 2 C): dw, db.
// Bytes a row of bf16: dy, x read, dx read and written: 8 C, once each: memory-bound.
template <int N> __global__ void __launch_bounds__(BACKWARD_WARPS * WARP)
layernorm_backward_kernel(floatX* dx, float* partial, const floatX* dy, const floatX* x, const floatX* w, const float* mean, const float* rstd,
                          size_t rows, int C, int kept_stride, int tile_rows, bool add_to_dx) {
    constexpr int COLUMNS = N > 1 ? 2 : 1;                   // a thread's columns at a time: 32-bit accesses of bf16
    floatX *kept_dy = reinterpret_cast<floatX*>(dyn_smem), *kept_x = kept_dy + size_t(tile_rows) * kept_stride;
    float* sums = reinterpret_cast<float*>(kept_x + size_t(tile_rows) * kept_stride);   // (2, C): column c is touched by one thread only
    float *tile_mean = sums + 2 * C, *tile_rstd = tile_mean + tile_rows;
    int warp = int(threadIdx.x) / WARP, warps = int(blockDim.x) / WARP;
    for (int c = int(threadIdx.x) * COLUMNS; c < C; c += int(blockDim.x) * COLUMNS)
        for (int i = 0; i < COLUMNS; i++) sums[c + i] = sums[C + c + i] = 0;
    for (size_t first = size_t(blockIdx.x) * tile_rows; first < rows; first += size_t(gridDim.x) * tile_rows) {
        int n = int(rows - first < size_t(tile_rows) ? rows - first : size_t(tile_rows));
        for (int i = warp; i < n; i += warps) {
            size_t row = first + i;
            float m = mean[row], r = rstd[row];
            backward_row<N>(dx + row * C, kept_dy + size_t(i) * kept_stride, kept_x + size_t(i) * kept_stride, dy + row * C, x + row * C, w, m, r, C,
                            add_to_dx);
            if (threadIdx.x % WARP == 0) {
                tile_mean[i] = m;
                tile_rstd[i] = r;
            }
        }
        __syncthreads();
        for (int c = int(threadIdx.x) * COLUMNS; c < C; c += int(blockDim.x) * COLUMNS) {
            float dw[COLUMNS] = {}, db[COLUMNS] = {};
            for (int i = 0; i < n; i++) {
                float d[COLUMNS], v[COLUMNS];
                load_floats(d, kept_dy + size_t(i) * kept_stride + c);
                load_floats(v, kept_x + size_t(i) * kept_stride + c);
#pragma unroll
                for (int k = 0; k < COLUMNS; k++) {
                    dw[k] += d[k] * ((v[k] - tile_mean[i]) * tile_rstd[i]);
                    db[k] += d[k];
                }
            }
            for (int k = 0; k < COLUMNS; k++) sums[c + k] += dw[k], sums[C + c + k] += db[k];
        }
        __syncthreads();                                     // the next tile overwrites dy and x
    }
    for (int c = int(threadIdx.x) * COLUMNS; c < C; c += int(blockDim.x) * COLUMNS)
        for (int i = 0; i < COLUMNS; i++) {
            partial[size_t(blockIdx.x) * 2 * C + c + i] = sums[c + i];
            partial[size_t(blockIdx.x) * 2 * C + C + c + i] = sums[C + c + i];
        }
}

constexpr size_t MAX_SMEM = 99 * 1024;                       // what a block may have on every device from sm_80 on

void forward(floatX* sum, floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* branch, const floatX* w, const floatX* b, size_t rows, int C) {
    if (rows == 0) return;
    int kept_stride = int(round_up(size_t(C), PACK));
    size_t row_bytes = size_t(kept_stride) * sizeof(floatX);
    int warps = row_bytes * FORWARD_WARPS <= 48 * 1024 ? FORWARD_WARPS : 1;
    ensure(row_bytes <= MAX_SMEM, "layernorm: a row of %d elements does not fit in shared memory; --width is at most %zu", C, MAX_SMEM / sizeof(floatX));
    bool pack = C % PACK == 0 && all_aligned16(sum, y, x, branch, w, b);
    auto kernel = pack ? layernorm_forward_kernel<PACK> : layernorm_forward_kernel<1>;
    launch(kernel, grid_size(rows, size_t(warps)), dim3(unsigned(warps) * WARP), size_t(warps) * row_bytes)(sum, y, mean, rstd, x, branch, w, b, rows, C, kept_stride);
}
}  // namespace

void layernorm_forward(floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* w, const floatX* b, size_t rows, int C) {
    forward(nullptr, y, mean, rstd, x, nullptr, w, b, rows, C);
}

void residual_layernorm_forward(floatX* sum, floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* branch, const floatX* w,
                                const floatX* b, size_t rows, int C) {
    forward(sum, y, mean, rstd, x, branch, w, b, rows, C);
}

void layernorm_backward(floatX* dx, floatM* dw, floatM* db, const floatX* dy, const floatX* x, const floatX* w, const floatM* mean,
                        const floatM* rstd, size_t rows, int C, bool add_to_dx, bool accumulate) {
    int kept_stride = int(round_up(size_t(C), PACK));
    auto smem = [&](int tile_rows) {
        return size_t(2) * tile_rows * kept_stride * sizeof(floatX) + size_t(2 * C + 2 * tile_rows) * sizeof(float);
    };
    int tile_rows = 2 * BACKWARD_WARPS;                      // 55 KiB at C = 768 in bf16: four blocks on an SM of 228 KiB
    while (tile_rows > 1 && smem(tile_rows) > 64 * 1024) tile_rows /= 2;
    ensure(smem(tile_rows) <= MAX_SMEM, "layernorm: a row of %d elements does not fit in shared memory; choose a smaller --width", C);
    size_t blocks = std::min({ceil_div(rows, size_t(tile_rows)), size_t(512), SCRATCH_BYTES / (size_t(2) * C * sizeof(float))});
    if (blocks == 0) blocks = 1;                             // no rows: the sums are zeros
    float* partial = static_cast<float*>(device_scratch(blocks * 2 * C * sizeof(float)));
    bool pack = C % PACK == 0 && all_aligned16(dx, dy, x, w);
    auto kernel = pack ? layernorm_backward_kernel<PACK> : layernorm_backward_kernel<1>;
    launch(kernel, dim3(unsigned(blocks)), dim3(BACKWARD_WARPS * WARP), smem(tile_rows))(dx, partial, dy, x, w, mean, rstd, rows, C, kept_stride, tile_rows,
                                                                                        add_to_dx);
    finish_column_sums(dw, partial, int(blocks), C, size_t(2) * C, accumulate);
    finish_column_sums(db, partial + C, int(blocks), C, size_t(2) * C, accumulate);
}
