// RMSNorm [Zhang & Sennrich 2019]: y = x rstd w, rstd = 1 / sqrt(mean(x^2) + 1e-6): no mean is subtracted and no bias added, as in
// Llama. Saved per token: rstd. The derivation: layers/rmsnorm.h.
#pragma once
#include "layers/rmsnorm.h"
#include "model/part.h"

enum NormWeight { NORM_GAIN };
enum NormSaved { NORM_RSTD };

inline PartSpec norm_spec(const ModelConfig& c) {
    PartSpec s;
    s.params = {{"weight", {c.C}, Init::constant(1), false}};
    s.saved = {{"rstd", 1, true}};
    return s;
}

inline void norm_forward(floatX* y, const floatX* x, const Part& p) {
    rmsnorm_forward(y, p.save_master(NORM_RSTD), x, p.w[NORM_GAIN], p.rows(), p.c.C, size_t(p.c.C));
}

inline void norm_residual_forward(floatX* sum, floatX* y, const floatX* x, const floatX* branch, const Part& p) {
    residual_rmsnorm_forward(sum, y, p.save_master(NORM_RSTD), x, branch, p.w[NORM_GAIN], p.rows(), p.c.C);
}

inline void norm_backward(floatX* dx, const floatX* dy, const floatX* x, const Part& p, Write write) {
    rmsnorm_backward(dx, p.dw[NORM_GAIN], dy, x, p.w[NORM_GAIN], p.save_master(NORM_RSTD), p.rows(), p.c.C, size_t(p.c.C), p.accumulate,
                     write == Write::add);
}
