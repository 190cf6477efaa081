// QK, a control: the query is also the key. There is no W_K:
//   Q = x W_Q + b_Q (NH, HS)     V = x W_V + b_V (NH, HS)     O_h = softmax(s Q_h Q_h^T + bias) V_h      y = concat(O_h) W_O + b_O
// Every token looks most at what is like itself, above all at itself, and if i looks at j then j looks at i. So it must
// lose to every variant with a key of its own; if it does not, the comparison cannot tell attention from a mean
// [a control of arXiv:2606.04032's kind].
//   dQ = s dS K + s dS^T Q: two terms. sdpa reads K = Q but writes dQ and dK apart; they are added afterwards.
// RoPE rotates Q the same way on both sides. Cache: 2 NH HS elements per token and layer, as QKV.
// Saved per token: the rotated Q and V side by side, O, the log-sum-exp. In CONTROLS, not in VARIANTS: `make compare` leaves it out.
#pragma once
#include "attention/attention.h"
#include "layers/copy.h"

enum Weight { WQ, WV, BQ, BV, WO, BO };
enum Saved { QV, O, LSE };
enum Scratch { DQV, DK, DO };
enum Cached { CACHED_K, CACHED_V };
enum Decoded { NEW_QV, NEW_O };
inline const VariantOptions ATTENTION_OPTIONS = {};

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0) c.NKV = c.NH;
    ensure_usage(c.NKV == c.NH, "--kv-heads %d with ATTN=qk: its keys are the queries, one per head; leave it out", c.NKV);
}

inline AttentionSpec attention_spec(const ModelConfig& c) {
    int64_t q = int64_t(c.NH) * c.HS, C = c.C;
    AttentionSpec s;
    s.params = {{"q.weight", {q, C}, init_weight(), true},
                {"v.weight", {q, C}, init_weight(), true, true},
                {"q.bias", {q}, Init::constant(0), false},
                {"v.bias", {q}, Init::constant(0), false, true},
                {"o.weight", {C, q}, init_residual(c), true},
                {"o.bias", {C}, Init::constant(0), false}};
    s.saved = {{"qv", size_t(2 * q)}, {"o", size_t(q)}, {"lse", size_t(c.NH), true}};
    s.scratch = {{"dqv", size_t(2 * q)}, {"dk", size_t(2 * q)}, {"do", size_t(q)}};
    s.d_qk = s.d_v = c.HS;
    s.rope_width = c.pos == Position::rope ? c.HS : 0;
    s.macs_per_token = size_t(3 * C * q);
    s.cache = {{"k", c.NH, c.HS}, {"v", c.NH, c.HS}};
    s.decode = {{"qv", size_t(2 * q)}, {"o", size_t(q)}};
    return s;
}

// The forward reads K where Q is (rows of 2 NH HS). The backward writes dK into a buffer with rows of the same length,
// so one k_row serves both.
inline SdpaShape sdpa_shape(const AttentionLayer& l) {
    size_t q = size_t(l.c.NH) * l.c.HS;
    return {l.B, l.T, l.c.NH, l.c.NH, l.c.HS, l.c.HS, 2 * q, 2 * q, 2 * q, q};
}
inline RopeShape rope_shape(const AttentionLayer& l) {
    size_t HS = size_t(l.c.HS), row = 2 * l.c.NH * HS;
    return {l.B, l.T, l.c.NH, l.c.HS, row, HS, row, HS};
}

inline void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const int width = c.NH * c.HS;
    floatX *q = l.save(QV), *v = q + width;
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(l.rows(), c.C, 2 * width));
    if (l.rope) rope_forward(q, q, l.rope, rope_shape(l));
    sdpa_forward(l.save(O), l.save_master(LSE), q, q, v, l.bias, sdpa_shape(l));
    linear_forward(out, l.save(O), l.w[WO], l.w[BO], linear_shape(l.rows(), width, c.C));
}

inline void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const int width = c.NH * c.HS;
    const size_t HS = size_t(c.HS), row = 2 * size_t(width);
    LinearShape in = linear_shape(l.rows(), c.C, 2 * width), out = linear_shape(l.rows(), width, c.C);
    const floatX *q = l.save(QV), *v = q + width;
    floatX *dq = l.grad(DQV), *dv = dq + width, *dk = l.grad(DK);
    linear_backward_weight(l.dw[WO], l.dw[BO], dout, l.save(O), out, l.accumulate);
    linear_backward_input(l.grad(DO), dout, l.w[WO], out);
    sdpa_backward(dq, dk, dv, l.dp, l.da, l.grad(DO), l.save(O), l.save_master(LSE), q, q, v, l.bias, sdpa_shape(l), l.accumulate);
    copy_backward(dq, dk, {l.rows(), c.NH, c.HS, row, HS, row, HS}, true);  // dQ += dK
    if (l.rope) rope_backward(dq, dq, l.rope, rope_shape(l));
    linear_backward_weight(l.dw[WQ], l.dw[BQ], dq, x, in, l.accumulate);
    linear_backward_input(dx, dq, l.w[WQ], in);
}

// The cache keeps the rotated queries, as keys, and V.
inline void attention_decode(floatX* out, const floatX* x, const DecodeLayer& l) {
    const ModelConfig& c = l.c;
    const int width = c.NH * c.HS;
    const size_t row = 2 * size_t(width), HS = size_t(c.HS);
    floatX *q = l.row(NEW_QV), *v = q + width, *o = l.row(NEW_O);
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(l.rows(), c.C, 2 * width));
    if (l.rope) rope_forward(q, q, l.rope, {1, l.batch.rows, c.NH, c.HS, row, HS, row, HS, l.batch.position});
    cache_append(l.cache[CACHED_K], q, row, c.NH, c.HS, l.batch);
    cache_append(l.cache[CACHED_V], v, row, c.NH, c.HS, l.batch);
    DecodeShape shape{.NH = c.NH, .NKV = c.NH, .d_k = c.HS, .d_v = c.HS, .d_shared = 0, .q_row = row, .q_head = HS,
                      .shared_row = 0, .shared_head = 0, .scale = 1 / std::sqrt(double(c.HS))};
    sdpa_decode(o, l.partial, q, nullptr, l.cache[CACHED_K], l.cache[CACHED_V], nullptr, nullptr, l.bias, shape, l.batch);
    linear_forward(out, o, l.w[WO], l.w[BO], linear_shape(l.rows(), width, c.C));
}
