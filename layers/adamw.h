// AdamW [Loshchilov & Hutter 2019, alg. 2] with global-norm clipping [Pascanu et al. 2013]:
//   g = grad * min(1, clip / norm)      m = b1 m + (1-b1) g      v = b2 v + (1-b2) g^2
//   w = w - lr ( (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps) + decay w )            [t counts from 1]
// Works on flat ranges; the caller makes one call per range of equal decay. Master weights, moments and gradients are floatM.
#pragma once
#include <cmath>
#include <cstring>

#include "runtime/device/rng.h"
#include "runtime/device/types.h"

// How weights narrower than the master copy are rounded. Stochastic rounding is unbiased: it rounds up with the
// probability that makes the mean right, so that the forward pass does not lose every update smaller than half a step
// [Gupta et al. 2015]. Element i uses philox(seed, stream, first + i).
struct Rounding {
    bool stochastic = false;
    uint64_t seed = 0, stream = 0, first = 0;
};
// Element i of a weight as it is stored for the kernels, from the master copy, on the host.
// Stochastic: a random 16-bit number is added below the bits that are kept; infinities and NaN stay as they are.
inline floatX stored_weight(floatM w, const Rounding& r, uint64_t i) {
    if (sizeof(floatX) != 2 || !r.stochastic || !std::isfinite(w)) return floatX(w);
    float narrow = float(w);
    uint32_t bits;
    memcpy(&bits, &narrow, 4);
    bits = (bits + (philox(r.seed, r.stream, r.first + i).x[0] >> 16)) & 0xffff0000u;
    memcpy(&narrow, &bits, 4);
    return floatX(narrow);                                   // exact
}
struct AdamW {
    double lr, beta1, beta2, eps;
    double weight_decay;         // of this range; 0 for biases, gains and other vectors
    double grad_clip;            // 0: no clipping
    int64_t step;                // from 1
    double min_value;            // the weights are kept >= this (learned position parameters); -infinity: off
    Rounding rounding = {};      // has no effect without a separate master copy
};

// weights: the copy that kernels read (floatX). master: floatM, or null when floatX is floatM. norm: one floatM in device memory.
// If the norm is not finite, nothing is changed; so the host need not look at it before it queues the update.
void adamw_update(floatX* weights, floatM* master, floatM* m, floatM* v, const floatM* grad, size_t n, const floatM* norm, const AdamW& a);

// The global norm in two steps, so that ranks that hold parts of the gradient can add their sums in between:
// sums[i] = sum of grad^2 over [i, i + 1) * NORM_BLOCK, in double, for ceil(n / NORM_BLOCK) blocks; then *norm = sqrt(sum of sums).
// On the CPU the sums are added in order, so blocks of zeros in between, or another number of threads, change no bit.
inline constexpr size_t NORM_BLOCK = 1024;
void sum_squares(double* sums, const floatM* grad, size_t n);
void norm_of_sums(floatM* norm, const double* sums, size_t count);

// sum (= | += when accumulate) x, n elements; for gradients of several micro-batches that were computed apart.
void add_gradient(floatM* sum, const floatM* x, size_t n, bool accumulate);
