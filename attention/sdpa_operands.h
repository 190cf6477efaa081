// What sdpa.cpp multiplies, in the form that gemm_tile.h's products read. Usually numbers of type floatM. In bf16, on processors
// with AVX512_BF16, pairs of bf16 (Bf16Pair): two terms of a sum in one operand, twice as many a cycle, sums in fp32 as before. Then P and
// dS are rounded to bf16 before they are multiplied, as on tensor cores [Dao et al. 2022], and the scale is applied to the
// scores and to dS before it is rounded, since a scaled query would be rounded once more.
//   rows:    (rows, terms(n))    a row's numbers, as A of a product whose sum runs along the row
//   terms:   (terms(rows), n)    as B of a product whose sum runs over the rows, or as its A, transposed
// Of an odd number of terms the last pair ends in a zero.
#pragma once
#include <utility>

#include "layers/gemm_tile.h"
#include "runtime/device/bf16.h"
#include "runtime/device/types.h"

#if defined(PRECISION_bf16) && defined(__AVX512BF16__)
inline constexpr bool PAIRS = true;
using Operand = Bf16Pair;
#else
inline constexpr bool PAIRS = false;
using Operand = floatM;
#endif
static_assert(sizeof(Operand) == sizeof(floatM));            // they share memory
inline constexpr int PER_OPERAND = PAIRS ? 2 : 1;
inline size_t terms(size_t n) { return ceil_div(n, size_t(PER_OPERAND)); }

// What numbers are multiplied by when they become operands, and what results are multiplied by.
inline floatM before(floatM scale) { return PAIRS ? floatM(1) : scale; }
inline floatM after(floatM scale) { return PAIRS ? scale : floatM(1); }

template <class X> Bf16Pair pair(X first, X second) {
    static_assert(!PAIRS || sizeof(X) == 2);                 // (in other builds it is compiled, too, but not called)
    return bf16(first).bits | uint32_t(bf16(second).bits) << 16;
}

// rows: `rows` rows of d numbers, times before(scale).
inline void load_rows(Operand* out, const floatX* in, size_t row_stride, int rows, int d, floatM scale) {
    for (int t = 0; t < rows; t++) {
        const floatX* from = in + t * row_stride;
        Operand* to = out + size_t(t) * terms(size_t(d));
        if constexpr (PAIRS) {
            for (int c = 0; c < d / 2; c++) to[c] = pair(from[2 * c], from[2 * c + 1]);
            if (d % 2) to[d / 2] = pair(from[d - 1], floatX(0));
        } else {
#pragma omp simd
            for (int c = 0; c < d; c++) to[c] = floatM(from[c]) * scale;
        }
    }
}
// terms: the same numbers.
inline void load_terms(Operand* out, const floatX* in, size_t row_stride, int rows, int d, floatM scale) {
    if constexpr (PAIRS) {
        for (int t = 0; t < rows; t += 2) {
            const floatX *first = in + t * row_stride, *second = first + row_stride;
            Operand* to = out + size_t(t / 2) * d;
            if (t + 1 < rows)
                for (int c = 0; c < d; c++) to[c] = pair(first[c], second[c]);
            else
                for (int c = 0; c < d; c++) to[c] = pair(first[c], floatX(0));
        }
    } else {
        load_rows(out, in, row_stride, rows, d, scale);
    }
}
// out (N, N), stride ld_out, = the transpose of in (N, N), stride ld_in, N = LANES<T>, in registers. Stage S exchanges, in each
// pair of rows S apart, the second's lanes without bit S for the first's with it; after all stages row and lane have changed places.
#if defined(__GNUC__) && !defined(__clang__)
inline constexpr bool SHUFFLES = true;
template <class T, int S, int... LANE> inline void exchange(Vector<T>* r, std::integer_sequence<int, LANE...> lanes) {
    constexpr int N = LANES<T>;
    if constexpr (S < N) {
        using Index = Vector<std::conditional_t<sizeof(T) == 8, int64_t, int32_t>>;
        constexpr Index first{(LANE & S ? N + LANE - S : LANE)...}, second{(LANE & S ? N + LANE : LANE + S)...};
#pragma GCC unroll 16
        for (int i = 0; i < N; i++)
            if (!(i & S)) {
                const Vector<T> a = r[i], b = r[i + S];
                r[i] = __builtin_shuffle(a, b, first);
                r[i + S] = __builtin_shuffle(a, b, second);
            }
        exchange<T, 2 * S>(r, lanes);
    }
}
template <class T> inline void transpose_block(T* out, size_t ld_out, const void* in, size_t ld_in) {
    constexpr int N = LANES<T>;
    Vector<T> r[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) r[i] = *reinterpret_cast<const Vector<T>*>(static_cast<const T*>(in) + i * ld_in);
    exchange<T, 1>(r, std::make_integer_sequence<int, N>());
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) *reinterpret_cast<Vector<T>*>(out + i * ld_out) = r[i];
}
#else
inline constexpr bool SHUFFLES = false;
template <class T> inline void transpose_block(T*, size_t, const void*, size_t) {}
#endif

