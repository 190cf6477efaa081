// QV: Query-Value attention, "the value is also the key" [arXiv:2603.15665; "Q-K=V" in arXiv:2606.04032]. There is no W_K:
//   Q = x W_Q + b_Q (NH, HS)     V = x W_V + b_V (NKV, HS)     O_h = softmax(s Q_h V_g^T + bias) V_g      y = concat(O_h) W_O + b_O
//   dV = P^T dO + s dS^T Q: two terms in one accumulator (sdpa with K and V the same tensor).
// --kv-heads groups the values (Q-GQA, Q-MQA); the default is NKV = NH. Cache: NKV HS elements per token and layer, half of QKV's.
// Positions that are added to the input (learned, sinusoidal) end up in V too, the interference that the paper blames;
// a bias (alibi, power) leaves V alone. RoPE has two sound forms (--qv-rope). Rotating V as key and as value without
// undoing it would not be one:
//   vo    V^ = R(V) is key and value, O = R^-1(P V^):     the rotation is undone at the query's position, so that the
//         output depends on relative positions only       (VO-RoPE; Su, kexue.fm 10862)
//   key   K = R(V), V itself is not rotated:              dV = P^T dO + R^-1(s dS^T Q)
// Default vo: over three paired seeds it loses 0.036 nats to QKV where key loses 0.074 (docs/LOG.md; L4 C128 T128).
// Saved per token: (Q, V) side by side, K = R(V) for `key`, O (after R^-1 for `vo`), the log-sum-exp.
#pragma once
#include "attention/attention.h"

enum Weight { WQ, WV, BQ, BV, WO, BO };
enum Saved { QV, K, O, LSE };
enum Scratch { DQV, DK, DO };
enum Cached { CACHED_V };
enum Decoded { NEW_QV, NEW_O };
enum Own { ROPE_FORM };
enum RopeForm { VO, KEY };

inline const VariantOptions ATTENTION_OPTIONS = {
    own_choice("qv-rope", {"vo", "key"}, "with rope: rotate value and output back (vo), or the key only")};

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0) c.NKV = c.NH;
    ensure_usage(c.NKV >= 1 && c.NH % c.NKV == 0, "--kv-heads %d does not divide --heads %d", c.NKV, c.NH);
    ensure_usage(c.own[ROPE_FORM] == VO || c.pos == Position::rope,
                 "--qv-rope key with --pos %s: only --pos rope rotates", position_name(c.pos));
}

inline bool rope_on_key(const ModelConfig& c) { return c.pos == Position::rope && c.own[ROPE_FORM] == KEY; }
inline bool rope_on_value_and_output(const ModelConfig& c) { return c.pos == Position::rope && c.own[ROPE_FORM] == VO; }

inline AttentionSpec attention_spec(const ModelConfig& c) {
    int64_t q = int64_t(c.NH) * c.HS, v = int64_t(c.NKV) * c.HS, C = c.C;
    AttentionSpec s;
    s.params = {{"q.weight", {q, C}, init_weight(), true},
                {"v.weight", {v, C}, init_weight(), true, true},
                {"q.bias", {q}, Init::constant(0), false},
                {"v.bias", {v}, Init::constant(0), false, true},
                {"o.weight", {C, q}, init_residual(c), true},
                {"o.bias", {C}, Init::constant(0), false}};
    s.saved = {{"qv", size_t(q + v)}, {"k", rope_on_key(c) ? size_t(v) : 0}, {"o", size_t(q)}, {"lse", size_t(c.NH), true}};
    s.scratch = {{"dqv", size_t(q + v)}, {"dk", rope_on_key(c) ? size_t(v) : 0}, {"do", size_t(q)}};
    s.d_qk = s.d_v = c.HS;
    s.rope_width = c.pos == Position::rope ? c.HS : 0;
    s.macs_per_token = size_t(C * (2 * q + v));
    s.cache = {{"v", c.NKV, c.HS}};
    s.decode = {{"qv", size_t(q + v)}, {"o", size_t(q)}};
    if (rope_on_key(c)) s.cache_note = "K = R(V) is not kept: V is rotated as it is read";
    return s;
}

inline SdpaShape sdpa_shape(const AttentionLayer& l) {
    size_t q = size_t(l.c.NH) * l.c.HS, v = size_t(l.c.NKV) * l.c.HS;
    return {l.B, l.T, l.c.NH, l.c.NKV, l.c.HS, l.c.HS, q + v, rope_on_key(l.c) ? v : q + v, q + v, q};
}
// `heads` heads whose rows are `out_row` and `in_row` apart
inline RopeShape rope_shape(const AttentionLayer& l, int heads, size_t out_row, size_t in_row) {
    size_t HS = size_t(l.c.HS);
    return {l.B, l.T, heads, l.c.HS, out_row, HS, in_row, HS};
}

