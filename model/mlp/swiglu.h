// SwiGLU [Shazeer 2020, arXiv:2002.05202, eq. 6], as in Llama, without biases: y = (silu(x W_gate) * (x W_up)) W_down.
// It has three matrices instead of two, so the default width is 8/3 C, rounded to the nearest multiple of 8 (rows of 16
// bytes in bf16). From C = 128 on its parameters are then within 1.5% of gelu's 8 C^2 + 5 C.
// Saved per token: gate and up side by side, from one product, and, unless --recompute is 1 or more, what goes into W_down.
#pragma once
#include "layers/linear.h"
#include "layers/swiglu.h"
#include "model/part.h"

enum MlpWeight { MLP_GATE, MLP_UP, MLP_DOWN };
enum MlpSaved { MLP_GATE_UP, MLP_HIDDEN };
enum MlpScratch { MLP_DGATE_UP, MLP_DHIDDEN };

inline int mlp_default_width(const ModelConfig& c) { return std::max(8, (8 * c.C / 3 + 4) / 8 * 8); }

inline PartSpec mlp_spec(const ModelConfig& c) {
    PartSpec s;
    s.params = {{"gate.weight", {c.F, c.C}, init_weight(), true},
                {"up.weight", {c.F, c.C}, init_weight(), true, true},
                {"down.weight", {c.C, c.F}, init_residual(c), true}};
    s.saved = {{"gate, up", size_t(2 * c.F)}, {.name = "silu(gate) up", .per_token = size_t(c.F), .recompute = 1}};
    s.scratch = {{"dgate, dup", size_t(2 * c.F)}, {"dhidden", size_t(c.F)}};
    s.macs_per_token = 3 * size_t(c.C) * size_t(c.F);
    return s;
}

inline void mlp_forward(floatX* out, const floatX* x, const Part& p) {
    const LinearShape gate_up = linear_shape(p.rows(), p.c.C, 2 * p.c.F), down = linear_shape(p.rows(), p.c.F, p.c.C);
    linear_forward(p.save(MLP_GATE_UP), x, p.w[MLP_GATE], nullptr, gate_up);
    swiglu_forward(p.save(MLP_HIDDEN), p.save(MLP_GATE_UP), p.rows(), p.c.F);
    linear_forward(out, p.save(MLP_HIDDEN), p.w[MLP_DOWN], nullptr, down);
}

inline void mlp_backward(floatX* dx, const floatX* dout, const floatX* x, const Part& p) {
    const LinearShape gate_up = linear_shape(p.rows(), p.c.C, 2 * p.c.F), down = linear_shape(p.rows(), p.c.F, p.c.C);
    if (p.recompute >= 1) swiglu_forward(p.save(MLP_HIDDEN), p.save(MLP_GATE_UP), p.rows(), p.c.F);
    linear_backward_weight(p.dw[MLP_DOWN], nullptr, dout, p.save(MLP_HIDDEN), down, p.accumulate);
    linear_backward_input(p.grad(MLP_DHIDDEN), dout, p.w[MLP_DOWN], down);
    swiglu_backward(p.grad(MLP_DGATE_UP), p.grad(MLP_DHIDDEN), p.save(MLP_GATE_UP), p.rows(), p.c.F);
    linear_backward_weight(p.dw[MLP_GATE], nullptr, p.grad(MLP_DGATE_UP), x, gate_up, p.accumulate);
    linear_backward_input(dx, p.grad(MLP_DGATE_UP), p.w[MLP_GATE], gate_up);
}
