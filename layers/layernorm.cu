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
template <int N>
__global__ void __launch_bounds__(FORWARD_WARPS * WARP)
    layernorm_forward_kernel(floatX* sum, floatX* y, float* mean, float* rstd, const floatX* x, const floatX* branch,
                             const floatX* w, const floatX* b, size_t rows, int C, int kept_stride) {
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

// The loops over k end with a `break` where a row does. nvcc unrolls them, which keeps the arrays that k picks from in
// registers; the emulation has no registers to keep, and clang, which reads nvcc's pragma as its own, could not.
#if defined(__CUDACC__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif
// The backward for rows of at most 32 N K elements. Grid: up to MOST_BLOCKS blocks, whose warps take rows in turn; a lane keeps the sums of
// dw and db for its own columns in registers over all its warp's rows (2 N K of them), and a row's dy and x between the two passes
// over it, as they are stored. No barrier until the end, where the block's warps add their sums one after the other.
// partial: (blocks, 2 C): dw, db. Bytes a row of bf16: dy, x read, dx read and written: 8 C, once each: memory-bound.
constexpr int MOST_BLOCKS = 264;                             // two on each SM of an H100
struct __align__(16) Bytes16 { uint32_t x[4]; };
template <int N, int K>
__global__ void __launch_bounds__(BACKWARD_WARPS * WARP)
    layernorm_backward_rows_kernel(floatX* dx, float* partial, const floatX* dy, const floatX* x, const floatX* w,
                                   const float* mean, const float* rstd, size_t rows, int C, bool add_to_dx) {
    static_assert(N * sizeof(floatX) == sizeof(Bytes16));
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
    float dw[K][N] = {}, db[K][N] = {};
    for (size_t row = size_t(blockIdx.x) * BACKWARD_WARPS + warp; row < rows; row += size_t(gridDim.x) * BACKWARD_WARPS) {
        const float r = rstd[row], minus_mr = -mean[row] * r;               // n = x r - mean r
        Bytes16 kept_dy[K] = {}, kept_x[K] = {};
        float sum_g = 0, sum_gn = 0;
        UNROLL
        for (int k = 0; k < K; k++) {
            const int c = (k * WARP + lane) * N;
            if (c >= C) break;
            kept_dy[k] = load16<Bytes16>(dy + row * C + c);
            kept_x[k] = load16<Bytes16>(x + row * C + c);
            float d[N], v[N], gain[N];
            load_floats(d, reinterpret_cast<const floatX*>(&kept_dy[k]));
            load_floats(v, reinterpret_cast<const floatX*>(&kept_x[k]));
            load_floats(gain, w + c);
#pragma unroll
            for (int i = 0; i < N; i++) {
                sum_g += d[i] * gain[i];
                sum_gn += d[i] * gain[i] * (v[i] * r + minus_mr);
            }
        }
        const float mean_g = warp_sum(sum_g) / C, mean_gn = warp_sum(sum_gn) / C;
        UNROLL
        for (int k = 0; k < K; k++) {
            const int c = (k * WARP + lane) * N;
            if (c >= C) break;
            float d[N], v[N], gain[N], out[N] = {};
            load_floats(d, reinterpret_cast<const floatX*>(&kept_dy[k]));
            load_floats(v, reinterpret_cast<const floatX*>(&kept_x[k]));
            load_floats(gain, w + c);
            if (add_to_dx) load_floats(out, dx + row * C + c);
#pragma unroll
            for (int i = 0; i < N; i++) {
                const float n = v[i] * r + minus_mr;
                out[i] += r * (d[i] * gain[i] - mean_g - n * mean_gn);
                dw[k][i] += d[i] * n;
                db[k][i] += d[i];
            }
            store_floats(dx + row * C + c, out);
        }
    }
    float* sums = reinterpret_cast<float*>(dyn_smem);        // (2, C)
    for (int turn = 0; turn < BACKWARD_WARPS; turn++) {
        if (warp == turn)
            UNROLL
            for (int k = 0; k < K; k++) {
                const int c = (k * WARP + lane) * N;
                if (c >= C) break;
#pragma unroll
                for (int i = 0; i < N; i++) {
                    sums[c + i] = turn == 0 ? dw[k][i] : sums[c + i] + dw[k][i];
                    sums[C + c + i] = turn == 0 ? db[k][i] : sums[C + c + i] + db[k][i];
                }
            }
        __syncthreads();
    }
    for (int c = int(threadIdx.x); c < 2 * C; c += BACKWARD_WARPS * WARP) partial[size_t(blockIdx.x) * 2 * C + c] = sums[c];
}

// For every other row: longer ones, and those that no vector load can read.
// dx of one row by one warp; leaves dy and x in shared memory for the column sums.
template <int N>
__device__ void backward_row(floatX* dx, floatX* kept_dy, floatX* kept_x, const floatX* dy, const floatX* x,
                             const floatX* w, float m, float r, int C, bool add_to_dx) {
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
template <int N>
__global__ void __launch_bounds__(BACKWARD_WARPS * WARP)
    layernorm_backward_kernel(floatX* dx, float* partial, const floatX* dy, const floatX* x, const floatX* w,
                              const float* mean, const float* rstd, size_t rows, int C, int kept_stride, int tile_rows,
                              bool add_to_dx) {
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
            backward_row<N>(dx + row * C, kept_dy + size_t(i) * kept_stride, kept_x + size_t(i) * kept_stride,
                            dy + row * C, x + row * C, w, m, r, C, add_to_dx);
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

// Launches the kernel with the fewest vectors a lane that hold a row; false: none does.
template <int... K, class Run> bool with_vectors(int C, Run run) {
    bool done = false;
    (void)((C <= WARP * PACK * K && (run(layernorm_backward_rows_kernel<PACK, K>), done = true)) || ...);
    return done;
}

void forward(floatX* sum, floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* branch, const floatX* w,
             const floatX* b, size_t rows, int C) {
    if (rows == 0) return;
    int kept_stride = int(round_up(size_t(C), PACK));
    size_t row_bytes = size_t(kept_stride) * sizeof(floatX);
    int warps = row_bytes * FORWARD_WARPS <= 48 * 1024 ? FORWARD_WARPS : 1;
    ensure(row_bytes <= MAX_SMEM,
           "layernorm: a row of %d elements does not fit in shared memory; --width is at most %zu", C,
           MAX_SMEM / sizeof(floatX));
    bool pack = C % PACK == 0 && all_aligned16(sum, y, x, branch, w, b);
    auto kernel = pack ? layernorm_forward_kernel<PACK> : layernorm_forward_kernel<1>;
    launch(kernel, grid_size(rows, size_t(warps)), dim3(unsigned(warps) * WARP), size_t(warps) * row_bytes)(
        sum, y, mean, rstd, x, branch, w, b, rows, C, kept_stride);
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
    auto partial_sums = [&](size_t blocks) { return static_cast<float*>(device_scratch(blocks * 2 * C * sizeof(float))); };
    auto finish = [&](const float* partial, size_t blocks) {
        finish_column_sums(dw, partial, int(blocks), C, size_t(2) * C, accumulate);
        finish_column_sums(db, partial + C, int(blocks), C, size_t(2) * C, accumulate);
    };
    const bool pack = C % PACK == 0 && all_aligned16(dx, dy, x, w);
    if (pack && with_vectors<1, 2, 3, 4, 7>(C, [&](auto kernel) {
            // no rows: the sums are zeros
            const size_t blocks = std::clamp(ceil_div(rows, BACKWARD_WARPS), size_t(1), size_t(MOST_BLOCKS));
            float* partial = partial_sums(blocks);
            launch(kernel, dim3(unsigned(blocks)), dim3(BACKWARD_WARPS * WARP), size_t(2) * C * sizeof(float))(
                dx, partial, dy, x, w, mean, rstd, rows, C, add_to_dx);
            finish(partial, blocks);
        }))
        return;
    int kept_stride = int(round_up(size_t(C), PACK));
    auto smem = [&](int tile_rows) {
        return size_t(2) * tile_rows * kept_stride * sizeof(floatX) + size_t(2 * C + 2 * tile_rows) * sizeof(float);
    };
    int tile_rows = 2 * BACKWARD_WARPS;
    while (tile_rows > 1 && smem(tile_rows) > 64 * 1024) tile_rows /= 2;
    ensure(smem(tile_rows) <= MAX_SMEM, "layernorm: a row of %d elements does not fit in shared memory; choose a smaller --width", C);
    size_t blocks = std::clamp(ceil_div(rows, size_t(tile_rows)), size_t(1),
                               std::min(size_t(512), SCRATCH_BYTES / (size_t(2) * C * sizeof(float))));
    float* partial = partial_sums(blocks);
    auto kernel = pack ? layernorm_backward_kernel<PACK> : layernorm_backward_kernel<1>;
    launch(kernel, dim3(unsigned(blocks)), dim3(BACKWARD_WARPS * WARP), smem(tile_rows))(
        dx, partial, dy, x, w, mean, rstd, rows, C, kept_stride, tile_rows, add_to_dx);
    finish(partial, blocks);
}
