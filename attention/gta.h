// GTA: grouped-tied attention [Zadouri et al. 2025, arXiv:2505.21487, sec. 3.3.1]: the value is also half of the key.
//   Q = x W_Q + b_Q (NH, HS)     V = x W_V + b_V (NKV, HS)     k^R = x W_KR (HS / 2), one for all groups
//   K_g = [first half of V_g ; rope(k^R)]     Q_h = [first half as it is ; rope(second half)]
//   O_h = softmax(s Q_h K_g^T + bias) V_g,  g = floor(h NKV / NH)          y = concat(O_h) W_O + b_O
// Certain: V is the value, and its first half is half of the key; that half is not rotated; the other half of the
// key is one vector of HS / 2, rotated and shared by all groups. Inferred: the projection of that vector has no bias;
// with a --pos other than rope nothing is rotated.
// So the tied half carries the content of V, undisturbed by position, and position comes through the shared half
// (compare qv.h, where one tensor has to carry both).
// --kv-heads sets NKV; the default is gqa's. Cache: NKV HS + HS / 2 elements per token and layer, about half of GQA's.
// Saved per token: (Q, V) side by side, k^R, the keys put together, O, the log-sum-exp.
#pragma once
#include "attention/attention.h"
#include "layers/copy.h"
#include "runtime/device/backend.h"

enum Weight { WQ, WV, BQ, BV, WKR, WO, BO };
enum Saved { QV, KR, K, O, LSE };
enum Scratch { DQV, DKR, DK, DO };
enum Cached { CACHED_V, CACHED_KR };
enum Decoded { NEW_QV, NEW_TIED, NEW_KR, NEW_O };
inline const VariantOptions ATTENTION_OPTIONS = {};

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0)
        for (int n = 1; n <= (c.NH / 3 > 2 ? c.NH / 3 : 2) && n <= c.NH; n++)
            if (c.NH % n == 0) c.NKV = n;
    ensure_usage(c.NKV >= 1 && c.NH % c.NKV == 0, "--kv-heads %d does not divide --heads %d", c.NKV, c.NH);
    const int multiple = c.pos == Position::rope ? 4 : 2;    // two halves; the rotation works on pairs within one
    ensure_usage(c.HS % multiple == 0,
                 "head size %d with ATTN=gta and --pos %s: it must be a multiple of %d; give --head-dim", c.HS,
                 position_name(c.pos), multiple);
}

inline AttentionSpec attention_spec(const ModelConfig& c) {
    int64_t q = int64_t(c.NH) * c.HS, v = int64_t(c.NKV) * c.HS, C = c.C, half = c.HS / 2;
    AttentionSpec s;
    s.params = {{"q.weight", {q, C}, init_weight(), true},
                {"v.weight", {v, C}, init_weight(), true, true},
                {"q.bias", {q}, Init::constant(0), false},
                {"v.bias", {v}, Init::constant(0), false, true},
                {"kr.weight", {half, C}, init_weight(), true},
                {"o.weight", {C, q}, init_residual(c), true},
                {"o.bias", {C}, Init::constant(0), false}};
    s.saved = {{"qv", size_t(q + v)}, {"kr", size_t(half)}, {"k", size_t(v)}, {"o", size_t(q)}, {"lse", size_t(c.NH), true}};
    s.scratch = {{"dqv", size_t(q + v)}, {"dkr", size_t(half)}, {"dk", size_t(v)}, {"do", size_t(q)}};
    s.d_qk = s.d_v = c.HS;
    s.rope_width = c.pos == Position::rope ? c.HS / 2 : 0;
    s.macs_per_token = size_t(C * (2 * q + v + half));
    s.cache = {{"v", c.NKV, c.HS}, {"kr", 1, int(half)}};
    s.decode = {{"qv", size_t(q + v)}, {"tied", size_t(q)}, {"kr", size_t(half)}, {"o", size_t(q)}};
    return s;
}

inline SdpaShape sdpa_shape(const AttentionLayer& l) {
    size_t q = size_t(l.c.NH) * l.c.HS, v = size_t(l.c.NKV) * l.c.HS;
    return {l.B, l.T, l.c.NH, l.c.NKV, l.c.HS, l.c.HS, q + v, v, q + v, q};
}
// The second half of every head of Q, in place.   k^R -> the second half of every head of K.
inline RopeShape rope_query(const AttentionLayer& l) {
    size_t HS = size_t(l.c.HS), row = (l.c.NH + l.c.NKV) * HS;
    return {l.B, l.T, l.c.NH, l.c.HS / 2, row, HS, row, HS};
}
inline RopeShape rope_key(const AttentionLayer& l) {
    size_t HS = size_t(l.c.HS);
    return {l.B, l.T, l.c.NKV, l.c.HS / 2, l.c.NKV * HS, HS, HS / 2, 0};
}
// The first half of every head of V -> the first half of every head of K.   Without rotation: k^R -> the second half.
inline CopyShape tied_half(const AttentionLayer& l) {
    size_t HS = size_t(l.c.HS), row = (l.c.NH + l.c.NKV) * HS;
    return {l.rows(), l.c.NKV, l.c.HS / 2, l.c.NKV * HS, HS, row, HS};
}
inline CopyShape shared_half(const AttentionLayer& l) {
    size_t HS = size_t(l.c.HS);
    return {l.rows(), l.c.NKV, l.c.HS / 2, l.c.NKV * HS, HS, HS / 2, 0};
}

