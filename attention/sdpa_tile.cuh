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

// each<2, 8>(body) calls body(m, n) for m = 0, 1 and n = 0..7, unrolled, so that what the indices pick stays in registers.
template <int COUNT, int... INNER, class Body> __device__ __forceinline__ void each(Body body) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        if constexpr (sizeof...(INNER) > 0) each<INNER...>([&](auto... inner) __attribute__((always_inline)) { body(i, inner...); });
        else body(i);
    }
}

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

// A thread's part in copying tiles of ROWS rows of D to shared memory, each tile below the one before it in
// global memory, `stride` elements between rows; rows >= T become zeros (nothing is read). SPAN threads take
// a row, SPAN chunks of it at a time, so that all of a thread's copies go to one address plus constants, and
// from one pointer that moves down.
template <int ROWS, int D> struct TileCopy {
    static constexpr int STEP = SDPA_THREADS / SPAN<D>;
    static_assert(ROWS % STEP == 0);
    SharedAddress to;
    const bf16* from;
    int row;

    __device__ __forceinline__ TileCopy(const bf16* tile, const bf16* matrix, int row0, size_t stride) {
        const int r = threadIdx.x / SPAN<D>, chunk = threadIdx.x % SPAN<D>;
        to = shared_address(tile + swizzle<D>(r, chunk));
        from = matrix + size_t(row0 + r) * stride + chunk * 8;
        row = row0 + r;
    }
    // `offset`: bytes from the tile named above to the one to be filled
    __device__ __forceinline__ void start(int offset, int T, size_t stride) const {
        const bf16* source = from;
#pragma unroll
        for (int n = 0; n < ROWS; n += STEP, source += STEP * stride)
#pragma unroll
            for (int c = 0; c < D; c += SPAN<D> * 8) cp_async16(to + offset + (n * D + c) * int(sizeof(bf16)), source + c, row + n < T);
    }
    __device__ __forceinline__ void go_down(size_t stride) {
        from += ROWS * stride;
        row += ROWS;
    }
};
template <int ROWS, int D> __device__ __forceinline__ void load_tile(const bf16* tile, const bf16* matrix, int row0, int T, size_t stride) {
    TileCopy<ROWS, D>(tile, matrix, row0, stride).start(0, T, stride);
}

// Where a lane's row lies for an ldmatrix of the 16 x 16 block at (0, 0) of a tile, whose quarters M_0..M_3 come in the order in which the
// registers of a fragment hold them, so that none is moved afterwards (a move for each mma.sync otherwise):
//   lane_row      upper left, lower left, upper right, lower right: A; and B where rows of the tile are rows of B
//   lane_row_b    upper left, upper right, lower left, lower right: B where rows of the tile are columns of B
// Computed once: every other block is an exclusive or with a constant and a constant offset away.
template <int D> __device__ __forceinline__ SharedAddress lane_row(const bf16* tile, int lane) {
    return shared_address(tile + swizzle<D>(lane % 16, lane / 16));
}
template <int D> __device__ __forceinline__ SharedAddress lane_row_b(const bf16* tile, int lane) {
    return shared_address(tile + swizzle<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2));
}
// The block at (row0, column0), both constants, row0 a multiple of 8, column0 of 16. Chunks trade places within WIDE columns: there bits of
// the address are exchanged; beyond, it is an offset. (Tiles begin at multiples of 2 WIDE bytes.)
template <int D> __device__ __forceinline__ SharedAddress block_at(SharedAddress row, int row0, int column0) {
    constexpr int WIDE = SPAN<D> * 8;
    return (row ^ SharedAddress(column0 % WIDE * 2)) + SharedAddress((row0 * D + column0 / WIDE * WIDE) * 2);
}
// A: rows of the tile are rows of A.
template <int D> __device__ __forceinline__ void load_a(uint32_t (&a)[4], SharedAddress lane_row, int row0, int k0) {
    ldmatrix_x4(a, block_at<D>(lane_row, row0, k0));
}
// B, rows of the tile are columns of B (Q K^T: a row is a key): b[0..1] for columns n0.., b[2..3] for columns n0 + 8...
template <int D> __device__ __forceinline__ void load_b(uint32_t (&b)[4], SharedAddress lane_row_b, int n0, int k0) {
    ldmatrix_x4(b, block_at<D>(lane_row_b, n0, k0));
}
// The same where rows of the tile are rows of B (P V: a row is a key, summed over).
template <int D> __device__ __forceinline__ void load_b_trans(uint32_t (&b)[4], SharedAddress lane_row, int k0, int n0) {
    ldmatrix_x4_trans(b, block_at<D>(lane_row, k0, n0));
}

// c[m], c of M vertical tiles and 2 neighbouring horizontal ones, += a[m] b
template <int M, int N>
__device__ __forceinline__ void multiply(float (&c)[M][N][4], int n, const uint32_t (&a)[M][4],
                                         const uint32_t (&b)[4]) {
    each<M>([&](int m) {
        mma_bf16_16816(c[m][n], a[m], b[0], b[1]);
        mma_bf16_16816(c[m][n + 1], a[m], b[2], b[3]);
    });
}

