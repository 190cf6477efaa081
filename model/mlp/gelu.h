// GPT-2's MLP: y = gelu(x W_fc + b_fc) W_proj + b_proj, gelu in its tanh form [Hendrycks & Gimpel 2016, eq. 3], width F = 4 C.
// Saved per token: what goes into gelu and, unless --recompute is 1 or more, what comes out.
#pragma once
#include "layers/linear.h"
#include "model/part.h"

enum MlpWeight { MLP_FC, MLP_FC_BIAS, MLP_PROJ, MLP_PROJ_BIAS };
enum MlpSaved { MLP_BEFORE, MLP_AFTER };
enum MlpScratch { MLP_DHIDDEN };

inline int mlp_default_width(const ModelConfig& c) { return 4 * c.C; }

inline PartSpec mlp_spec(const ModelConfig& c) {
    PartSpec s;
    s.params = {{"fc.weight", {c.F, c.C}, init_weight(), true},
                {"fc.bias", {c.F}, Init::constant(0), false},
                {"proj.weight", {c.C, c.F}, init_residual(c), true},
                {"proj.bias", {c.C}, Init::constant(0), false}};
    s.saved = {{"before gelu", size_t(c.F)}, {.name = "after gelu", .per_token = size_t(c.F), .recompute = 1}};
    s.scratch = {{"dhidden", size_t(c.F)}};
    s.macs_per_token = 2 * size_t(c.C) * size_t(c.F);
    return s;
}

inline void mlp_forward(floatX* out, const floatX* x, const Part& p) {
    const LinearShape fc = linear_shape(p.rows(), p.c.C, p.c.F), proj = linear_shape(p.rows(), p.c.F, p.c.C);
    linear_forward(p.save(MLP_BEFORE), x, p.w[MLP_FC], p.w[MLP_FC_BIAS], fc, false, p.save(MLP_AFTER));
    linear_forward(out, p.save(MLP_AFTER), p.w[MLP_PROJ], p.w[MLP_PROJ_BIAS], proj);
}

inline void mlp_backward(floatX* dx, const floatX* dout, const floatX* x, const Part& p) {
    const LinearShape fc = linear_shape(p.rows(), p.c.C, p.c.F), proj = linear_shape(p.rows(), p.c.F, p.c.C);
    floatX* dhidden = p.grad(MLP_DHIDDEN);
    if (p.recompute >= 1) gelu_forward(p.save(MLP_AFTER), p.save(MLP_BEFORE), p.rows() * size_t(p.c.F));
    linear_backward_weight(p.dw[MLP_PROJ], p.dw[MLP_PROJ_BIAS], dout, p.save(MLP_AFTER), proj, p.accumulate);
    linear_backward_input(dhidden, dout, p.w[MLP_PROJ], proj, false, p.save(MLP_BEFORE));          // through gelu too
    linear_backward_weight(p.dw[MLP_FC], p.dw[MLP_FC_BIAS], dhidden, x, fc, p.accumulate);
    linear_backward_input(dx, dhidden, p.w[MLP_FC], fc);
}
