// Linear layers on the CPU: the products are cut into pieces, each piece is one serial library call, and the bias and GELU are
// applied to a piece while it is still in cache. The cut depends on shapes only: any thread count gives the same bits.
// In bf16 the product itself adds the bias and rounds once (gemm_bf16.cpp). GELU reads what was stored, and so does its
// backward.
#include "layers/linear.h"

#include <algorithm>
#include <vector>

#include "layers/cpu_math.h"
#include "layers/gemm.h"
#include "layers/linear_rows.h"

namespace {
// An m x n product over k, cut into mp x np pieces of mb x nb elements.
struct Pieces { int mp, np; size_t mb, nb; };

// How far rows and columns are halved: not below `least`, and not at all if half of the whole is below `first`. If that leaves fewer than
// `enough` pieces, rows are halved down to 64 after all.
struct Limits { size_t rows_least, rows_first, columns_least, columns_first; int enough; };
constexpr bool HALF = sizeof(floatX) == 2;
// A's rows are read where they lie; B is copied for each row of pieces, so few rows are not cut.
constexpr Limits ROWS_AS_STORED{HALF ? 256 : 128, 256, 192, 64, 2};
// A weight's gradient, dy^T x: A is transposed while it is copied, for each column of pieces, so columns are cut last. Small weights
// would make two pieces, with which many cores stand idle; four cost two threads 3%.
constexpr Limits ROWS_TRANSPOSED{128, 64, 192, 128, 8};

// Pieces of about 50 us (12 MFLOP in fp32, 24 in bf16): long enough to hide a call and its copies; at most 32, rows first, so
// that pieces are written in whole lines. A product that is smaller than that is still cut once. Measured on Zen 4
// (docs/LOG.md, 2026-11-27).
Pieces cut(size_t m, size_t n, size_t k, const Limits& limits) {
    constexpr double PIECE = HALF ? 24e6 : 12e6;
    const double flops = 2.0 * double(m) * double(n) * double(k);
    int left = flops < 4e5 ? 1 : int(std::clamp(flops / PIECE, 2.0, 32.0));
    Pieces p{1, 1, m, n};
    auto halve = [&](int& count, size_t& size, size_t whole, size_t least, size_t first, size_t step) {
        for (; left > 1; left /= 2, count *= 2) {
            const size_t half = round_up(ceil_div(whole, size_t(count) * 2), step);
            if (half < (count == 1 ? first : least)) return;
            size = half;
        }
    };
    halve(p.mp, p.mb, m, limits.rows_least, limits.rows_first, 8);
    halve(p.np, p.nb, n, limits.columns_least, limits.columns_first, 16);
    if (p.mp * p.np < limits.enough) halve(p.mp, p.mb, m, 64, 32, 8);
    p.mp = int(ceil_div(m, p.mb));
    p.np = int(ceil_div(n, p.nb));
    return p;
}

// Runs piece(head, row, rows, column, columns) for every piece of every head's m x n product, and extra(0) ..
// extra(extras - 1), in parallel.
template <class Piece, class Extra>
void for_each_piece(const Limits& limits, int batch, size_t m, size_t n, size_t k, Piece piece, int extras, Extra extra) {
    const Pieces p = cut(m, n, k, limits);
    int per_head = p.mp * p.np, total = batch * per_head;
#pragma omp parallel for schedule(dynamic, 1) if (total + extras > 1)
    for (int t = 0; t < total + extras; t++) {
        if (t >= total) {
            extra(t - total);
            continue;
        }
        int head = t / per_head, i = t % per_head / p.np, j = t % p.np;
        size_t row = i * p.mb, column = j * p.nb;
        piece(head, row, std::min(p.mb, m - row), column, std::min(p.nb, n - column));
    }
}
template <class Piece>
void for_each_piece(int batch, size_t m, size_t n, size_t k, Piece piece) {
    for_each_piece(ROWS_AS_STORED, batch, m, n, k, piece, 0, [](int) {});
}

// C = op(A) op(B) (+ C) (+ bias)
template <class X>
void product(bool transpose_b, size_t m, size_t n, int k, const X* a, size_t lda, const X* b, size_t ldb,
             bool accumulate, X* c, size_t ldc, const X* bias = nullptr) {
    if constexpr (sizeof(X) == 2) {
        gemm(false, transpose_b, int(m), int(n), k, a, lda, b, ldb, accumulate, c, ldc, bias);
    } else {
        gemm(false, transpose_b, int(m), int(n), k, a, lda, b, ldb, accumulate, c, ldc);
        if (!bias) return;
        for (size_t r = 0; r < m; r++) {
            X* row = c + r * ldc;
#pragma omp simd
            for (size_t j = 0; j < n; j++) row[j] += bias[j];
        }
    }
}

// Heads that read the same x, with their weights one below the other, are one wide layer: one product instead of `batch`
// small ones (MLA's k^C). If their outputs do not lie side by side, each piece of y is copied from or to its heads.
struct Merged {
    LinearShape s;                                           // batch 1 when merged
    int head_out = 0;                                        // outputs of a head, when y has gaps; else 0
    size_t head_stride = 0;
};
Merged merge_heads(const LinearShape& shape) {
    Merged m{shape};
    if (shape.batch == 1 || shape.batch_x != 0 || shape.batch_w != shape.out * shape.ld_w) return m;
    if (shape.batch_out != size_t(shape.out)) m.head_out = shape.out, m.head_stride = shape.batch_out;
    m.s.out = shape.out * shape.batch;
    m.s.batch = 1;
    m.s.batch_w = m.s.batch_out = 0;
    return m;
}
// Columns [column, column + columns) of `rows` rows of y, `ld` apart, to or from a compact copy: move(y + .., copy + .., n) for each run.
template <class Y, class Move> void each_run(const Merged& m, Y* y, size_t rows, size_t column, size_t columns, floatX* copy, Move move) {
    const size_t width = size_t(m.head_out);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = column; c < column + columns;) {
            const size_t within = c % width, n = std::min(width - within, column + columns - c);
            move(y + r * m.s.ld_out + c / width * m.head_stride + within, copy + r * columns + (c - column), n);
            c += n;
        }
}
void read_run(const floatX* y, floatX* copy, size_t n) { std::copy(y, y + n, copy); }
void write_run(floatX* y, floatX* copy, size_t n) { std::copy(copy, copy + n, y); }

