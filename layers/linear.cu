// Linear layers on the GPU: products by matmul.cuh (cuBLASLt, or our own kernel in the emulation), with bias and GELU in the
// product's epilogue where the library has it, else in one pass of the kernels below. See linear.h.
#include "layers/linear.h"

#include "layers/column_sums.cuh"
#include "layers/gelu.cuh"
#include "layers/linear_rows.h"
#include "layers/matmul.cuh"

namespace {
constexpr int BLOCK = 256;

// y += b, and gelu_out = GELU(y) unless null; b may be null. Grid: one thread per N elements of a row.
// Bytes an element of bf16: 4, and 2 more with GELU: memory-bound; worth fusing into the product.
template <int N> __global__ void __launch_bounds__(BLOCK)
bias_gelu_kernel(floatX* y, floatX* gelu_out, const floatX* b, size_t rows, int columns, size_t ld) {
    size_t i = size_t(blockIdx.x) * BLOCK + threadIdx.x;
    size_t row = i / (columns / N), c = i % (columns / N) * N;
    if (row >= rows) return;
    float v[N];
    load_floats(v, y + row * ld + c);
    if (b) {
        float bias[N];
        load_floats(bias, b + c);
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = rounded(v[k] + bias[k]);
        store_floats(y + row * ld + c, v);
    }
    if (!gelu_out) return;
#pragma unroll
    for (int k = 0; k < N; k++) v[k] = gelu(v[k]);
    store_floats(gelu_out + row * ld + c, v);
}

// dx *= GELU'(pre). Grid: as above. Bytes an element of bf16: 6: memory-bound.
template <int N> __global__ void __launch_bounds__(BLOCK)
gelu_backward_kernel(floatX* dx, const floatX* pre, size_t rows, int columns, size_t ld) {
    size_t i = size_t(blockIdx.x) * BLOCK + threadIdx.x;
    size_t row = i / (columns / N), c = i % (columns / N) * N;
    if (row >= rows) return;
    float d[N], x[N];
    load_floats(d, dx + row * ld + c);
    load_floats(x, pre + row * ld + c);
#pragma unroll
    for (int k = 0; k < N; k++) d[k] *= gelu_derivative(x[k]);
    store_floats(dx + row * ld + c, d);
}

// out = GELU(x). 4 bytes an element of bf16: memory-bound.
template <int N> __global__ void __launch_bounds__(BLOCK) gelu_kernel(floatX* out, const floatX* x, size_t n) {
    size_t i = (size_t(blockIdx.x) * BLOCK + threadIdx.x) * N;
    if (i >= n) return;
    float v[N];
    load_floats(v, x + i);
#pragma unroll
    for (int k = 0; k < N; k++) v[k] = gelu(v[k]);
    store_floats(out + i, v);
}

void bias_gelu(floatX* y, floatX* gelu_out, const floatX* b, size_t rows, int columns, size_t ld) {
    bool pack = columns % PACK == 0 && ld % PACK == 0 && all_aligned16(y, gelu_out, b);
    auto kernel = pack ? bias_gelu_kernel<PACK> : bias_gelu_kernel<1>;
    launch(kernel, grid_size(rows * (columns / (pack ? PACK : 1)), BLOCK), dim3(BLOCK), 0)(y, gelu_out, b, rows, columns, ld);
}

void multiply_gelu_derivative(floatX* dx, const floatX* pre, size_t rows, int columns, size_t ld) {
    bool pack = columns % PACK == 0 && ld % PACK == 0 && all_aligned16(dx, pre);
    auto kernel = pack ? gelu_backward_kernel<PACK> : gelu_backward_kernel<1>;
    launch(kernel, grid_size(rows * (columns / (pack ? PACK : 1)), BLOCK), dim3(BLOCK), 0)(dx, pre, rows, columns, ld);
}

// Heads whose outputs and weights lie side by side and that read the same x are one wide layer: one product instead of `batch`,
// and for dx the sum over the heads is made inside the product, in fp32.
LinearShape merge_heads(LinearShape s) {
    bool side_by_side = s.batch > 1 && s.batch_x == 0 && s.batch_out == size_t(s.out) && s.batch_w == s.out * s.ld_w;
    if (!side_by_side) return s;
    s.out *= s.batch;
    s.batch = 1;
    s.batch_w = s.batch_out = 0;
    return s;
}
}  // namespace