inline void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS;
    const size_t row = size_t(q_width + v_width);
    floatX *q = l.save(QV), *v = q + q_width, *k = v, *o = l.save(O);
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(l.rows(), c.C, q_width + v_width));
    if (rope_on_key(c)) {
        k = l.save(K);
        rope_forward(q, q, l.rope, rope_shape(l, c.NH, row, row));
        rope_forward(k, v, l.rope, rope_shape(l, c.NKV, v_width, row));
    }
    if (rope_on_value_and_output(c)) rope_forward(q, q, l.rope, rope_shape(l, c.NH + c.NKV, row, row));      // (Q, V) are neighbours
    sdpa_forward(o, l.save_master(LSE), q, k, v, l.bias, sdpa_shape(l), rope_on_value_and_output(c) ? l.rope : nullptr);
    linear_forward(out, o, l.w[WO], l.w[BO], linear_shape(l.rows(), q_width, c.C));
}

inline void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS;
    const size_t row = size_t(q_width + v_width);
    LinearShape in = linear_shape(l.rows(), c.C, q_width + v_width), out = linear_shape(l.rows(), q_width, c.C);
    const floatX *q = l.save(QV), *v = q + q_width, *k = rope_on_key(c) ? l.save(K) : v;
    floatX *o = l.save(O), *dq = l.grad(DQV), *dv = dq + q_width, *dk = rope_on_key(c) ? l.grad(DK) : dv;
    const floatM* rotated = rope_on_value_and_output(c) ? l.rope : nullptr;       // vo: Q, V before, and O after, the rotations
    linear_backward_weight(l.dw[WO], l.dw[BO], dout, o, out, l.accumulate);
    linear_backward_input(l.grad(DO), dout, l.w[WO], out);
    sdpa_backward(dq, dk, dv, l.dp, l.da, l.grad(DO), o, l.save_master(LSE), q, k, v, l.bias, sdpa_shape(l), l.accumulate,
                  rotated, rotated);
    if (rope_on_key(c)) {
        rope_backward(dq, dq, l.rope, rope_shape(l, c.NH, row, row));
        rope_backward(dv, dk, l.rope, rope_shape(l, c.NKV, v_width, row), true);
    }
    linear_backward_weight(l.dw[WQ], l.dw[BQ], dq, x, in, l.accumulate);
    linear_backward_input(dx, dq, l.w[WQ], in);
}

// The cache keeps V alone: NKV HS elements per token and layer. `key`: V is stored, and K = R(V) is made while it is
// read, which adds three operations per element to the four of the scores and the output. `vo`: R(V) is stored, rotated
// once, and is both key and value.
inline void attention_decode(floatX* out, const floatX* x, const DecodeLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS;
    const size_t row = size_t(q_width + v_width), HS = size_t(c.HS), o_row = size_t(q_width);
    floatX *q = l.row(NEW_QV), *v = q + q_width, *o = l.row(NEW_O);
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(l.rows(), c.C, q_width + v_width));
    const int rotated_heads = rope_on_key(c) ? c.NH : rope_on_value_and_output(c) ? c.NH + c.NKV : 0;
    if (rotated_heads > 0) rope_forward(q, q, l.rope, {1, l.batch.rows, rotated_heads, c.HS, row, HS, row, HS, l.batch.position});
    cache_append(l.cache[CACHED_V], v, row, c.NKV, c.HS, l.batch);
    DecodeShape shape{.NH = c.NH, .NKV = c.NKV, .d_k = c.HS, .d_v = c.HS, .d_shared = 0, .q_row = row, .q_head = HS,
                      .shared_row = 0, .shared_head = 0, .scale = 1 / std::sqrt(double(c.HS))};
    sdpa_decode(o, l.partial, q, nullptr, l.cache[CACHED_V], l.cache[CACHED_V], nullptr,
                rope_on_key(c) ? l.rope : nullptr, l.bias, shape, l.batch);
    if (rope_on_value_and_output(c))
        rope_forward(o, o, l.rope, {1, l.batch.rows, c.NH, c.HS, o_row, HS, o_row, HS, l.batch.position}, true);
    linear_forward(out, o, l.w[WO], l.w[BO], linear_shape(l.rows(), q_width, c.C));
}
