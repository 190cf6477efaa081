// Column sums on the GPU. See column_sums.cuh.
#include "layers/column_sums.cuh"

namespace {
constexpr int ROW_LANES = 8, MAX_ROW_BLOCKS = 256;

// Grid: (column tiles of 32 N, row blocks), block (32, 8): thread (i, j) sums N columns of rows j, j + 8, ... of the block's rows,
// then the eight sums of each column are added in order. Reads rows * columns elements once: memory-bound.
template <int N> __global__ void __launch_bounds__(WARP * ROW_LANES)
column_sums_kernel(float* partial, const floatX* x, size_t rows, int columns, size_t ld, size_t rows_per_block) {
    float* sums = reinterpret_cast<float*>(dyn_smem);        // (8, 32 N)
    int column = (int(blockIdx.x) * WARP + int(threadIdx.x)) * N;
    size_t first = blockIdx.y * rows_per_block, end = first + rows_per_block < rows ? first + rows_per_block : rows;
    float sum[N] = {};
    if (column < columns)
        for (size_t r = first + threadIdx.y; r < end; r += ROW_LANES) {
            float v[N];
            load_floats(v, x + r * ld + column);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += v[i];
        }
#pragma unroll
    for (int i = 0; i < N; i++) sums[(threadIdx.y * N + i) * WARP + threadIdx.x] = sum[i];
    __syncthreads();
    // One thread a column: column k of the tile belongs to thread k / N, element k % N.
    for (int k = int(threadIdx.y * WARP + threadIdx.x); k < WARP * N; k += WARP * ROW_LANES) {
        int c = int(blockIdx.x) * WARP * N + k;
        if (c >= columns) continue;
        float total = 0;
        for (int j = 0; j < ROW_LANES; j++) total += sums[(j * N + k % N) * WARP + k / N];
        partial[size_t(blockIdx.y) * columns + c] = total;
    }
}

// Grid: tiles of 32 columns, block (32, 16): thread (i, j) sums partial rows j, j + 16, ..., then row 0 adds the sixteen in order.
// Reads blocks * columns floats, a few per cent of what stage 1 read.
constexpr int FINISH_LANES = 16;
__global__ void __launch_bounds__(WARP * FINISH_LANES)
finish_column_sums_kernel(float* out, const float* partial, int blocks, int columns, size_t ld, bool accumulate) {
    __shared__ float sums[FINISH_LANES][WARP];
    int c = int(blockIdx.x) * WARP + int(threadIdx.x);
    float sum = 0;
    if (c < columns)
        for (int b = int(threadIdx.y); b < blocks; b += FINISH_LANES) sum += partial[b * ld + c];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c >= columns) return;
    float total = accumulate ? out[c] : 0.0f;
    for (int j = 0; j < FINISH_LANES; j++) total += sums[j][threadIdx.x];
    out[c] = total;
}
}  // namespace

void finish_column_sums(floatM* out, const float* partial, int blocks, int columns, size_t ld, bool accumulate) {
    launch(finish_column_sums_kernel, grid_size(size_t(columns), WARP), dim3(WARP, FINISH_LANES), 0)(out, partial, blocks, columns, ld,
                                                                                                     accumulate);
}

void column_sums(floatM* out, const floatX* x, size_t rows, int columns, size_t ld, bool accumulate) {
    // At least 64 rows a block, at most 256 blocks: enough to fill a GPU, few enough that stage 2 is small.
    size_t rows_per_block = round_up(ceil_div(rows, MAX_ROW_BLOCKS), ROW_LANES);
    if (rows_per_block < 64) rows_per_block = 64;
    unsigned row_blocks = grid_size(rows, rows_per_block);
    float* partial = static_cast<float*>(device_scratch(size_t(row_blocks) * columns * sizeof(float)));
    bool pack = columns % PACK == 0 && ld % PACK == 0 && all_aligned16(x);
    int n = pack ? PACK : 1;
    dim3 grid(grid_size(size_t(columns), size_t(WARP) * n), row_blocks), block(WARP, ROW_LANES);
    size_t smem = size_t(ROW_LANES) * WARP * n * sizeof(float);
    if (pack) launch(column_sums_kernel<PACK>, grid, block, smem)(partial, x, rows, columns, ld, rows_per_block);
    else launch(column_sums_kernel<1>, grid, block, smem)(partial, x, rows, columns, ld, rows_per_block);
    finish_column_sums(out, partial, int(row_blocks), columns, size_t(columns), accumulate);
}
