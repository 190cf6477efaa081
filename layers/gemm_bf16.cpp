// Products of bf16 matrices with sums in fp32. See gemm.h. On processors that multiply bf16 (AVX512_BF16, AMX)
// oneDNN's matmul primitive does them, two to sixteen times as fast as fp32. On others the operands are converted
// block by block and multiplied in fp32: the same arithmetic, since a product of two bf16 numbers is exact in fp32, but
// no faster than fp32.
#include <algorithm>
#include <vector>

#include "layers/gemm.h"
#include "runtime/device/types.h"
#include "runtime/run/error.h"

#if defined(BLAS_ONEDNN)
#include <omp.h>

#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#endif

// ---------------------------------------------------------------------------------------------- oneDNN's primitive

#if defined(BLAS_ONEDNN)
namespace {
using dnnl::memory;

template <class T> constexpr memory::data_type TYPE = sizeof(T) == 2 ? memory::data_type::bf16 : memory::data_type::f32;
// transpose_a, transpose_b, accumulate, bias, C is bf16; m, n, k; the strides
using Shape = std::tuple<bool, bool, bool, bool, bool, int, int, int, size_t, size_t, size_t>;

struct Product {
    dnnl::matmul primitive;
    memory a, b, c, bias, scratch;
    std::vector<char> scratch_memory;
    bool possible = false;
};
struct Products {                                            // one per thread: oneDNN may not run a primitive on two threads at a time
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    std::map<Shape, Product> made;
};

// A row-major matrix (rows, columns) or its transpose.
memory::desc matrix(memory::data_type type, int rows, int columns, size_t ld, bool transposed) {
    const memory::dim step = memory::dim(ld);
    return {{rows, columns}, type, transposed ? memory::dims{1, step} : memory::dims{step, 1}};
}

template <class T, class C>
void make_product(Product& p, const dnnl::engine& engine, bool ta, bool tb, int m, int n, int k, size_t lda, size_t ldb,
                  bool accumulate, size_t ldc, bool bias) {
    const memory::desc a = matrix(TYPE<T>, m, k, lda, ta), b = matrix(TYPE<T>, k, n, ldb, tb), c = matrix(TYPE<C>, m, n, ldc, false);
    const memory::desc bias_row = bias ? memory::desc({1, n}, TYPE<T>, memory::format_tag::ab) : memory::desc();
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (accumulate) {
        dnnl::post_ops add;
        add.append_sum(1.0f);
        attributes.set_post_ops(add);
    }
    // Made for one thread, however many this one may start: we divide the work ourselves (linear.cpp).
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    try {
#if DNNL_VERSION_MAJOR >= 3
        const dnnl::matmul::primitive_desc how(engine, a, b, bias_row, c, attributes);
#else
        const dnnl::matmul::primitive_desc how(dnnl::matmul::desc(a, b, bias_row, c), attributes, engine);
#endif
        p.primitive = dnnl::matmul(how);
        p.a = memory(a, engine, nullptr);
        p.b = memory(b, engine, nullptr);
        p.c = memory(c, engine, nullptr);
        if (bias) p.bias = memory(bias_row, engine, nullptr);
        p.scratch_memory.resize(how.scratchpad_desc().get_size() + 64);
        char* aligned = p.scratch_memory.data() + (64 - reinterpret_cast<uintptr_t>(p.scratch_memory.data()) % 64);
        p.scratch = memory(how.scratchpad_desc(), engine, aligned);
        p.possible = true;
    } catch (const dnnl::error& e) {
        ensure(e.status == dnnl_unimplemented, "oneDNN: no matmul for m %d, n %d, k %d: %s", m, n, k, e.what());
    }
    omp_set_num_threads(threads);
}
}  // namespace

