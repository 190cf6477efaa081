// Our own matrix product: a tiled SIMT kernel without tensor cores. It is all that BACKEND=emu has, so that the emulation needs no
// library, and on a GPU the fallback for the rare shapes for which cuBLASLt knows no algorithm. Not for speed.
#pragma once
#include "layers/matmul.cuh"

// Operands as strides: element (i, k) of op(A) at a[i * a_row + k * a_col], element (k, j) of op(B) at b[k * b_row + j * b_col].
struct MatmulStrides { size_t a_row, a_col, b_row, b_col, d_row, batch_a, batch_b, batch_d; };

// Grid: (tiles of 64 columns, tiles of 64 rows, batch), 64 threads; a thread keeps 8 x 8 elements of D in registers while k runs
// in steps of 32 through shared memory. 32 KiB read per 262,144 multiply-adds: bound by shared memory, some 10% of a tensor-core product.
inline constexpr int MATMUL_TILE = 64, MATMUL_STEP = 32, MATMUL_THREADS = 64;
template <class D> __global__ void __launch_bounds__(MATMUL_THREADS)
matmul_plain_kernel(D* d, const floatX* a, const floatX* b, size_t m, size_t n, size_t k, MatmulStrides s, bool accumulate) {
    float(*tile_a)[MATMUL_TILE] = reinterpret_cast<float(*)[MATMUL_TILE]>(dyn_smem);    // (k, row)
    float(*tile_b)[MATMUL_TILE] = tile_a + MATMUL_STEP;                                 // (k, column)
    a += blockIdx.z * s.batch_a;
    b += blockIdx.z * s.batch_b;
    d += blockIdx.z * s.batch_d;
    size_t row0 = size_t(blockIdx.y) * MATMUL_TILE, column0 = size_t(blockIdx.x) * MATMUL_TILE;
    int my_row = int(threadIdx.x) / 8 * 8, my_column = int(threadIdx.x) % 8 * 8;
    float sum[8][8] = {};
    for (size_t k0 = 0; k0 < k; k0 += MATMUL_STEP) {
        // Neighbouring threads take neighbours in memory: along the stride of 1.
        for (int i = int(threadIdx.x); i < MATMUL_TILE * MATMUL_STEP; i += MATMUL_THREADS) {
            int row = s.a_col == 1 ? i / MATMUL_STEP : i % MATMUL_TILE, ka = s.a_col == 1 ? i % MATMUL_STEP : i / MATMUL_TILE;
            int column = s.b_row == 1 ? i / MATMUL_STEP : i % MATMUL_TILE, kb = s.b_row == 1 ? i % MATMUL_STEP : i / MATMUL_TILE;
            tile_a[ka][row] = row0 + row < m && k0 + ka < k ? float(a[(row0 + row) * s.a_row + (k0 + ka) * s.a_col]) : 0.0f;
            tile_b[kb][column] = column0 + column < n && k0 + kb < k ? float(b[(k0 + kb) * s.b_row + (column0 + column) * s.b_col]) : 0.0f;
        }
        __syncthreads();
        int steps = int(k - k0 < size_t(MATMUL_STEP) ? k - k0 : size_t(MATMUL_STEP));
        for (int kk = 0; kk < steps; kk++) {
            float x[8], y[8];
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] = tile_a[kk][my_row + i], y[i] = tile_b[kk][my_column + i];
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) sum[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            size_t row = row0 + my_row + i, column = column0 + my_column + j;
            if (row >= m || column >= n) continue;
            D* to = d + row * s.d_row + column;
            *to = D((accumulate ? float(*to) : 0.0f) + sum[i][j]);
        }
}

inline void matmul_plain(const Matmul& p) {
    if (p.m == 0 || p.n == 0 || p.batch == 0) return;
    MatmulStrides s{p.transpose_a ? 1 : p.lda,
                    p.transpose_a ? p.lda : 1,
                    p.transpose_b ? 1 : p.ldb,
                    p.transpose_b ? p.ldb : 1,
                    p.ldd,
                    p.batch_a,
                    p.batch_b,
                    p.batch_d};
    dim3 grid(grid_size(p.n, MATMUL_TILE), grid_size(p.m, MATMUL_TILE), unsigned(p.batch));
    size_t smem = size_t(2) * MATMUL_STEP * MATMUL_TILE * sizeof(float);
    if (p.d_is_master)
        launch(matmul_plain_kernel<floatM>, grid, dim3(MATMUL_THREADS), smem)(static_cast<floatM*>(p.d), p.a, p.b, p.m, p.n, p.k, s,
                                                                              p.accumulate);
    else
        launch(matmul_plain_kernel<floatX>, grid, dim3(MATMUL_THREADS), smem)(static_cast<floatX*>(p.d), p.a, p.b, p.m, p.n, p.k, s,
                                                                              p.accumulate);
}
