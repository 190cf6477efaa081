// Elementwise mathematics of the CPU backend, written without branches so that g++ vectorises the loops that call it.
// Each function has a float form (a few ulp) and a double form (libm) for gradient checks.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

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
