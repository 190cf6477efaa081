// GELU, tanh form [Hendrycks & Gimpel 2016, eq. 3], on the device. Since (1 + tanh u) / 2 = sigmoid(2u):
//   y = x s,  s = 1 / (1 + exp(-2u)),  2u = 2 sqrt(2/pi) (x + 0.044715 x^3)          dy/dx = s + x s (1 - s) (2u)'
#pragma once
#include "layers/cuda_common.cuh"

// exp(-2u), kept finite: beyond e^80 the sigmoid is 0 in float anyway
__device__ __forceinline__ float gelu_exponential(float x) {
    return expf(fminf(-1.5957691216057308f * x * (1.0f + 0.044715f * x * x), 80.0f));
}

__device__ __forceinline__ float gelu(float x) { return x / (1.0f + gelu_exponential(x)); }
__device__ __forceinline__ float gelu_derivative(float x) {
    float e = gelu_exponential(x), s = 1.0f / (1.0f + e);
    return s + x * s * (e * s) * 1.5957691216057308f * (1.0f + 0.134145f * x * x);       // e s = 1 - s without the cancellation
}
