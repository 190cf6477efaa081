// RMSNorm on the CPU. See rmsnorm.h; the structure is layernorm.cpp's without the mean.
#include "layers/rmsnorm.h"

#include <algorithm>
#include <cmath>

#include "layers/cpu_math.h"

static void normalise_row(floatX* out, floatM* rstd, const floatX* p, const floatX* w, int C) {
    const floatM squares = sum_of(C, [=](int c) { return p[c] * p[c]; });
    floatM s = *rstd = floatM(1) / std::sqrt(squares / C + floatM(RMSNORM_EPS));
    store_row(out, size_t(C), [=](size_t c) { return p[c] * s * w[c]; });
}

void rmsnorm_forward(floatX* y, floatM* rstd, const floatX* x, const floatX* w, size_t rows, int C, size_t ld_x) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) normalise_row(y + r * C, rstd + r, x + r * ld_x, w, C);
}

void residual_rmsnorm_forward(floatX* sum, floatX* y, floatM* rstd, const floatX* x, const floatX* branch,
                              const floatX* w, size_t rows, int C) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) {
        floatX* s = sum + r * C;
        const floatX *p = x + r * C, *q = branch + r * C;
        store_row(s, size_t(C), [=](size_t c) { return p[c] + q[c]; });
        normalise_row(y + r * C, rstd + r, s, w, C);
    }
}

void rmsnorm_backward(floatX* dx, floatM* dw, const floatX* dy, const floatX* x, const floatX* w, const floatM* rstd,
                      size_t rows, int C, size_t ld_x, bool accumulate, bool add_to_dx) {
    constexpr int COLUMNS = 64;
    int blocks = int(ceil_div(size_t(C), COLUMNS));
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int block = 0; block < blocks; block++) {
            int begin = block * COLUMNS, n = std::min(COLUMNS, C - begin);
            floatM sum[COLUMNS] = {};
            for (size_t r = 0; r < rows; r++) {
                const floatX *d = dy + r * C + begin, *p = x + r * ld_x + begin;
                floatM s = rstd[r];
#pragma omp simd
                for (int c = 0; c < n; c++) sum[c] += d[c] * p[c] * s;
            }
            for (int c = 0; c < n; c++) dw[begin + c] = (accumulate ? dw[begin + c] : floatM(0)) + sum[c];
        }
#pragma omp for schedule(static)
        for (size_t r = 0; r < rows; r++) {
            const floatX *d = dy + r * C, *p = x + r * ld_x;
            floatX* out = dx + r * ld_x;
            const floatM s = rstd[r];
            const floatM mean_gn = sum_of(C, [=](int c) { return d[c] * w[c] * (p[c] * s); }) / C;
            auto gradient = [=](size_t c) { return s * (d[c] * w[c] - p[c] * s * mean_gn); };
            if (add_to_dx) store_row(out, size_t(C), [=](size_t c) { return out[c] + gradient(c); });
            else store_row(out, size_t(C), gradient);
        }
    }
}