template <class T, class C>
bool gemm_onednn(bool transpose_a, bool transpose_b, int m, int n, int k, const T* a, size_t lda, const T* b, size_t ldb,
                 bool accumulate, C* c, size_t ldc, const T* bias) {
    if (m == 0 || n == 0 || k == 0) return false;
    thread_local Products products;
    if (products.made.size() > 2000) products.made.clear();  // decoding asks for a shape per length
    Product& p = products.made[{transpose_a, transpose_b, accumulate, bias != nullptr, sizeof(C) == 2, m, n, k, lda, ldb, ldc}];
    if (!p.possible) make_product<T, C>(p, products.engine, transpose_a, transpose_b, m, n, k, lda, ldb, accumulate, ldc, bias);
    if (!p.possible) return false;
    p.a.set_data_handle(const_cast<T*>(a));
    p.b.set_data_handle(const_cast<T*>(b));
    p.c.set_data_handle(c);
    if (bias) p.bias.set_data_handle(const_cast<T*>(bias));
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, p.a.get()}, {DNNL_ARG_WEIGHTS, p.b.get()}, {DNNL_ARG_DST, p.c.get()},
                                         {DNNL_ARG_SCRATCHPAD, p.scratch.get()}, {DNNL_ARG_BIAS, bias ? p.bias.get() : nullptr}};
    const dnnl_status_t status = dnnl_primitive_execute(p.primitive.get(), products.stream.get(), bias ? 5 : 4, arguments);
    ensure(status == dnnl_success, "oneDNN's matmul (m %d, n %d, k %d) returned %d", m, n, k, int(status));
    return true;
}
#else
template <class T, class C>
bool gemm_onednn(bool, bool, int, int, int, const T*, size_t, const T*, size_t, bool, C*, size_t, const T*) { return false; }
#endif
template bool gemm_onednn<float, float>(bool, bool, int, int, int, const float*, size_t, const float*, size_t, bool,
                                        float*, size_t, const float*);
template bool gemm_onednn<bf16, float>(bool, bool, int, int, int, const bf16*, size_t, const bf16*, size_t, bool,
                                       float*, size_t, const bf16*);
template bool gemm_onednn<bf16, bf16>(bool, bool, int, int, int, const bf16*, size_t, const bf16*, size_t, bool, bf16*,
                                      size_t, const bf16*);

bool has_bf16_products() {
#if defined(BLAS_ONEDNN) && defined(__x86_64__)
    static const bool has = __builtin_cpu_supports("avx512bf16");
    return has;
#else
    return false;
#endif
}

// ---------------------------------------------------------------------------------------------- the plain way

namespace {
// Grows and is kept; one for each use and thread.
float* room(std::vector<float>& memory, size_t n) {
    if (memory.size() < n) memory.resize(n);
    return memory.data();
}
void to_float(float* out, const bf16* in, size_t ld, int rows, int columns) {
    for (int r = 0; r < rows; r++)
#pragma omp simd
        for (int c = 0; c < columns; c++) out[size_t(r) * columns + c] = float(in[r * ld + c]);
}

// STEP of the k terms at a time, so that the converted operands stay in cache.
void gemm_converted(bool ta, bool tb, int m, int n, int k, const bf16* a, size_t lda, const bf16* b, size_t ldb,
                    bool accumulate, float* c, size_t ldc) {
    constexpr int STEP = 512;
    thread_local std::vector<float> memory_a, memory_b;
    float *wide_a = room(memory_a, size_t(m) * STEP), *wide_b = room(memory_b, size_t(n) * STEP);
    for (int k0 = 0; k0 < k || k0 == 0; k0 += STEP) {
        const int kb = std::min(STEP, k - k0);
        to_float(wide_a, ta ? a + k0 * lda : a + k0, lda, ta ? kb : m, ta ? m : kb);
        to_float(wide_b, tb ? b + k0 : b + k0 * ldb, ldb, tb ? n : kb, tb ? kb : n);
        gemm(ta, tb, m, n, kb, wide_a, size_t(ta ? m : kb), wide_b, size_t(tb ? kb : n), accumulate || k0 > 0, c, ldc);
    }
}
}  // namespace

void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const bf16* a, size_t lda, const bf16* b, size_t ldb,
          bool accumulate, float* c, size_t ldc) {
    if (has_bf16_products() && gemm_onednn(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, accumulate, c, ldc)) return;
    gemm_converted(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, accumulate, c, ldc);
}

void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const bf16* a, size_t lda, const bf16* b, size_t ldb,
          bool accumulate, bf16* c, size_t ldc, const bf16* bias) {
    if (has_bf16_products() && gemm_onednn(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, accumulate, c, ldc, bias)) return;
    thread_local std::vector<float> memory;
    float* wide = room(memory, size_t(m) * n);
    gemm_converted(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, false, wide, size_t(n));
    for (int i = 0; i < m; i++) {
        float* row = wide + size_t(i) * n;
        bf16* out = c + i * ldc;
        if (accumulate)
#pragma omp simd
            for (int j = 0; j < n; j++) row[j] += float(out[j]);
        if (bias)
#pragma omp simd
            for (int j = 0; j < n; j++) row[j] += float(bias[j]);
#pragma omp simd
        for (int j = 0; j < n; j++) out[j] = bf16(row[j]);
    }
}
