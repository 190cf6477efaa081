// Softmax and cross-entropy on the CPU, in place over the padded logits. See crossentropy.h.
#include "layers/crossentropy.h"

#include <algorithm>
#include <cmath>

#include "layers/cpu_math.h"

namespace {
inline floatM row_max(const floatX* logits, int V) {
    floatM m = logits[0];
#pragma omp simd reduction(max : m)
    for (int v = 0; v < V; v++) m = logits[v] > m ? logits[v] : m;
    return m;
}
}  // namespace

void crossentropy_forward(floatM* losses, const floatX* logits, const int* targets, size_t rows, int V, int Vp) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) {
        if (targets[r] < 0) { losses[r] = 0; continue; }
        const floatX* x = logits + r * Vp;
        floatM m = row_max(x, V), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int v = 0; v < V; v++) sum += fast_exp(x[v] - m);
        losses[r] = std::log(sum) + m - x[targets[r]];
    }
}

void crossentropy_forward_backward(floatM* losses, floatX* logits, const int* targets, size_t rows, int V, int Vp, floatM scale) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) {
        floatX* x = logits + r * Vp;
        if (targets[r] < 0) {
            losses[r] = 0;
            std::fill(x, x + Vp, floatX(0));
            continue;
        }
        floatM m = row_max(x, V), sum = 0;
        floatX target_logit = x[targets[r]];
#pragma omp simd reduction(+ : sum)
        for (int v = 0; v < V; v++) sum += x[v] = fast_exp(x[v] - m);
        losses[r] = std::log(sum) + m - target_logit;
        floatM k = scale / sum;
#pragma omp simd
        for (int v = 0; v < V; v++) x[v] *= k;
        x[targets[r]] -= scale;
        std::fill(x + V, x + Vp, floatX(0));
    }
}
