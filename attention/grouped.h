// Multi-head attention with NH query heads and NKV key/value heads: the common body of qkv (NKV = NH), gqa and mqa (NKV = 1),
// which differ only in attention_defaults.
//   Q = x W_Q + b_Q (NH, HS)    K = x W_K + b_K (NKV, HS)    V = x W_V + b_V (NKV, HS)
//   O_h = softmax(s Q_h K_g^T + bias) V_g,  g = floor(h NKV / NH)          y = concat(O_h) W_O + b_O
// W_Q, W_K and W_V lie side by side in memory, so that one product makes (Q, K, V) and one makes their gradients.
// Saved per token: the rotated (Q, K, V), O, and the log-sum-exp.
#pragma once
#include "attention/attention.h"

enum Weight { WQ, WK, WV, BQ, BK, BV, WO, BO };
enum Saved { QKV, O, LSE };
enum Scratch { DQKV, DO };
enum Cached { CACHED_K, CACHED_V };
enum Decoded { NEW_QKV, NEW_O };
inline const VariantOptions ATTENTION_OPTIONS = {};

inline int qkv_width(const ModelConfig& c) { return (c.NH + 2 * c.NKV) * c.HS; }

inline AttentionSpec attention_spec(const ModelConfig& c) {
    int64_t q = int64_t(c.NH) * c.HS, kv = int64_t(c.NKV) * c.HS, C = c.C;
    AttentionSpec s;
    s.params = {{"q.weight", {q, C}, init_weight(), true},
                {"k.weight", {kv, C}, init_weight(), true, true},
                {"v.weight", {kv, C}, init_weight(), true, true},
                {"q.bias", {q}, Init::constant(0), false},
                {"k.bias", {kv}, Init::constant(0), false, true},
                {"v.bias", {kv}, Init::constant(0), false, true},
                {"o.weight", {C, q}, init_residual(c), true},
                {"o.bias", {C}, Init::constant(0), false}};
    s.saved = {{"qkv", size_t(qkv_width(c))}, {"o", size_t(q)}, {"lse", size_t(c.NH), true}};
    s.scratch = {{"dqkv", size_t(qkv_width(c))}, {"do", size_t(q)}};
    s.d_qk = s.d_v = c.HS;
    s.rope_width = c.pos == Position::rope ? c.HS : 0;
    s.macs_per_token = size_t(2 * C * (q + kv));
    s.cache = {{"k", c.NKV, c.HS}, {"v", c.NKV, c.HS}};      // K rotated
    s.decode = {{"qkv", size_t(qkv_width(c))}, {"o", size_t(q)}};
    return s;
}

inline SdpaShape sdpa_shape(const AttentionLayer& l) {
    size_t row = size_t(qkv_width(l.c));
    return {l.B, l.T, l.c.NH, l.c.NKV, l.c.HS, l.c.HS, row, row, row, size_t(l.c.NH) * l.c.HS};
}
// Queries and keys are neighbours in memory: one call rotates both.
inline RopeShape rope_shape(const AttentionLayer& l) {
    size_t row = size_t(qkv_width(l.c)), HS = size_t(l.c.HS);
    return {l.B, l.T, l.c.NH + l.c.NKV, l.c.HS, row, HS, row, HS};
}

inline void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    floatX *q = l.save(QKV), *k = q + c.NH * c.HS, *v = k + c.NKV * c.HS;
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(l.rows(), c.C, qkv_width(c)));
    if (l.rope) rope_forward(q, q, l.rope, rope_shape(l));
    sdpa_forward(l.save(O), l.save_master(LSE), q, k, v, l.bias, sdpa_shape(l));
    linear_forward(out, l.save(O), l.w[WO], l.w[BO], linear_shape(l.rows(), c.NH * c.HS, c.C));
}

inline void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const floatX *q = l.save(QKV), *k = q + c.NH * c.HS, *v = k + c.NKV * c.HS;
    floatX *dq = l.grad(DQKV), *dk = dq + c.NH * c.HS, *dv = dk + c.NKV * c.HS;
    LinearShape in = linear_shape(l.rows(), c.C, qkv_width(c)), out = linear_shape(l.rows(), c.NH * c.HS, c.C);
    linear_backward_weight(l.dw[WO], l.dw[BO], dout, l.save(O), out, l.accumulate);
    linear_backward_input(l.grad(DO), dout, l.w[WO], out);
    sdpa_backward(dq, dk, dv, l.dp, l.da, l.grad(DO), l.save(O), l.save_master(LSE), q, k, v, l.bias, sdpa_shape(l), l.accumulate,
                  l.rope);                                               // dQ, dK: before the rotation, where there is one
    linear_backward_weight(l.dw[WQ], l.dw[BQ], dq, x, in, l.accumulate);
    linear_backward_input(dx, dq, l.w[WQ], in);
}

// The cache keeps K (rotated) and V: 2 NKV HS elements per token and layer.
inline void attention_decode(floatX* out, const floatX* x, const DecodeLayer& l) {
    const ModelConfig& c = l.c;
    const size_t row = size_t(qkv_width(c)), HS = size_t(c.HS);
    floatX *q = l.row(NEW_QKV), *k = q + c.NH * c.HS, *v = k + c.NKV * c.HS, *o = l.row(NEW_O);
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(l.rows(), c.C, qkv_width(c)));
    if (l.rope) rope_forward(q, q, l.rope, {1, l.batch.rows, c.NH + c.NKV, c.HS, row, HS, row, HS, l.batch.position});
    cache_append(l.cache[CACHED_K], k, row, c.NKV, c.HS, l.batch);
    cache_append(l.cache[CACHED_V], v, row, c.NKV, c.HS, l.batch);
    DecodeShape shape{.NH = c.NH, .NKV = c.NKV, .d_k = c.HS, .d_v = c.HS, .d_shared = 0, .q_row = row, .q_head = HS,
                      .shared_row = 0, .shared_head = 0, .scale = 1 / std::sqrt(double(c.HS))};
    sdpa_decode(o, l.partial, q, nullptr, l.cache[CACHED_K], l.cache[CACHED_V], nullptr, nullptr, l.bias, shape, l.batch);
    linear_forward(out, o, l.w[WO], l.w[BO], linear_shape(l.rows(), c.NH * c.HS, c.C));
}
