// The matrix product of the CPU backend: a library where there is one, else our own blocked product. See gemm.h.
#include "layers/gemm.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "layers/gemm_tile.h"
#include "runtime/run/error.h"

#if defined(BLAS_ONEDNN)
#include <dnnl.h>
#include <dnnl_version.h>
#elif defined(BLAS_OPENBLAS)
#include <cblas.h>
extern "C" void openblas_set_num_threads(int);
extern "C" char* openblas_get_config();
#endif

// Blocks of A (BLOCK_M x BLOCK_K) and B (BLOCK_K x BLOCK_N) are copied into contiguous memory that fits the L2 cache, B in
// panels as wide as the register tile, so that the inner loop reads both in order; edges are padded by zeros.
template <class T>
void gemm_plain(bool transpose_a, bool transpose_b, int m, int n, int k, const T* a, size_t lda, const T* b, size_t ldb,
                bool accumulate, T* c, size_t ldc) {
    constexpr int BLOCK_M = 10 * TILE_ROWS, BLOCK_K = 256, BLOCK_N = 1024, PANEL = 2 * LANES<T>;
    thread_local std::vector<T> packed_a, packed_b;
    packed_a.resize(size_t(BLOCK_M) * BLOCK_K);
    packed_b.resize(size_t(BLOCK_K) * BLOCK_N);
    if (k == 0 && !accumulate) for (int i = 0; i < m; i++) std::fill(c + i * ldc, c + i * ldc + n, T(0));
    for (int j0 = 0; j0 < n; j0 += BLOCK_N)
        for (int k0 = 0; k0 < k; k0 += BLOCK_K) {
            int nb = std::min(BLOCK_N, n - j0), kb = std::min(BLOCK_K, k - k0);
            for (int p = 0; p < nb; p += PANEL) {
                int width = std::min(PANEL, nb - p);
                T* panel = packed_b.data() + size_t(p) * kb;
                for (int kk = 0; kk < kb; kk++) {
                    for (int j = 0; j < width; j++)
                        panel[kk * PANEL + j] = transpose_b ? b[size_t(j0 + p + j) * ldb + k0 + kk] : b[size_t(k0 + kk) * ldb + j0 + p + j];
                    for (int j = width; j < PANEL; j++) panel[kk * PANEL + j] = T(0);
                }
            }
            for (int i0 = 0; i0 < m; i0 += BLOCK_M) {
                int mb = std::min(BLOCK_M, m - i0);
                for (int i = 0; i < mb; i++)
                    for (int kk = 0; kk < kb; kk++)
                        packed_a[i * BLOCK_K + kk] = transpose_a ? a[size_t(k0 + kk) * lda + i0 + i] : a[size_t(i0 + i) * lda + k0 + kk];
                for (int p = 0; p < nb; p += PANEL) {
                    T* out = c + size_t(i0) * ldc + j0 + p;
                    const T* panel = packed_b.data() + size_t(p) * kb;
                    TileA<T> block{packed_a.data(), BLOCK_K, 1};
                    bool add = accumulate || k0 > 0;
                    if (nb - p >= PANEL) {
                        if (add) tile_product<true>(out, ldc, block, panel, PANEL, mb, PANEL, kb);
                        else tile_product<false>(out, ldc, block, panel, PANEL, mb, PANEL, kb);
                    } else {                                  // the last columns go through a full-width copy
                        T edge[BLOCK_M * PANEL];
                        tile_product<false>(edge, PANEL, block, panel, PANEL, mb, PANEL, kb);
                        for (int i = 0; i < mb; i++)
                            for (int j = 0; j < nb - p; j++) out[i * ldc + j] = (add ? out[i * ldc + j] : T(0)) + edge[i * PANEL + j];
                    }
                }
            }
        }
}
template void gemm_plain<float>(bool, bool, int, int, int, const float*, size_t, const float*, size_t, bool, float*, size_t);
template void gemm_plain<double>(bool, bool, int, int, int, const double*, size_t, const double*, size_t, bool, double*, size_t);

void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a, size_t lda, const float* b, size_t ldb,
          bool accumulate, float* c, size_t ldc) {
#if defined(BLAS_ONEDNN)
    // Inside our OpenMP region oneDNN notices and stays on this thread. A product of one piece is called outside any region:
    // there oneDNN would divide it among the threads, with other bits for another number of them (seen at C = 32, 128 tokens).
    const int threads = omp_in_parallel() ? 1 : omp_get_max_threads();
    if (threads > 1) omp_set_num_threads(1);
    dnnl_status_t status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a, dnnl_dim_t(lda), b,
                                      dnnl_dim_t(ldb), accumulate ? 1.0f : 0.0f, c, dnnl_dim_t(ldc));
    if (threads > 1) omp_set_num_threads(threads);
    if (status != dnnl_success) { fprintf(stderr, "error: dnnl_sgemm(m %d, n %d, k %d) returned %d\n", m, n, k, int(status)); abort(); }
#elif defined(BLAS_OPENBLAS)
    static const bool serial = (openblas_set_num_threads(1), true);
    (void)serial;
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans, m, n, k, 1.0f, a,
                int(lda), b, int(ldb), accumulate ? 1.0f : 0.0f, c, int(ldc));
#else
    gemm_plain(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, accumulate, c, ldc);
#endif
}

void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const double* a, size_t lda, const double* b, size_t ldb,
          bool accumulate, double* c, size_t ldc) {
    gemm_plain(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, accumulate, c, ldc);
}

const char* gemm_library() {
#if defined(BLAS_ONEDNN)
    static const std::string name = format("oneDNN %d.%d.%d", dnnl_version()->major, dnnl_version()->minor, dnnl_version()->patch);
    return name.c_str();
#elif defined(BLAS_OPENBLAS)
    return openblas_get_config();
#else
    return "plain";
#endif
}
