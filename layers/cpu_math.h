// Elementwise mathematics of the CPU backend, written without branches so that g++ vectorises the loops that call it.
// Each function has a float form (a few ulp) and a double form (libm) for gradient checks.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "runtime/device/types.h"

// e^x = 2^n e^r with n = round(x log2 e), |r| <= ln2/2; Taylor to r^6 has relative error below 1.2e-7 there.
// Clamped to [-87.3, 88]: no denormals, no infinity. ln 2 is split in two so that r keeps all its bits [Cody & Waite 1980].
inline float fast_exp(float x) {
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f;      // 1.5 * 2^23: adding it rounds to an integer held in the low bits
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3F800000;                   // (n + 127) << 23: the low byte of `shifted` is n, the rest shifts out
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}
inline double fast_exp(double x) { return std::exp(x < -708.0 ? -708.0 : x > 709.0 ? 709.0 : x); }     // no infinity here either

// The sum of N numbers, N a power of two: the upper half is added to the lower until one is left.
template <int N, class T> inline T sum_lanes(const T* v) {
    if constexpr (N == 2) return v[0] + v[1];
    else {
        typedef T Half __attribute__((vector_size(N / 2 * sizeof(T))));
        Half low, high;
        memcpy(&low, v, sizeof(Half));
        memcpy(&high, v + N / 2, sizeof(Half));
        low += high;
        return sum_lanes<N / 2>(reinterpret_cast<const T*>(&low));
    }
}
// f(0) + .. + f(n - 1), n >= 0: sixteen running sums, then those in halves, so the order of additions depends on n alone, and not on the
// width of a register. (What `omp simd reduction` leaves to add is a chain of sixteen additions, as long as a row of 128 numbers.)
template <class F> inline auto sum_of(int n, F f) {
    constexpr int SUMS = 16;
    decltype(f(0)) sum[SUMS] = {};
    const int whole = n / SUMS * SUMS;
    for (int i = 0; i < whole; i += SUMS)
#pragma omp simd
        for (int l = 0; l < SUMS; l++) sum[l] += f(i + l);
    for (int i = whole; i < n; i++) sum[i - whole] += f(i);
    return sum_lanes<SUMS>(sum);
}

// out[i] = f(i) for i < n, rounded to the type of storage; f(i) may read out[i]. Processors with AVX512_BF16 round sixteen numbers by
// one instruction (a result or operand below 1.2e-38 becomes 0), which g++ does not find by itself: a quarter of GELU's time.
template <class F> inline void store_row(floatX* out, size_t n, F f) {
#if defined(PRECISION_bf16) && defined(__AVX512BF16__)
    constexpr size_t BLOCK = 256;                            // stays in L1
    alignas(64) float block[BLOCK];
    for (size_t begin = 0; begin < n; begin += BLOCK, out += BLOCK) {
        const size_t m = std::min(BLOCK, n - begin);
#pragma omp simd
        for (size_t i = 0; i < m; i++) block[i] = f(begin + i);
        size_t i = 0;
        for (; i + 16 <= m; i += 16) {
            const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_load_ps(block + i));
            memcpy(out + i, &rounded, sizeof(rounded));
        }
        for (; i < m; i++) store(out[i], block[i]);
    }
#else
#pragma omp simd
    for (size_t i = 0; i < n; i++) store(out[i], f(i));
#endif
}

// GELU, tanh form [Hendrycks & Gimpel 2016, eq. 3]: y = x/2 (1 + tanh u), u = sqrt(2/pi) (x + 0.044715 x^3).
// Since (1 + tanh u)/2 = sigmoid(2u): y = x s,  dy/dx = s + x s (1 - s) 2 u'.
template <class T> inline T gelu(T x) {
    T u2 = T(1.5957691216057308) * x * (T(1) + T(0.044715) * x * x);
    return x / (T(1) + fast_exp(-u2));
}
template <class T> inline T gelu_derivative(T x) {
    T xx = x * x;
    T u2 = T(1.5957691216057308) * x * (T(1) + T(0.044715) * xx);
    T e = fast_exp(-u2), s = T(1) / (T(1) + e);             // 1 - s = e s, without the cancellation
    return s + x * s * (e * s) * T(1.5957691216057308) * (T(1) + T(3 * 0.044715) * xx);
}
