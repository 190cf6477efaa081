// ONE, a control: one tensor is query, key and value ("Q=K=V").
//   X = x W_V + b_V (NH, HS)     O_h = softmax(s R(X_h) R(X_h)^T + bias) X_h      y = concat(O_h) W_O + b_O
// It has half of QKV's projections and must lose clearly: arXiv:2606.04032 reports a perplexity of 6.41 against 5.11 at 300M.
// RoPE rotates the copy that is query and key; the value stays.
//   dX = P^T dO + s dS^T Q + s dS K: with nothing rotated the first two share an accumulator (sdpa with K and V the same tensor).
// Cache: NH HS elements per token and layer. Saved per token: X, with rope R(X), O, the log-sum-exp. In CONTROLS, not in VARIANTS.
#pragma once
#include "attention/attention.h"
#include "layers/copy.h"

enum Weight { WV, BV, WO, BO };
enum Saved { X, RX, O, LSE };
enum Scratch { DX, DQ, DK, DO };
enum Cached { CACHED_X };
enum Decoded { NEW_X, NEW_RX, NEW_O };
inline const VariantOptions ATTENTION_OPTIONS = {};

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0) c.NKV = c.NH;
    ensure_usage(c.NKV == c.NH, "--kv-heads %d with ATTN=one: its keys are the queries, one per head; leave it out", c.NKV);
}

inline AttentionSpec attention_spec(const ModelConfig& c) {
    int64_t width = int64_t(c.NH) * c.HS, C = c.C;
    size_t turned = c.pos == Position::rope ? size_t(width) : 0;
    AttentionSpec s;
    s.params = {{"v.weight", {width, C}, init_weight(), true},
                {"v.bias", {width}, Init::constant(0), false},
                {"o.weight", {C, width}, init_residual(c), true},
                {"o.bias", {C}, Init::constant(0), false}};
    s.saved = {{"x", size_t(width)}, {"rx", turned}, {"o", size_t(width)}, {"lse", size_t(c.NH), true}};
    s.scratch = {{"dx", size_t(width)}, {"dq", size_t(width)}, {"dk", turned}, {"do", size_t(width)}};
    s.d_qk = s.d_v = c.HS;
    s.rope_width = c.pos == Position::rope ? c.HS : 0;
    s.macs_per_token = size_t(2 * C * width);
    s.cache = {{"x", c.NH, c.HS}};
    s.decode = {{"x", size_t(width)}, {"rx", turned}, {"o", size_t(width)}};
    return s;
}

inline SdpaShape sdpa_shape(const AttentionLayer& l) {
    size_t row = size_t(l.c.NH) * l.c.HS;
    return {l.B, l.T, l.c.NH, l.c.NH, l.c.HS, l.c.HS, row, row, row, row};
}
inline RopeShape rope_shape(const AttentionLayer& l) {
    size_t HS = size_t(l.c.HS), row = l.c.NH * HS;
    return {l.B, l.T, l.c.NH, l.c.HS, row, HS, row, HS};
}

inline void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l) {
    const int width = l.c.NH * l.c.HS;
    floatX *value = l.save(X), *key = l.rope ? l.save(RX) : value;
    linear_forward(value, x, l.w[WV], l.w[BV], linear_shape(l.rows(), l.c.C, width));
    if (l.rope) rope_forward(key, value, l.rope, rope_shape(l));
    sdpa_forward(l.save(O), l.save_master(LSE), key, key, value, l.bias, sdpa_shape(l));
    linear_forward(out, l.save(O), l.w[WO], l.w[BO], linear_shape(l.rows(), width, l.c.C));
}

inline void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l) {
    const int width = l.c.NH * l.c.HS;
    const CopyShape all{l.rows(), 1, width, size_t(width), 0, size_t(width), 0};
    LinearShape in = linear_shape(l.rows(), l.c.C, width), out = linear_shape(l.rows(), width, l.c.C);
    const floatX *value = l.save(X), *key = l.rope ? l.save(RX) : value;
    floatX *dvalue = l.grad(DX), *dq = l.grad(DQ), *dk = l.rope ? l.grad(DK) : dvalue;
    linear_backward_weight(l.dw[WO], l.dw[BO], dout, l.save(O), out, l.accumulate);
    linear_backward_input(l.grad(DO), dout, l.w[WO], out);
    sdpa_backward(dq, dk, dvalue, l.dp, l.da, l.grad(DO), l.save(O), l.save_master(LSE), key, key, value, l.bias,
                  sdpa_shape(l), l.accumulate);
    if (l.rope) {
        copy_backward(dq, dk, all, true);                                    // dR(X) = dQ + dK
        rope_backward(dvalue, dq, l.rope, rope_shape(l), true);
    } else {
        copy_backward(dvalue, dq, all, true);
    }
    linear_backward_weight(l.dw[WV], l.dw[BV], dvalue, x, in, l.accumulate);
    linear_backward_input(dx, dvalue, l.w[WV], in);
}

// The cache keeps X; with rope the key R(X) is made while X is read.
inline void attention_decode(floatX* out, const floatX* x, const DecodeLayer& l) {
    const ModelConfig& c = l.c;
    const int width = c.NH * c.HS;
    const size_t row = size_t(width), HS = size_t(c.HS);
    floatX *value = l.row(NEW_X), *q = l.rope ? l.row(NEW_RX) : value, *o = l.row(NEW_O);
    linear_forward(value, x, l.w[WV], l.w[BV], linear_shape(l.rows(), c.C, width));
    if (l.rope) rope_forward(q, value, l.rope, {1, l.batch.rows, c.NH, c.HS, row, HS, row, HS, l.batch.position});
    cache_append(l.cache[CACHED_X], value, row, c.NH, c.HS, l.batch);
    DecodeShape shape{.NH = c.NH, .NKV = c.NH, .d_k = c.HS, .d_v = c.HS, .d_shared = 0, .q_row = row, .q_head = HS,
                      .shared_row = 0, .shared_head = 0, .scale = 1 / std::sqrt(double(c.HS))};
    sdpa_decode(o, l.partial, q, nullptr, l.cache[CACHED_X], l.cache[CACHED_X], nullptr, l.rope, l.bias, shape, l.batch);
    linear_forward(out, o, l.w[WO], l.w[BO], linear_shape(l.rows(), width, c.C));
}
