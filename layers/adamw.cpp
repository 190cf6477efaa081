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

namespace {
struct Step { floatM clip, b1, b2, eps, low, correction2, rate, keep; };
// The new weight; m and v in place. A function of values: as a lambda that captures by reference it is vectorised with
// gathers of what it captured, nine times as slow (docs/LOG.md, 2026-11-27).
inline floatM updated(floatM weight, floatM& m, floatM& v, floatM grad, Step s) {
    const floatM g = grad * s.clip;
    m = s.b1 * m + (1 - s.b1) * g;
    v = s.b2 * v + (1 - s.b2) * g * g;
    const floatM w = weight * s.keep - s.rate * m / (std::sqrt(v * s.correction2) + s.eps);
    return w > s.low ? w : s.low;
}
}  // namespace

void adamw_update(floatX* weights, floatM* master, floatM* m, floatM* v, const floatM* grad, size_t n, const floatM* norm, const AdamW& a) {
    if (!std::isfinite(*norm)) return;
    const floatM clip = a.grad_clip > 0 && *norm > floatM(a.grad_clip) ? floatM(a.grad_clip) / *norm : floatM(1);
    const floatM correction1 = floatM(1 / (1 - std::pow(a.beta1, double(a.step)))),
                 correction2 = floatM(1 / (1 - std::pow(a.beta2, double(a.step))));
    const Step s{clip, floatM(a.beta1), floatM(a.beta2), floatM(a.eps), floatM(a.min_value), correction2, floatM(a.lr) * correction1,
                 floatM(1 - a.lr * a.weight_decay)};
    if (sizeof(floatX) < sizeof(floatM) && master) {
        const Rounding r = a.rounding;
        if (r.stochastic) {
#pragma omp parallel for schedule(static) if (n > 16384)
            for (size_t i = 0; i < n; i++) weights[i] = stored_weight(master[i] = updated(master[i], m[i], v[i], grad[i], s), r, i);
        } else {
#pragma omp parallel for simd schedule(static) if (n > 16384) firstprivate(s)
            for (size_t i = 0; i < n; i++) store(weights[i], master[i] = updated(master[i], m[i], v[i], grad[i], s));
        }
        return;
    }
    // The weights are the master copy. (With fewer than that, waking the threads costs more than the work.)
#pragma omp parallel for simd schedule(static) if (n > 16384) firstprivate(s)
    for (size_t i = 0; i < n; i++) store(weights[i], updated(floatM(weights[i]), m[i], v[i], grad[i], s));
}
