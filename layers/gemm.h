// The one matrix product behind `linear` on the CPU: C = A B (+ C), row-major, serial, with cblas's arguments minus alpha.
// `linear` splits the work over threads; the split depends on shapes only, so results do not depend on the thread count.
// Which library does it is the Makefile's choice (BLAS=onednn|openblas|none); double precision always takes our own product.
#pragma once
#include <cstddef>

#include "runtime/device/bf16.h"

// C (m, n) = op(A) (m, k) op(B) (k, n), or += when accumulate. op transposes when its flag is set; ld* are row strides as stored.
void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a, size_t lda, const float* b, size_t ldb,
          bool accumulate, float* c, size_t ldc);
void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const double* a, size_t lda, const double* b, size_t ldb,
          bool accumulate, double* c, size_t ldc);
// bf16 operands, sums in fp32. C is fp32 (gradients), or bf16: then product, C if accumulate, and bias (n; null: none)
// are added first and rounded once. gemm_bf16.cpp
void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const bf16* a, size_t lda, const bf16* b, size_t ldb,
          bool accumulate, float* c, size_t ldc);
void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const bf16* a, size_t lda, const bf16* b, size_t ldb,
          bool accumulate, bf16* c, size_t ldc, const bf16* bias = nullptr);
// oneDNN's matmul primitive, which does the products above on processors that multiply bf16. Returns false, leaving C
// untouched, if this machine does not support the type. It exists in float too, so that tests can try its strides anywhere.
template <class T, class C>
bool gemm_onednn(bool transpose_a, bool transpose_b, int m, int n, int k, const T* a, size_t lda, const T* b, size_t ldb,
                 bool accumulate, C* c, size_t ldc, const T* bias = nullptr);
bool has_bf16_products();        // AVX512_BF16 (AMX machines have it too) and oneDNN; else bf16 is converted and multiplied in fp32
// Our own product, in every build: the fallback, and a second opinion for the tests.
template <class T>
void gemm_plain(bool transpose_a, bool transpose_b, int m, int n, int k, const T* a, size_t lda, const T* b, size_t ldb,
                bool accumulate, T* c, size_t ldc);
const char* gemm_library();      // "oneDNN 2.6", "OpenBLAS 0.3.21", "plain"