// terms of the transpose (d, T): out (terms(d), ld), columns [begin, end), zero beyond T; begin and end are multiples of LANES.
inline void load_transposed(Operand* out, const floatX* in, size_t row_stride, int T, int d, int ld, int begin, int end) {
    constexpr int N = LANES<Operand>;
    constexpr bool whole = SHUFFLES && (PAIRS || sizeof(floatX) == sizeof(Operand));     // a row's numbers are operands as they lie
    const int width = int(terms(size_t(d))), blocks = whole && (!PAIRS || (d % 2 == 0 && row_stride % 2 == 0)) ? width / N : 0;
    for (int t0 = begin; t0 < end; t0 += N) {
        int c0 = 0;
        for (; t0 + N <= T && c0 < blocks * N; c0 += N)
            transpose_block(out + size_t(c0) * ld + t0, size_t(ld), in + t0 * row_stride + c0 * PER_OPERAND, row_stride / PER_OPERAND);
        for (; c0 < width; c0++)
            for (int t = t0; t < t0 + N; t++) {
                Operand& to = out[size_t(c0) * ld + t];
                const floatX* from = in + t * row_stride + c0 * PER_OPERAND;
                if (t >= T) to = Operand(0);
                else if constexpr (PAIRS) to = pair(from[0], 2 * c0 + 1 < d ? from[1] : floatX(0));
                else to = floatM(*from);
            }
    }
}

// Scores x (rows, n), stride ld, times `scale`, as operands in either form; where operands are floatM, x itself. `room`: (PANEL, ld / 2).
// Rows are converted in whole vectors: ld is a multiple of LANES.
#if defined(PRECISION_bf16) && defined(__AVX512BF16__)
using Halves = uint16_t __attribute__((vector_size(32), aligned(2), may_alias));     // 16 bf16
inline Halves rounded(const float* x, float scale) {
    return (Halves)_mm512_cvtneps_pbh(__m512(*reinterpret_cast<const Vector<float>*>(x) * scale));
}
inline const Operand* as_rows(Operand* room, const floatM* x, int ld, int rows, int n, floatM scale) {
    for (int r = 0; r < rows; r++) {
        Operand* to = room + size_t(r) * (ld / 2);
        for (int j = 0; j < n; j += 16) *reinterpret_cast<Halves*>(to + j / 2) = rounded(x + size_t(r) * ld + j, scale);
        if (n % 2) to[n / 2] &= 0xffffu;
    }
    return room;
}
inline const Operand* as_terms(Operand* room, const floatM* x, int ld, int rows, int n, floatM scale) {
    using Pairs = Vector<Bf16Pair>;
    for (int r = 0; r < rows; r += 2) {
        const floatM* first = x + size_t(r) * ld;
        const bool two = r + 1 < rows;
        for (int j = 0; j < n; j += 16) {
            const Halves low = rounded(first + j, scale), high = two ? rounded(first + ld + j, scale) : Halves{};
            *reinterpret_cast<Pairs*>(room + size_t(r / 2) * ld + j) =
                __builtin_convertvector(low, Pairs) | __builtin_convertvector(high, Pairs) << 16;
        }
    }
    return room;
}
#else
inline const Operand* as_rows(Operand*, const floatM* x, int, int, int, floatM) { return x; }
inline const Operand* as_terms(Operand*, const floatM* x, int, int, int, floatM) { return x; }
#endif
