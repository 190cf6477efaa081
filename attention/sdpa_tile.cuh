// Tiles in shared memory and the fragments of the tensor cores, for sdpa_forward.cuh and sdpa_backward.cuh.
// Source: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix". Not for head sizes that are not multiples of 16.
//
// One warp multiplies C (16 x 8, float) += A (16 x 16, bf16) B (16 x 8, bf16). With lane = 4 g + t (g = 0..7, t = 0..3) it holds
//   c[0..1] = C[g][2t..2t+1]       c[2..3] = C[g+8][2t..2t+1]
//   a[0] = A[g][2t..2t+1]    a[1] = A[g+8][2t..2t+1]    a[2] = A[g][2t+8..2t+9]    a[3] = A[g+8][2t+8..2t+9]
//   b[0] = B[2t..2t+1][g]    b[1] = B[2t+8..2t+9][g]
// So two neighbouring C tiles, rounded to bf16, are an A fragment without moving anything between lanes: the softmax's output
// is the next product's left operand (accumulate_rows).
// c[m][n][i] of a warp's M x N tiles is row ROW(m, i) + g, column COLUMN(n, i) + 2t.
// ldmatrix.x4 reads four 8 x 8 matrices M_0..M_3; lanes 8 q .. 8 q + 7 name the rows (16 bytes) of M_q; r[q] = M_q[g][2t..2t+1],
// or M_q[2t..2t+1][g] with .trans.
#pragma once
#include "attention/sdpa_common.cuh"

__device__ __forceinline__ constexpr int ROW(int m, int i) { return m * 16 + i / 2 * 8; }
__device__ __forceinline__ constexpr int COLUMN(int n, int i) { return n * 8 + i % 2; }

// Element (r, 8 chunk) of a tile of rows of D. The 16-byte chunks of a row are exchanged by XOR with bits of the row number so
// that 8 consecutive rows of one chunk, what ldmatrix reads at once, lie in 8 different groups of 4 banks. A row is D / 8 chunks
// long; SPAN, the power of two in that (at most 8), is how many chunks trade places, and 8 / SPAN after how many rows the banks
// repeat. Without it: 8-way conflicts at D = 64.
template <int D> inline constexpr int SPAN = D % 64 == 0 ? 8 : D % 32 == 0 ? 4 : 2;
template <int D> __device__ __forceinline__ int swizzle(int r, int chunk) {
    static_assert(D % 16 == 0);
    return r * D + (chunk ^ (r / (8 / SPAN<D>) % SPAN<D>)) * 8;
}

// Rows row0 .. row0 + ROWS - 1 of a matrix in global memory, `stride` elements apart; rows >= T become zeros (nothing is read).
// SPAN threads take a row, SPAN chunks of it at a time: all of a thread's copies go to one address plus constants.
template <int ROWS, int D> __device__ __forceinline__ void load_tile(bf16* tile, const bf16* matrix, int row0, int T, size_t stride) {
    constexpr int STEP = SDPA_THREADS / SPAN<D>;
    static_assert(ROWS % STEP == 0);
    const int r = threadIdx.x / SPAN<D>, chunk = threadIdx.x % SPAN<D>;
    bf16* to = tile + swizzle<D>(r, chunk);
    const bf16* from = matrix + size_t(row0 + r) * stride + chunk * 8;
#pragma unroll
    for (int n = 0; n < ROWS; n += STEP, from += STEP * stride)
#pragma unroll
        for (int c = 0; c < D; c += SPAN<D> * 8) cp_async16(to + n * D + c, from + c, row0 + r + n < T);
}

