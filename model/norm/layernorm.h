// LayerNorm [Ba et al. 2016]: y = (x - mean) rstd w + b. Saved per token: mean, rstd. The derivation: layers/layernorm.h.
#pragma once
#include "layers/layernorm.h"
#include "model/part.h"

enum NormWeight { NORM_GAIN, NORM_BIAS };
enum NormSaved { NORM_MEAN, NORM_RSTD };

inline PartSpec norm_spec(const ModelConfig& c) {
    PartSpec s;
    s.params = {{"weight", {c.C}, Init::constant(1), false}, {"bias", {c.C}, Init::constant(0), false}};
    s.saved = {{"mean", 1, true}, {"rstd", 1, true}};
    return s;
}

inline void norm_forward(floatX* y, const floatX* x, const Part& p) {
    layernorm_forward(y, p.save_master(NORM_MEAN), p.save_master(NORM_RSTD), x, p.w[NORM_GAIN], p.w[NORM_BIAS], p.rows(), p.c.C);
}

inline void norm_residual_forward(floatX* sum, floatX* y, const floatX* x, const floatX* branch, const Part& p) {
    residual_layernorm_forward(sum, y, p.save_master(NORM_MEAN), p.save_master(NORM_RSTD), x, branch, p.w[NORM_GAIN],
                               p.w[NORM_BIAS], p.rows(), p.c.C);
}

inline void norm_backward(floatX* dx, const floatX* dy, const floatX* x, const Part& p, Write write) {
    layernorm_backward(dx, p.dw[NORM_GAIN], p.dw[NORM_BIAS], dy, x, p.w[NORM_GAIN], p.save_master(NORM_MEAN),
                       p.save_master(NORM_RSTD), p.rows(), p.c.C, write == Write::add, p.accumulate);
}