floatX* room(size_t n) {                                     // one per thread, grows to the largest piece and is kept
    thread_local std::vector<floatX> memory;
    if (memory.size() < n) memory.resize(n);
    return memory.data();
}
}  // namespace

void linear_forward(floatX* y, const floatX* x, const floatX* w, const floatX* b, const LinearShape& shape,
                    bool accumulate, floatX* gelu_out) {
    if (shape.rows <= FEW_ROWS) return linear_rows_forward(y, x, w, b, shape, accumulate, gelu_out);
    const Merged m = b || gelu_out ? Merged{shape} : merge_heads(shape);         // with a bias, every head adds the same one
    const LinearShape& s = m.s;
    for_each_piece(s.batch, s.rows, size_t(s.out), size_t(s.in), [&](int h, size_t row, size_t rows, size_t col, size_t cols) {
        const floatX *in = x + h * s.batch_x + row * s.ld_in, *weights = w + h * s.batch_w + col * s.ld_w;
        if (m.head_out) {
            floatX *copy = room(rows * cols), *to = y + row * s.ld_out;
            if (accumulate) each_run(m, to, rows, col, cols, copy, read_run);
            product(true, rows, cols, s.in, in, s.ld_in, weights, s.ld_w, accumulate, copy, cols);
            each_run(m, to, rows, col, cols, copy, write_run);
            return;
        }
        floatX* out = y + h * s.batch_out + row * s.ld_out + col;
        product(true, rows, cols, s.in, in, s.ld_in, weights, s.ld_w, accumulate, out, s.ld_out, b ? b + col : nullptr);
        for (size_t r = 0; gelu_out && r < rows; r++) {
            const floatX* o = out + r * s.ld_out;
            store_row(gelu_out + (o - y), cols, [=](size_t c) { return gelu(floatM(o[c])); });
        }
    });
}