// c (16 M x 8 N) += A B^T over D columns: A rows of one tile (lane_row), B rows of another (lane_row_b).
template <int D, int M, int N>
__device__ __forceinline__ void score_product(float (&c)[M][N][4], SharedAddress a_row, SharedAddress b_row) {
    each<D / 16>([&](int d) {
        uint32_t a[M][4];
        each<M>([&](int m) { load_a<D>(a[m], a_row, m * 16, d * 16); });
        each<N / 2>([&](int n) {
            uint32_t b[4];
            load_b<D>(b, b_row, n * 16, d * 16);
            multiply(c, 2 * n, a, b);
        });
    });
}

// sum (16 M x D) += C (16 M x 8 N, rounded to bf16) B, B = rows of a tile (lane_row). A step takes two columns of C's tiles as its A.
template <int D, int M, int N>
__device__ __forceinline__ void accumulate_rows(float (&sum)[M][D / 8][4], const float (&c)[M][N][4], SharedAddress b_row) {
    each<N / 2>([&](int k) {
        uint32_t a[M][4];
        each<M, 4>([&](int m, int i) { a[m][i] = pack_bf16(c[m][2 * k + i / 2][i % 2 * 2], c[m][2 * k + i / 2][i % 2 * 2 + 1]); });
        each<D / 16>([&](int n) {
            uint32_t b[4];
            load_b_trans<D>(b, b_row, k * 16, n * 16);
            multiply(sum, 2 * n, a, b);
        });
    });
}

// ---- what happens to a tile of scores between two products. Rows: what its rows are, the other side's are its columns.
enum class Rows { queries, keys };
// The distance query - key of element [m][n][i], less that of element [0][0][0] of the same lane.
template <Rows ROWS> __device__ __forceinline__ constexpr int distance_of(int m, int n, int i) {
    return ROWS == Rows::queries ? ROW(m, i) - COLUMN(n, i) : COLUMN(n, i) - ROW(m, i);
}
// score = scale score + factor term, by distance; `term` points at that of the lane's first element
template <Rows ROWS, int M, int N>
__device__ __forceinline__ void add_bias(float (&score)[M][N][4], float scale, const float* term, float factor = 1.0f) {
    each<M, N, 4>([&](int m, int n, int i) { score[m][n][i] = score[m][n][i] * scale + factor * term[distance_of<ROWS>(m, n, i)]; });
}
// Keys after the query get no weight. `distance`: of the lane's first element
template <Rows ROWS, int M, int N> __device__ __forceinline__ void mask_diagonal(float (&score)[M][N][4], int distance) {
    each<M, N, 4>([&](int m, int n, int i) { if (distance + distance_of<ROWS>(m, n, i) < 0) score[m][n][i] = -INFINITY; });
}

// Rows row0 + r of C rotated back by R_{-t} [rope.h]: element i with i + D / 2, which lie in the same lane, D / 16 tiles apart; `table` is
// rope.h's, its row t = row0 + r. A lane reads cos and sin of two neighbouring elements at once. Null: nothing happens.
template <int D, int M>
__device__ __forceinline__ void rotate_rows_back(float (&c)[M][D / 8][4], const float* table, int row0, int T,
                                                 int lane) {
    if (!table) return;
    each<M, 2>([&](int m, int half) {
        const int row = row0 + m * 16 + half * 8 + lane / 4;
        if (row >= T) return;
        const float* angles = table + size_t(row) * D + lane % 4 * 4;
        each<D / 16>([&](int n) {
            const float4 angle = *reinterpret_cast<const float4*>(angles + n * 16);          // cos, sin, cos, sin
            each<2>([&](int i) {
                float &x = c[m][n][2 * half + i], &y = c[m][n + D / 16][2 * half + i];
                const float cosine = i ? angle.z : angle.x, sine = i ? angle.w : angle.y, first = x * cosine + y * sine;
                y = y * cosine - x * sine;
                x = first;
            });
        });
    });
}

// A warp's 16 M finished rows to global memory, through its own part of shared memory so that stores are 16 bytes wide.
// `stage` (16 M rows of D) must belong to this warp alone by now; rows row0 + r >= T are left out.
template <int D, int M> __device__ __forceinline__ void store_rows(bf16* matrix, int row0, int T, size_t stride, bf16* stage,
                                                                   const float (&c)[M][D / 8][4], int lane) {
    const int g = lane / 4, t = lane % 4;
    __syncwarp();
    each<M, D / 8, 2>([&](int m, int n, int half) {
        *reinterpret_cast<uint32_t*>(stage + swizzle<D>(m * 16 + half * 8 + g, n) + 2 * t) =
            pack_bf16(c[m][n][2 * half], c[m][n][2 * half + 1]);
    });
    __syncwarp();
    for (int i = lane; i < M * 16 * (D / 8); i += 32) {
        int r = i / (D / 8), chunk = i % (D / 8);
        if (row0 + r < T)
            store16(matrix + size_t(row0 + r) * stride + chunk * 8, load16<uint4>(stage + swizzle<D>(r, chunk)));
    }
}