// The lane's row for an ldmatrix of the 16 x 16 block at (row0, column0), both multiples of 8; M_0..M_3 are its quarters: upper left,
// lower left, upper right, lower right. The same for A, B and transposed B, so that the offsets that depend on the lane (one
// per column block) are computed once and shared: they are what runs out of registers first.
template <int D> __device__ __forceinline__ const bf16* block_row(const bf16* tile, int row0, int column0, int lane) {
    constexpr int WIDE = SPAN<D> * 8;               // chunks trade places within WIDE columns: beyond that, a constant offset
    const bf16* lane_row = tile + swizzle<D>(lane % 16, column0 % WIDE / 8 + lane / 16);
    return lane_row + (row0 * D + column0 / WIDE * WIDE);
}
// A: rows of the tile are rows of A.
template <int D> __device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16* tile, int row0, int k0, int lane) {
    ldmatrix_x4(a, block_row<D>(tile, row0, k0, lane));
}
// B, rows of the tile are columns of B (Q K^T: a row is a key): b[0..1] for columns n0.., b[2..3] for columns n0 + 8...
template <int D> __device__ __forceinline__ void load_b(uint32_t (&b)[4], const bf16* tile, int n0, int k0, int lane) {
    uint32_t quarter[4];
    ldmatrix_x4(quarter, block_row<D>(tile, n0, k0, lane));
    b[0] = quarter[0], b[1] = quarter[2], b[2] = quarter[1], b[3] = quarter[3];
}
// The same where rows of the tile are rows of B (P V: a row is a key, summed over).
template <int D> __device__ __forceinline__ void load_b_trans(uint32_t (&b)[4], const bf16* tile, int k0, int n0, int lane) {
    ldmatrix_x4_trans(b, block_row<D>(tile, k0, n0, lane));
}

// c[m], c of M vertical tiles and 2 neighbouring horizontal ones, += a[m] b
template <int M, int N> __device__ __forceinline__ void multiply(float (&c)[M][N][4], int n, const uint32_t (&a)[M][4], const uint32_t (&b)[4]) {
#pragma unroll
    for (int m = 0; m < M; m++) {
        mma_bf16_16816(c[m][n], a[m], b[0], b[1]);
        mma_bf16_16816(c[m][n + 1], a[m], b[2], b[3]);
    }
}

// c (16 M x 8 N) += A B^T over D columns: A rows a_row.. of one tile, B rows b_row.. of another.
template <int D, int M, int N>
__device__ __forceinline__ void score_product(float (&c)[M][N][4], const bf16* a_tile, int a_row, const bf16* b_tile, int b_row, int lane) {
#pragma unroll
    for (int d = 0; d < D; d += 16) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) load_a<D>(a[m], a_tile, a_row + m * 16, d, lane);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t b[4];
            load_b<D>(b, b_tile, b_row + n * 8, d, lane);
            multiply(c, n, a, b);
        }
    }
}

// sum (16 M x D) += C (16 M x 8 N, rounded to bf16) B, B = rows row0.. of a tile. A step takes two columns of C's tiles as its A.
template <int D, int M, int N> __device__ __forceinline__ void accumulate_rows(float (&sum)[M][D / 8][4], const float (&c)[M][N][4],
                                                                               const bf16* tile, int row0, int lane) {
#pragma unroll
    for (int k = 0; k < N; k += 2) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) a[m][i] = pack_bf16(c[m][k + i / 2][i % 2 * 2], c[m][k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_b_trans<D>(b, tile, row0 + k * 8, n * 8, lane);
            multiply(sum, n, a, b);
        }
    }
}

// A warp's 16 M finished rows to global memory, through its own part of shared memory so that stores are 16 bytes wide.
// `stage` (16 M rows of D) must belong to this warp alone by now; rows row0 + r >= T are left out.
template <int D, int M> __device__ __forceinline__ void store_rows(bf16* matrix, int row0, int T, size_t stride, bf16* stage,
                                                                   const float (&c)[M][D / 8][4], int lane) {
    const int g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<uint32_t*>(stage + swizzle<D>(m * 16 + half * 8 + g, n) + 2 * t) = pack_bf16(c[m][n][2 * half], c[m][n][2 * half + 1]);
    __syncwarp();
    for (int i = lane; i < M * 16 * (D / 8); i += 32) {
        int r = i / (D / 8), chunk = i % (D / 8);
        if (row0 + r < T)
            store16(matrix + size_t(row0 + r) * stride + chunk * 8, load16<uint4>(stage + swizzle<D>(r, chunk)));
    }
}
