// AdamW [Loshchilov & Hutter 2019, alg. 2] with global-norm clipping [Pascanu et al. 2013]:
//   g = grad * min(1, clip / norm)      m = b1 m + (1-b1) g      v = b2 v + (1-b2) g^2
//   w = w - lr ( (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps) + decay w )            [t counts from 1]
// Works on flat ranges; the caller gives one call per range of equal decay. Master weights, moments and gradients are floatM.
#pragma once
#include "runtime/types.h"

struct AdamW {
    double lr, beta1, beta2, eps;
    double weight_decay;         // of this range; 0 for biases, gains and other vectors
    double grad_clip;            // 0: no clipping
    int64_t step;                // from 1
    double min_value;            // the weights are kept >= this (learned position parameters); -infinity: off
};

// weights: the copy that kernels read (floatX). master: floatM, or null when floatX is floatM. norm: one floatM in device memory.
void adamw_update(floatX* weights, floatM* master, floatM* m, floatM* v, const floatM* grad, size_t n, const floatM* norm, const AdamW& a);
// *norm = sqrt(sum grad^2), one floatM in device memory. Summed in double over fixed blocks: the same bits for any thread count.
void global_norm(floatM* norm, const floatM* grad, size_t n);
