// AdamW and the global norm on the CPU: one pass over memory each. See adamw.h.
// Bytes per parameter: update 16 read + 12 written (bf16: 2 more, the rounded weight), norm 4 read; both run
// at memory bandwidth for models beyond the cache.
#include "layers/adamw.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/device/bf16.h"
#include "runtime/device/rng.h"

void sum_squares(double* sums, const floatM* grad, size_t n) {
#pragma omp parallel for schedule(static) if (n > 16384)
    for (size_t b = 0; b < ceil_div(n, NORM_BLOCK); b++) {
        double sum = 0;
        size_t end = std::min(n, (b + 1) * NORM_BLOCK);
#pragma omp simd reduction(+ : sum)
        for (size_t i = b * NORM_BLOCK; i < end; i++) sum += double(grad[i]) * double(grad[i]);
        sums[b] = sum;
    }
}

void norm_of_sums(floatM* norm, const double* sums, size_t count) {
    double total = 0;
    for (size_t i = 0; i < count; i++) total += sums[i];
    *norm = floatM(std::sqrt(total));
}

void add_gradient(floatM* sum, const floatM* x, size_t n, bool accumulate) {
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (size_t i = 0; i < n; i++) sum[i] = accumulate ? sum[i] + x[i] : x[i];
}

void adamw_update(floatX* weights, floatM* master, floatM* m, floatM* v, const floatM* grad, size_t n, const floatM* norm, const AdamW& a) {
    if (!std::isfinite(*norm)) return;
    floatM clip = a.grad_clip > 0 && *norm > floatM(a.grad_clip) ? floatM(a.grad_clip) / *norm : floatM(1);
    floatM b1 = floatM(a.beta1), b2 = floatM(a.beta2), eps = floatM(a.eps), low = floatM(a.min_value);
    floatM correction1 = floatM(1 / (1 - std::pow(a.beta1, double(a.step)))),
           correction2 = floatM(1 / (1 - std::pow(a.beta2, double(a.step))));
    floatM rate = floatM(a.lr) * correction1, keep = floatM(1 - a.lr * a.weight_decay);
    auto updated = [&](size_t i, floatM weight) {
        floatM g = grad[i] * clip;
        floatM mi = m[i] = b1 * m[i] + (1 - b1) * g;
        floatM vi = v[i] = b2 * v[i] + (1 - b2) * g * g;
        floatM w = weight * keep - rate * mi / (std::sqrt(vi * correction2) + eps);
        return w > low ? w : low;
    };
    if constexpr (sizeof(floatX) == sizeof(floatM)) {        // the weights are the master copy
        (void)master;
#pragma omp parallel for simd schedule(static) if (n > 16384)    // for less, waking the threads costs more than the work
        for (size_t i = 0; i < n; i++) store(weights[i], updated(i, floatM(weights[i])));
    } else if (!master) {                                        // tests: narrow weights without a master copy
        for (size_t i = 0; i < n; i++) store(weights[i], updated(i, floatM(weights[i])));
    } else if (a.rounding.stochastic) {
        const Rounding& r = a.rounding;
#pragma omp parallel for schedule(static) if (n > 16384)
        for (size_t i = 0; i < n; i++) {
            master[i] = updated(i, master[i]);
            weights[i] = stored_weight(master[i], r, i);
        }
    } else {
#pragma omp parallel for simd schedule(static) if (n > 16384)
        for (size_t i = 0; i < n; i++) store(weights[i], master[i] = updated(i, master[i]));
    }
}
