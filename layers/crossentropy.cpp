// Softmax and cross-entropy on the CPU, in place over the padded logits. See crossentropy.h.
#include "layers/crossentropy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "layers/cpu_math.h"

namespace {
template <class T> inline floatM row_max(const T* logits, int V) {
    floatM m = floatM(logits[0]);
#pragma omp simd reduction(max : m)
    for (int v = 0; v < V; v++) m = floatM(logits[v]) > m ? floatM(logits[v]) : m;
    return m;
}

// The row in floatM: itself or, where the storage is narrower, a copy that stays in cache.
inline floatM* as_master(floatM* logits, int) { return logits; }
template <class T> floatM* as_master(T* logits, int V) {
    thread_local std::vector<floatM> copy;
    if (copy.size() < size_t(V)) copy.resize(size_t(V));
    floatM* to = copy.data();
#pragma omp simd
    for (int v = 0; v < V; v++) to[v] = floatM(logits[v]);
    return to;
}
}  // namespace

void crossentropy_forward(floatM* losses, const floatX* logits, const int* targets, size_t rows, int V, int Vp) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) {
        if (targets[r] < 0) { losses[r] = 0; continue; }
        const floatX* x = logits + r * Vp;
        const floatM m = row_max(x, V), sum = sum_of(V, [=](int v) { return fast_exp(floatM(x[v]) - m); });
        losses[r] = std::log(sum) + m - floatM(x[targets[r]]);
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
        floatM* e = as_master(x, V);
        const floatM m = row_max(e, V), target_logit = e[targets[r]];
        const floatM sum = sum_of(V, [=](int v) { return e[v] = fast_exp(e[v] - m); });
        losses[r] = std::log(sum) + m - target_logit;
        const floatM k = scale / sum, at_target = e[targets[r]] * k - scale;
        store_row(x, size_t(V), [=](size_t v) { return e[v] * k; });
        store(x[targets[r]], at_target);
        std::fill(x + V, x + Vp, floatX(0));
    }
}