void linear_forward(floatX* y, const floatX* x, const floatX* w, const floatX* b, const LinearShape& shape, bool accumulate,
                    floatX* gelu_out) {
    LinearShape s = b ? shape : merge_heads(shape);          // with a bias, every head adds the same one
    if (s.rows == 0 || s.out == 0) return;
    if (s.rows <= FEW_ROWS) return linear_rows_forward(y, x, w, b, s, accumulate, gelu_out);
    Matmul p{.transpose_a = false, .transpose_b = true, .m = s.rows, .n = size_t(s.out), .k = size_t(s.in),
             .a = x, .lda = s.ld_in, .b = w, .ldb = s.ld_w,
             .d = y, .ldd = s.ld_out, .accumulate = accumulate, .batch = s.batch, .batch_a = s.batch_x,
             .batch_b = s.batch_w, .batch_d = s.batch_out};
    if (s.batch == 1 && gelu_out && !accumulate) {
        Matmul fused = p;
        fused.epilogue = Epilogue::gelu_bias;
        fused.bias = b;
        fused.aux = y;
        fused.d = gelu_out;
        if (matmul(fused)) return;
    } else if (s.batch == 1 && b && !gelu_out) {
        Matmul fused = p;
        fused.epilogue = Epilogue::bias;
        fused.bias = b;
        if (matmul(fused)) return;
    }
    matmul(p);
    if (!b && !gelu_out) return;
    for (int h = 0; h < s.batch; h++)
        bias_gelu(y + h * s.batch_out, gelu_out ? gelu_out + h * s.batch_out : nullptr, b, s.rows, s.out, s.ld_out);
}

void linear_backward_input(floatX* dx, const floatX* dy, const floatX* w, const LinearShape& shape, bool accumulate,
                           const floatX* pre_gelu) {
    LinearShape s = merge_heads(shape);
    if (s.rows == 0 || s.in == 0) return;
    Matmul p{.transpose_a = false, .transpose_b = false, .m = s.rows, .n = size_t(s.in), .k = size_t(s.out),
             .a = dy, .lda = s.ld_out, .b = w, .ldb = s.ld_w,
             .d = dx, .ldd = s.ld_in, .accumulate = accumulate, .batch = s.batch, .batch_a = s.batch_out,
             .batch_b = s.batch_w, .batch_d = s.batch_x};
    if (s.batch > 1 && s.batch_x == 0) {                     // heads that share x add their gradients, one after the other
        p.batch = 1;
        for (int h = 0; h < s.batch; h++) {
            p.a = dy + h * s.batch_out;
            p.b = w + h * s.batch_w;
            p.accumulate = accumulate || h > 0;
            matmul(p);
        }
        if (pre_gelu) multiply_gelu_derivative(dx, pre_gelu, s.rows, s.in, s.ld_in);
        return;
    }
    if (s.batch == 1 && pre_gelu && !accumulate) {
        Matmul fused = p;
        fused.epilogue = Epilogue::gelu_backward;
        fused.aux = const_cast<floatX*>(pre_gelu);           // read only
        if (matmul(fused)) return;
    }
    matmul(p);
    for (int h = 0; pre_gelu && h < s.batch; h++)
        multiply_gelu_derivative(dx + h * s.batch_x, pre_gelu + h * s.batch_x, s.rows, s.in, s.ld_in);
}

void linear_backward_weight(floatM* dw, floatM* db, const floatX* dy, const floatX* x, const LinearShape& shape, bool accumulate) {
    LinearShape s = db ? shape : merge_heads(shape);
    if (s.out == 0) return;
    Matmul p{.transpose_a = true, .transpose_b = false, .m = size_t(s.out), .n = size_t(s.in), .k = s.rows,
             .a = dy, .lda = s.ld_out, .b = x, .ldb = s.ld_in,
             .d = dw, .ldd = s.ld_w, .d_is_master = true, .accumulate = accumulate, .batch = s.batch,
             .batch_a = s.batch_out, .batch_b = s.batch_x, .batch_d = s.batch_w};
    if (db && s.batch == 1 && s.rows > 0) {                  // the product reads dy anyway: let it sum dy's columns too
        Matmul fused = p;
        fused.epilogue = Epilogue::bias_gradient;
        fused.bias_gradient = accumulate ? static_cast<float*>(device_scratch(size_t(s.out) * sizeof(float))) : db;
        if (matmul(fused)) {
            if (accumulate) finish_column_sums(db, fused.bias_gradient, 1, s.out, size_t(s.out), true);
            return;
        }
    }
    bool shared = s.batch > 1 && s.batch_w == 0;             // heads that share W add their gradients, one after the other
    if (shared) p.batch = 1;
    for (int h = 0; h < (shared ? s.batch : 1); h++) {
        p.a = dy + h * s.batch_out;
        p.b = x + h * s.batch_x;
        p.accumulate = accumulate || h > 0;
        matmul(p);
    }
    if (db) column_sums(db, dy, s.rows, s.out, s.ld_out, accumulate);
}

void gelu_forward(floatX* out, const floatX* x, size_t n) {
    size_t body = all_aligned16(out, x) ? n / PACK * PACK : 0, tail = n - body;
    if (body) launch(gelu_kernel<PACK>, grid_size(body, size_t(PACK) * BLOCK), dim3(BLOCK), 0)(out, x, body);
    if (tail) launch(gelu_kernel<1>, grid_size(tail, BLOCK), dim3(BLOCK), 0)(out + body, x + body, tail);
}
