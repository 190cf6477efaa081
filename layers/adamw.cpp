// AdamW and the global norm on the CPU: one pass over memory each. See adamw.h.
// Bytes per fp32 parameter: update 16 read + 12 written, norm 4 read; both run at memory bandwidth for models beyond the cache.
#include "layers/adamw.h"

#include <algorithm>
#include <cmath>
#include <vector>

void global_norm(floatM* norm, const floatM* grad, size_t n) {
    constexpr size_t BLOCK = 1 << 16;
    size_t blocks = ceil_div(n, BLOCK);
    static std::vector<double> partial;                      // grows once
    partial.resize(blocks);
#pragma omp parallel for schedule(static)
    for (size_t b = 0; b < blocks; b++) {
        double sum = 0;
        size_t end = std::min(n, (b + 1) * BLOCK);
#pragma omp simd reduction(+ : sum)
        for (size_t i = b * BLOCK; i < end; i++) sum += double(grad[i]) * double(grad[i]);
        partial[b] = sum;
    }
    double total = 0;
    for (double p : partial) total += p;
    *norm = floatM(std::sqrt(total));
}

void adamw_update(floatX* weights, floatM* master, floatM* m, floatM* v, const floatM* grad, size_t n, const floatM* norm, const AdamW& a) {
    (void)master;                                            // floatX is floatM here: the weights are the master copy
    floatM clip = a.grad_clip > 0 && *norm > floatM(a.grad_clip) ? floatM(a.grad_clip) / *norm : floatM(1);
    floatM b1 = floatM(a.beta1), b2 = floatM(a.beta2), eps = floatM(a.eps), low = floatM(a.min_value);
    floatM correction1 = floatM(1 / (1 - std::pow(a.beta1, double(a.step)))), correction2 = floatM(1 / (1 - std::pow(a.beta2, double(a.step))));
    floatM rate = floatM(a.lr) * correction1, keep = floatM(1 - a.lr * a.weight_decay);
#pragma omp parallel for simd schedule(static) if (n > 16384)    // below, waking the threads costs more than the work
    for (size_t i = 0; i < n; i++) {
        floatM g = grad[i] * clip;
        floatM mi = m[i] = b1 * m[i] + (1 - b1) * g;
        floatM vi = v[i] = b2 * v[i] + (1 - b2) * g * g;
        floatM w = weights[i] * keep - rate * mi / (std::sqrt(vi * correction2) + eps);
        weights[i] = w > low ? w : low;
    }
}
