// The one matrix product behind `linear` on the CPU: C = alpha-free A B (+ C), row-major, serial, cblas-shaped.
// `linear` splits the work over threads; the split depends on shapes only, so results do not depend on the thread count.
// Which library does it is the Makefile's choice (BLAS=onednn|openblas|none); double precision always takes our own product.
#pragma once
#include <cstddef>

// C (m, n) = op(A) (m, k) op(B) (k, n), or += when accumulate. op transposes when its flag is set; ld* are row strides as stored.
void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a, size_t lda, const float* b, size_t ldb,
          bool accumulate, float* c, size_t ldc);
void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const double* a, size_t lda, const double* b, size_t ldb,
          bool accumulate, double* c, size_t ldc);
// Our own product, always there: the fallback, and the test's second opinion.
template <class T>
void gemm_plain(bool transpose_a, bool transpose_b, int m, int n, int k, const T* a, size_t lda, const T* b, size_t ldb,
                bool accumulate, T* c, size_t ldc);
const char* gemm_library();      // "oneDNN 2.6", "OpenBLAS 0.3.21", "plain"