void linear_backward_input(floatX* dx, const floatX* dy, const floatX* w, const LinearShape& shape, bool accumulate,
                           const floatX* pre_gelu) {
    const Merged m = merge_heads(shape);
    const LinearShape& s = m.s;
    // Heads that share x sum their gradients, one after the other.
    const bool shared = s.batch > 1 && s.batch_x == 0;
    for_each_piece(shared ? 1 : s.batch, s.rows, size_t(s.in), size_t(s.out), [&](int h, size_t row, size_t rows, size_t col, size_t cols) {
        floatX* out = dx + h * s.batch_x + row * s.ld_in + col;
        if (m.head_out) {
            floatX* copy = room(rows * size_t(s.out));
            each_run(m, dy + row * s.ld_out, rows, 0, size_t(s.out), copy, read_run);
            product(false, rows, cols, s.out, copy, size_t(s.out), w + col, s.ld_w, accumulate, out, s.ld_in);
        } else {
            for (int i = 0; i < (shared ? s.batch : 1); i++)
                product(false, rows, cols, s.out, dy + (h + i) * s.batch_out + row * s.ld_out, s.ld_out,
                        w + (h + i) * s.batch_w + col, s.ld_w, accumulate || i > 0, out, s.ld_in);
        }
        for (size_t r = 0; pre_gelu && r < rows; r++) {
            floatX* o = out + r * s.ld_in;
            const floatX* pre = pre_gelu + (o - dx);
            store_row(o, cols, [=](size_t c) { return floatM(o[c]) * gelu_derivative(floatM(pre[c])); });
        }
    });
}

void linear_backward_weight(floatM* dw, floatM* db, const floatX* dy, const floatX* x, const LinearShape& shape, bool accumulate) {
    const Merged m = db ? Merged{shape} : merge_heads(shape);
    const LinearShape& s = m.s;
    const bool shared = s.batch > 1 && s.batch_w == 0;       // heads that share W sum their gradients, in order
    auto weights = [&](int h, size_t row, size_t rows, size_t col, size_t cols) {
        floatM* out = dw + h * s.batch_w + row * s.ld_w + col;
        if (m.head_out) {
            floatX* copy = room(s.rows * rows);
            each_run(m, dy, s.rows, row, rows, copy, read_run);
            gemm(true, false, int(rows), int(cols), int(s.rows), copy, rows, x + col, s.ld_in, accumulate, out, s.ld_w);
            return;
        }
        for (int i = 0; i < (shared ? s.batch : 1); i++)
            gemm(true, false, int(rows), int(cols), int(s.rows), dy + (h + i) * s.batch_out + row, s.ld_out,
                 x + (h + i) * s.batch_x + col, s.ld_in, accumulate || i > 0, out, s.ld_w);
    };
    constexpr int COLUMNS = 64;                              // 64 running sums fit in eight vector registers
    auto bias = [&](int block) {
        int begin = block * COLUMNS, n = std::min(COLUMNS, s.out - begin);
        floatM sum[COLUMNS] = {};
        for (size_t r = 0; r < s.rows; r++) {
            const floatX* d = dy + r * s.ld_out + begin;
#pragma omp simd
            for (int c = 0; c < n; c++) sum[c] += floatM(d[c]);
        }
        for (int c = 0; c < n; c++) db[begin + c] = (accumulate ? db[begin + c] : floatM(0)) + sum[c];
    };
    for_each_piece(ROWS_TRANSPOSED, shared ? 1 : s.batch, size_t(s.out), size_t(s.in), s.rows, weights,
                   db ? int(ceil_div(size_t(s.out), COLUMNS)) : 0, bias);
}

void gelu_forward(floatX* out, const floatX* x, size_t n) {
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (size_t i = 0; i < n; i++) store(out[i], gelu(floatM(x[i])));
}
