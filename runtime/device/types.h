// Number types. PRECISION is chosen by the Makefile (-DPRECISION_fp32 | _fp64 | _bf16).
//   floatX: storage of activations and of the weights that kernels read
//   floatM: "master": gradients, optimizer state, saved statistics, losses; never narrower than fp32
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(PRECISION_fp64)          // gradient checks by finite differences, CPU only
using floatX = double;
using floatM = double;
inline constexpr const char* PRECISION_NAME = "fp64";
#elif defined(PRECISION_bf16)        // GPUs, their emulation, CPUs with bf16 products
#include "runtime/device/bf16.h"
using floatX = bf16;
using floatM = float;
inline constexpr const char* PRECISION_NAME = "bf16";
#else
using floatX = float;
using floatM = float;
inline constexpr const char* PRECISION_NAME = "fp32";
#endif

// to = x, rounded to the type of storage. `to = floatX(x)` does the same, but in bf16 it makes a temporary, of which g++ makes
// an array in loops marked `omp simd`, and then vectorises nothing: GELU took six times as long (docs/LOG.md, 2026-11-27).
inline void store(floatX& to, floatM x) {
#if defined(PRECISION_bf16)
    to.bits = float_to_bf16_bits(x);
#else
    to = x;
#endif
}

inline constexpr size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
inline constexpr size_t round_up(size_t a, size_t b) { return ceil_div(a, b) * b; }
