// LayerNorm on the CPU: one row at a time while it is in cache; column sums by blocks of columns over all rows in order.
#include "layers/layernorm.h"

#include <algorithm>
#include <cmath>

#include "layers/cpu_math.h"

namespace {
inline void normalise_row(floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* w, const floatX* b, int C) {
    const floatM m = sum_of(C, [=](int c) { return floatM(x[c]); }) / C;
    const floatM squares = sum_of(C, [=](int c) { return (x[c] - m) * (x[c] - m); });
    const floatM r = floatM(1) / std::sqrt(squares / C + floatM(LAYERNORM_EPS));
    store_row(y, size_t(C), [=](size_t c) { return (x[c] - m) * r * w[c] + b[c]; });
    *mean = m;
    *rstd = r;
}
}  // namespace

void layernorm_forward(floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* w, const floatX* b, size_t rows, int C) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) normalise_row(y + r * C, mean + r, rstd + r, x + r * C, w, b, C);
}

void residual_layernorm_forward(floatX* sum, floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* branch,
                                const floatX* w, const floatX* b, size_t rows, int C) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) {
        floatX* s = sum + r * C;
        const floatX *p = x + r * C, *q = branch + r * C;
        store_row(s, size_t(C), [=](size_t c) { return p[c] + q[c]; });
        normalise_row(y + r * C, mean + r, rstd + r, s, w, b, C);
    }
}

void layernorm_backward(floatX* dx, floatM* dw, floatM* db, const floatX* dy, const floatX* x, const floatX* w,
                        const floatM* mean, const floatM* rstd, size_t rows, int C, bool add_to_dx, bool accumulate) {
    constexpr int COLUMNS = 64;                              // four vector registers of running sums
    int blocks = int(ceil_div(size_t(C), COLUMNS));
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int block = 0; block < blocks; block++) {
            int begin = block * COLUMNS, n = std::min(COLUMNS, C - begin);
            floatM sum_w[COLUMNS] = {}, sum_b[COLUMNS] = {};
            for (size_t r = 0; r < rows; r++) {
                const floatX *d = dy + r * C + begin, *p = x + r * C + begin;
                floatM m = mean[r], s = rstd[r];
#pragma omp simd
                for (int c = 0; c < n; c++) {
                    sum_w[c] += d[c] * ((p[c] - m) * s);
                    sum_b[c] += d[c];
                }
            }
            for (int c = 0; c < n; c++) {
                dw[begin + c] = (accumulate ? dw[begin + c] : floatM(0)) + sum_w[c];
                db[begin + c] = (accumulate ? db[begin + c] : floatM(0)) + sum_b[c];
            }
        }
#pragma omp for schedule(static)
        for (size_t r = 0; r < rows; r++) {
            const floatX *d = dy + r * C, *p = x + r * C;
            floatX* out = dx + r * C;
            floatM m = mean[r], s = rstd[r], sum_g = 0, sum_gn = 0;
#pragma omp simd reduction(+ : sum_g, sum_gn)
            for (int c = 0; c < C; c++) {
                floatM g = d[c] * w[c];
                sum_g += g;
                sum_gn += g * ((p[c] - m) * s);
            }
            floatM mean_g = sum_g / C, mean_gn = sum_gn / C;
            auto gradient = [=](size_t c) { return s * (d[c] * w[c] - mean_g - (p[c] - m) * s * mean_gn); };
            if (add_to_dx) store_row(out, size_t(C), [=](size_t c) { return out[c] + gradient(c); });
            else store_row(out, size_t(C), gradient);
        }
    }
}