inline void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS, half = c.HS / 2;
    floatX *q = l.save(QV), *v = q + q_width, *kr = l.save(KR), *k = l.save(K);
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(l.rows(), c.C, q_width + v_width));
    linear_forward(kr, x, l.w[WKR], nullptr, linear_shape(l.rows(), c.C, half));
    copy_forward(k, v, tied_half(l));
    if (l.rope) {
        rope_forward(q + half, q + half, l.rope, rope_query(l));
        rope_forward(k + half, kr, l.rope, rope_key(l));
    } else {
        copy_forward(k + half, kr, shared_half(l));
    }
    sdpa_forward(l.save(O), l.save_master(LSE), q, k, v, l.bias, sdpa_shape(l));
    linear_forward(out, l.save(O), l.w[WO], l.w[BO], linear_shape(l.rows(), q_width, c.C));
}

inline void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS, half = c.HS / 2;
    LinearShape in = linear_shape(l.rows(), c.C, q_width + v_width), shared = linear_shape(l.rows(), c.C, half);
    LinearShape out = linear_shape(l.rows(), q_width, c.C);
    const floatX *q = l.save(QV), *v = q + q_width;
    floatX *dq = l.grad(DQV), *dv = dq + q_width, *dkr = l.grad(DKR), *dk = l.grad(DK);
    linear_backward_weight(l.dw[WO], l.dw[BO], dout, l.save(O), out, l.accumulate);
    linear_backward_input(l.grad(DO), dout, l.w[WO], out);
    sdpa_backward(dq, dk, dv, l.dp, l.da, l.grad(DO), l.save(O), l.save_master(LSE), q, l.save(K), v, l.bias, sdpa_shape(l), l.accumulate);
    if (l.rope) {
        rope_backward(dq + half, dq + half, l.rope, rope_query(l));
        rope_backward(dkr, dk + half, l.rope, rope_key(l));                  // dk^R: summed over the groups
    } else {
        copy_backward(dkr, dk + half, shared_half(l), false);
    }
    copy_backward(dv, dk, tied_half(l), true);                               // dV = P^T dO + [first half of dK ; 0]
    linear_backward_weight(l.dw[WQ], l.dw[BQ], dq, x, in, l.accumulate);
    linear_backward_weight(l.dw[WKR], nullptr, dkr, x, shared, l.accumulate);
    linear_backward_input(dx, dq, l.w[WQ], in);
    linear_backward_input(dx, dkr, l.w[WKR], shared, true);
}

// The cache keeps V and the rotated k^R. A score is [first half of q ; 0] . v + (rotated second half of q) . k^R: V is read once, as key
// and value; the zeros cost half of one product's multiplications, which a decoder that waits for memory has to spare.
inline void attention_decode(floatX* out, const floatX* x, const DecodeLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS, half = c.HS / 2;
    const size_t rows = l.rows(), row = size_t(q_width + v_width), HS = size_t(c.HS), q_row = size_t(q_width);
    floatX *q = l.row(NEW_QV), *v = q + q_width, *tied = l.row(NEW_TIED), *kr = l.row(NEW_KR), *o = l.row(NEW_O);
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(rows, c.C, q_width + v_width));
    linear_forward(kr, x, l.w[WKR], nullptr, linear_shape(rows, c.C, half));
    if (l.rope) {
        rope_forward(q + half, q + half, l.rope, {1, l.batch.rows, c.NH, half, row, HS, row, HS, l.batch.position});
        rope_forward(kr, kr, l.rope, {1, l.batch.rows, 1, half, HS / 2, 0, HS / 2, 0, l.batch.position});
    }
    device_zero(tied, rows * q_row * sizeof(floatX));
    copy_forward(tied, q, {rows, c.NH, half, q_row, HS, row, HS});
    cache_append(l.cache[CACHED_V], v, row, c.NKV, c.HS, l.batch);
    cache_append(l.cache[CACHED_KR], kr, HS / 2, 1, half, l.batch);
    DecodeShape shape{.NH = c.NH, .NKV = c.NKV, .d_k = c.HS, .d_v = c.HS, .d_shared = half, .q_row = q_row, .q_head = HS, .shared_row = row,
                      .shared_head = HS, .scale = 1 / std::sqrt(double(c.HS))};
    sdpa_decode(o, l.partial, tied, q + half, l.cache[CACHED_V], l.cache[CACHED_V], l.cache[CACHED_KR], nullptr, l.bias, shape, l.batch);
    linear_forward(out, o, l.w[WO], l.w[BO], linear_shape(rows, q_width, c.C));
}
