// Linear layers on the CPU: the products are cut into pieces, each piece is one serial library call, and the bias and GELU are
// applied to a piece while it is still in cache. The cut depends on shapes only: any thread count gives the same bits.
#include "layers/linear.h"

#include <algorithm>

#include "layers/cpu_math.h"
#include "layers/gemm.h"
#include "layers/linear_rows.h"

namespace {
// An m x n product over k, cut into mp x np pieces of mb x nb elements.
struct Pieces { int mp, np; size_t mb, nb; };

// About 12 MFLOP a piece (60-120 us: long enough to hide a call's overhead and its packing; 4 MFLOP was 5% slower at C = 128), at most 32 pieces, each at least
// 32 x 64. Each row of pieces copies ("packs") B once more, each column A: among the finest cuts the one with the least copying.
Pieces cut(size_t m, size_t n, size_t k) {
    double flops = 2.0 * double(m) * double(n) * double(k);
    int target = flops < 4e5 ? 1 : int(std::clamp(flops / 12e6, 2.0, 32.0));
    Pieces best{1, 1, m, n};
    double best_cost = double(m + n);
    for (int mp = 1; mp <= target; mp *= 2)
        for (int np = 1; mp * np <= target; np *= 2) {
            size_t mb = round_up(ceil_div(m, size_t(mp)), 8), nb = round_up(ceil_div(n, size_t(np)), 16);
            if ((mp > 1 && mb < 32) || (np > 1 && nb < 64)) continue;
            double cost = double(m) * np + double(n) * mp;
            bool finer = mp * np > best.mp * best.np;
            if (finer || (mp * np == best.mp * best.np && cost < best_cost)) best = {mp, np, mb, nb}, best_cost = cost;
        }
    best.mp = int(ceil_div(m, best.mb));
    best.np = int(ceil_div(n, best.nb));
    return best;
}

// Runs piece(head, row, rows, column, columns) for every piece of every head's m x n product, in parallel.
template <class Piece> void for_each_piece(int batch, size_t m, size_t n, size_t k, Piece piece) {
    Pieces p = cut(m, n, k);
    int per_head = p.mp * p.np, total = batch * per_head;
#pragma omp parallel for schedule(dynamic, 1) if (total > 1)
    for (int t = 0; t < total; t++) {
        int head = t / per_head, i = t % per_head / p.np, j = t % p.np;
        size_t row = i * p.mb, column = j * p.nb;
        piece(head, row, std::min(p.mb, m - row), column, std::min(p.nb, n - column));
    }
}
}  // namespace

void linear_forward(floatX* y, const floatX* x, const floatX* w, const floatX* b, const LinearShape& s, bool accumulate, floatX* gelu_out) {
    if (s.rows <= FEW_ROWS) return linear_rows_forward(y, x, w, b, s, accumulate, gelu_out);
    for_each_piece(s.batch, s.rows, s.out, s.in, [&](int h, size_t row, size_t rows, size_t col, size_t cols) {
        floatX* out = y + h * s.batch_out + row * s.ld_out + col;
        gemm(false, true, int(rows), int(cols), s.in, x + h * s.batch_x + row * s.ld_in, s.ld_in, w + h * s.batch_w + col * s.ld_w, s.ld_w,
             accumulate, out, s.ld_out);
        if (!b && !gelu_out) return;
        for (size_t r = 0; r < rows; r++) {
            floatX* o = out + r * s.ld_out;
            if (b) {
                const floatX* bias = b + col;
#pragma omp simd
                for (size_t c = 0; c < cols; c++) o[c] += bias[c];
            }
            if (gelu_out) {
                floatX* g = gelu_out + (o - y);
#pragma omp simd
                for (size_t c = 0; c < cols; c++) g[c] = gelu(o[c]);
            }
        }
    });
}

void linear_backward_input(floatX* dx, const floatX* dy, const floatX* w, const LinearShape& s, bool accumulate, const floatX* pre_gelu) {
    // Heads that share x sum their gradients: one after the other, each adding to the last.
    bool shared = s.batch > 1 && s.batch_x == 0;
    for (int first = 0; first < (shared ? s.batch : 1); first++)
        for_each_piece(shared ? 1 : s.batch, s.rows, s.in, s.out, [&](int h, size_t row, size_t rows, size_t col, size_t cols) {
            h += first;
            floatX* out = dx + h * s.batch_x + row * s.ld_in + col;
            gemm(false, false, int(rows), int(cols), s.out, dy + h * s.batch_out + row * s.ld_out, s.ld_out, w + h * s.batch_w + col,
                 s.ld_w, accumulate || first > 0, out, s.ld_in);
            if (!pre_gelu) return;
            for (size_t r = 0; r < rows; r++) {
                floatX* o = out + r * s.ld_in;
                const floatX* pre = pre_gelu + (o - dx);
#pragma omp simd
                for (size_t c = 0; c < cols; c++) o[c] *= gelu_derivative(pre[c]);
            }
        });
}

void linear_backward_weight(floatM* dw, floatM* db, const floatX* dy, const floatX* x, const LinearShape& s, bool accumulate) {
    bool shared = s.batch > 1 && s.batch_w == 0;
    for (int first = 0; first < (shared ? s.batch : 1); first++)
        for_each_piece(shared ? 1 : s.batch, s.out, s.in, s.rows, [&](int h, size_t row, size_t rows, size_t col, size_t cols) {
            h += first;
            gemm(true, false, int(rows), int(cols), int(s.rows), dy + h * s.batch_out + row, s.ld_out, x + h * s.batch_x + col, s.ld_in,
                 accumulate || first > 0, dw + h * s.batch_w + row * s.ld_w + col, s.ld_w);
        });
    if (!db) return;
    constexpr int COLUMNS = 64;                              // 64 running sums fit in four vector registers
    int blocks = int(ceil_div(size_t(s.out), COLUMNS));
#pragma omp parallel for schedule(static)
    for (int block = 0; block < blocks; block++) {
        int begin = block * COLUMNS, n = std::min(COLUMNS, s.out - begin);
        floatM sum[COLUMNS] = {};
        for (size_t r = 0; r < s.rows; r++) {
            const floatX* d = dy + r * s.ld_out + begin;
#pragma omp simd
            for (int c = 0; c < n; c++) sum[c] += d[c];
        }
        for (int c = 0; c < n; c++) db[begin + c] = (accumulate ? db[begin + c] : floatM(0)) + sum[c];
    }
}

void gelu_forward(floatX* out, const floatX* x, size_t n) {
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (size_t i = 0; i < n; i++) out[i] = gelu(x[i]);
}
