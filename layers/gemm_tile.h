// A small matrix product in registers: C (+)= A B, on operands that are already in cache.
// Used by attention (sdpa.cpp) on its tiles, and, packed block by block, as the plain product of builds without a BLAS
// (gemm.cpp). Idea: an MR x (NV vectors) block of C stays in registers while k runs; each step loads NV vectors of B and
// broadcasts MR elements of A [Goto & van de Geijn 2008]. Every element of C is one chain of fused multiply-adds in the
// order of k, so the result does not depend on how C is cut into blocks.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512BF16__)
#include <immintrin.h>

#include "runtime/device/bf16.h"
#endif

#if defined(__AVX512F__)
inline constexpr int VECTOR_BYTES = 64, TILE_ROWS = 12;      // 24 accumulators + 2 of B + 1 of A of 32 registers
#elif defined(__AVX__)
inline constexpr int VECTOR_BYTES = 32, TILE_ROWS = 6;       // 12 + 2 + 1 of 16 registers
#else
inline constexpr int VECTOR_BYTES = 16, TILE_ROWS = 6;
#endif

template <class T> struct VectorOf { typedef T type __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias)); };
template <class T> using Vector = typename VectorOf<T>::type;
template <class T> inline constexpr int LANES = VECTOR_BYTES / int(sizeof(T));

// Two bf16 numbers that follow one another in a sum, the first in the lower half: an operand of products with fp32 results.
using Bf16Pair = uint32_t;

// acc + x b for a vector; for a pair of terms, acc + x_0 b_0 + x_1 b_1.
template <class T> inline Vector<T> multiply_add(Vector<T> acc, T x, Vector<T> b) { return acc + x * b; }
template <class T> inline T multiply_add_one(T acc, T x, T b) { return acc + x * b; }
#if defined(__AVX512BF16__)
inline Vector<float> multiply_add(Vector<float> acc, Bf16Pair x, Vector<Bf16Pair> b) {
    return Vector<float>(_mm512_dpbf16_ps(__m512(acc), (__m512bh)_mm512_set1_epi32(int(x)), (__m512bh)b));
}
inline float multiply_add_one(float acc, Bf16Pair x, Bf16Pair b) {
    auto first = [](Bf16Pair p) { return bf16_bits_to_float(uint16_t(p)); };
    auto second = [](Bf16Pair p) { return bf16_bits_to_float(uint16_t(p >> 16)); };
    return acc + first(x) * first(b) + second(x) * second(b);
}
#endif

// Where A is: element (i, k) at p[i * i_stride + k * k_stride]. Row-major: {p, ld, 1}; transposed: {p, 1, ld}.
template <class T> struct TileA { const T* p; size_t i_stride, k_stride; };

template <int MR, int NV, bool ADD, class T, class X>
inline void tile_kernel(T* c, size_t ldc, TileA<X> a, const X* b, size_t ldb, int k) {
    Vector<T> acc[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
        for (int v = 0; v < NV; v++) acc[i][v] = Vector<T>{};
    for (int kk = 0; kk < k; kk++) {
        Vector<X> bv[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; v++) bv[v] = *reinterpret_cast<const Vector<X>*>(b + kk * ldb + v * LANES<X>);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            X x = a.p[i * a.i_stride + kk * a.k_stride];
#pragma GCC unroll 2
            for (int v = 0; v < NV; v++) acc[i][v] = multiply_add(acc[i][v], x, bv[v]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
        for (int v = 0; v < NV; v++) {
            auto* out = reinterpret_cast<Vector<T>*>(c + i * ldc + v * LANES<T>);
            *out = ADD ? *out + acc[i][v] : acc[i][v];
        }
}

// One row, one vector. In a loop with a single chain of multiply-adds, g++ tuning for AMD prefers a multiplication and
// an addition (avoid-fma-max-bits), which rounds twice: the last row would get other bits than the same row in a taller
// tile. So the fused operation is written out.
template <class T, bool ADD> inline void tile_row(T* c, const T* a, size_t k_stride, const T* b, size_t ldb, int k) {
    T acc[LANES<T>] = {};
    for (int kk = 0; kk < k; kk++) {
        T x = a[kk * k_stride];
#pragma GCC unroll 16
        for (int l = 0; l < LANES<T>; l++)
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
            acc[l] = std::fma(x, b[kk * ldb + l], acc[l]);
#else
            acc[l] += x * b[kk * ldb + l];
#endif
    }
    for (int l = 0; l < LANES<T>; l++) c[l] = ADD ? c[l] + acc[l] : acc[l];
}

template <int NV, bool ADD, class T, class X>
inline void tile_column(T* c, size_t ldc, TileA<X> a, const X* b, size_t ldb, int m, int k) {
    int i = 0;
    auto at = [&](int row) { return TileA<X>{a.p + row * a.i_stride, a.i_stride, a.k_stride}; };
    for (; i + TILE_ROWS <= m; i += TILE_ROWS) tile_kernel<TILE_ROWS, NV, ADD>(c + i * ldc, ldc, at(i), b, ldb, k);
    for (; i + 4 <= m; i += 4) tile_kernel<4, NV, ADD>(c + i * ldc, ldc, at(i), b, ldb, k);
    for (; i < m; i++) {
        if constexpr (NV == 1 && std::is_same_v<T, X>) tile_row<T, ADD>(c + i * ldc, a.p + i * a.i_stride, a.k_stride, b, ldb, k);
        else tile_kernel<1, NV, ADD>(c + i * ldc, ldc, at(i), b, ldb, k);
    }
}

// C (m, n) = A B, or += when ADD. b: (k, n) row-major with stride ldb. Of pairs, k is the number of pairs.
template <bool ADD, class T, class X> inline void tile_product(T* c, size_t ldc, TileA<X> a, const X* b, size_t ldb, int m, int n, int k) {
    static_assert(sizeof(T) == sizeof(X));
    constexpr int W = LANES<T>;
    int j = 0;
    for (; j + 2 * W <= n; j += 2 * W) tile_column<2, ADD>(c + j, ldc, a, b + j, ldb, m, k);
    for (; j + W <= n; j += W) tile_column<1, ADD>(c + j, ldc, a, b + j, ldb, m, k);
    if (j == n) return;
    for (int i = 0; i < m; i++) {                             // the last n % W columns, for awkward sizes
        T acc[W] = {};
        for (int kk = 0; kk < k; kk++) {
            X x = a.p[i * a.i_stride + kk * a.k_stride];
            for (int jj = j; jj < n; jj++) acc[jj - j] = multiply_add_one(acc[jj - j], x, b[kk * ldb + jj]);
        }
        for (int jj = j; jj < n; jj++) c[i * ldc + jj] = ADD ? c[i * ldc + jj] + acc[jj - j] : acc[jj - j];
    }
}
