// The two small products of decoding on the CPU, for a few rows of A at a time:
//   dot_rows       c[i][j] = sum_k a[i][k] b[j][k]     B row by row: weights (out, in), cached keys
//   mix_rows       c[i][j] = sum_k a[i][k] b[k][j]     B row by row: absorbed weights, cached values
// A row of C does not depend on how many rows there are or how the work was cut: in dot_rows every element has one vector
// accumulator (lane l sums k = l, l + W, ...), whose lanes are then added in a fixed tree; in mix_rows every
// element is one chain in the order of k. So a sequence's numbers are the same alone and in a batch, in a chunk and token by token.
// Sums are floatM's (float for bf16). B is read once, in order: the bound is memory, until about 30 rows share the read.
#pragma once
#if defined(__AVX__)
#include <immintrin.h>
#endif

#include <cmath>
#include <cstring>
#include <type_traits>

#include "layers/gemm_tile.h"
#include "runtime/device/types.h"

namespace decoding {
typedef floatM Lanes __attribute__((vector_size(VECTOR_BYTES)));
inline constexpr int W = VECTOR_BYTES / int(sizeof(floatM));

// W elements as floatM, from any address.
template <class T> inline Lanes load(const T* p) {
    if constexpr (std::is_same_v<T, floatM>) {
        Lanes v;
        memcpy(&v, p, sizeof v);
        return v;
    } else {                                                 // bf16 is the upper half of a float
        typedef uint16_t Halves __attribute__((vector_size(W * 2)));
        typedef uint32_t Words __attribute__((vector_size(W * 4)));
        Halves h;
        memcpy(&h, p, sizeof h);
        return Lanes(__builtin_convertvector(h, Words) << 16);
    }
}
inline Lanes broadcast(floatM x) { return x - Lanes{}; }    // x - 0 is x, whatever its sign
// The first n < W elements, the rest 0: the end of a row takes the same steps as its middle.
template <class T> inline Lanes load_first(const T* p, int n) {
    T padded[W] = {};
    memcpy(padded, p, size_t(n) * sizeof(T));
    return load(padded);
}
// a b + c, written out: the compiler fuses the two in some loops and not in others (for Zen it breaks up chains of fused
// multiply-adds), and the same element would then differ from tile to tile.
inline Lanes fused(Lanes a, Lanes b, Lanes c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(floatM) == 8) return Lanes(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c)));
    else return Lanes(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
#elif defined(__FMA__)
    if constexpr (sizeof(floatM) == 8) return Lanes(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c)));
    else return Lanes(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
#elif defined(__x86_64__)
    return a * b + c;                                        // this processor has no fused multiply-add
#else
    for (int l = 0; l < W; l++) c[l] = std::fma(a[l], b[l], c[l]);
    return c;
#endif
}
inline floatM add_lanes(Lanes v) {
    for (int half = W / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) v[l] += v[l + half];
    return v[0];
}

// c (M, N) at row stride ldc.
template <int M, int N, class A, class B>
inline void dot_tile(floatM* c, size_t ldc, const A* a, size_t lda, const B* b, size_t ldb, int k, bool add) {
    Lanes sum[M][N] = {};
    auto step = [&](auto load_at) {
        Lanes av[M];
#pragma GCC unroll 4
        for (int i = 0; i < M; i++) av[i] = load_at(a + i * lda);
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) {
            Lanes bv = load_at(b + j * ldb);
#pragma GCC unroll 4
            for (int i = 0; i < M; i++) sum[i][j] = fused(av[i], bv, sum[i][j]);
        }
    };
    int kk = 0;
    for (; kk + W <= k; kk += W) step([&](auto* p) { return load(p + kk); });
    if (kk < k) step([&](auto* p) { return load_first(p + kk, k - kk); });
#pragma GCC unroll 4
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) {
            floatM total = add_lanes(sum[i][j]);
            c[i * ldc + j] = add ? c[i * ldc + j] + total : total;
        }
}

// c (m, n) = A B^T, or += when add.
template <class A, class B>
inline void dot_rows(floatM* c, size_t ldc, const A* a, size_t lda, const B* b, size_t ldb, int m, int n, int k, bool add = false) {
    constexpr int N = VECTOR_BYTES == 64 ? 4 : 2;            // 4 x 4 sums in 32 registers, 4 x 2 in 16
    int j = 0;
    for (; j + 8 <= n && m < 4; j += 8)
        for (int i = 0; i < m; i++) dot_tile<1, 8>(c + i * ldc + j, ldc, a + i * lda, lda, b + j * ldb, ldb, k, add);
    for (; j + N <= n; j += N) {
        int i = 0;
        for (; i + 4 <= m; i += 4) dot_tile<4, N>(c + i * ldc + j, ldc, a + i * lda, lda, b + j * ldb, ldb, k, add);
        for (; i < m; i++) dot_tile<1, N>(c + i * ldc + j, ldc, a + i * lda, lda, b + j * ldb, ldb, k, add);
    }
    for (; j < n; j++)
        for (int i = 0; i < m; i++) dot_tile<1, 1>(c + i * ldc + j, ldc, a + i * lda, lda, b + j * ldb, ldb, k, add);
}

// Columns 0 .. N W - 1 of c (M, ..); with N = 1 the first `columns` only.
template <int M, int N, class A, class B>
inline void mix_tile(floatM* c, size_t ldc, const A* a, size_t lda, const B* b, size_t ldb, int k, int columns = W) {
    Lanes sum[M][N] = {};
    for (int kk = 0; kk < k; kk++)
#pragma GCC unroll 4
        for (int v = 0; v < N; v++) {
            Lanes bv = columns == W ? load(b + kk * ldb + v * W) : load_first(b + kk * ldb, columns);
#pragma GCC unroll 4
            for (int i = 0; i < M; i++) sum[i][v] = fused(broadcast(floatM(a[i * lda + kk])), bv, sum[i][v]);
        }
#pragma GCC unroll 4
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int v = 0; v < N; v++) memcpy(c + i * ldc + v * W, &sum[i][v], size_t(columns) * sizeof(floatM));
}

// c (m, n) = A B.
template <class A, class B>
inline void mix_rows(floatM* c, size_t ldc, const A* a, size_t lda, const B* b, size_t ldb, int m, int n, int k) {
    int j = 0;
    auto columns = [&]<int N>(int count) {
        int i = 0;
        for (; i + 4 <= m; i += 4) mix_tile<4, N>(c + i * ldc + j, ldc, a + i * lda, lda, b + j, ldb, k, count);
        for (; i < m; i++) mix_tile<1, N>(c + i * ldc + j, ldc, a + i * lda, lda, b + j, ldb, k, count);
        j += N * W;
    };
    while (j + 4 * W <= n) columns.template operator()<4>(W);
    while (j < n) columns.template operator()<1>(n - j < W ? n - j : W);
}
}  // namespace decoding
