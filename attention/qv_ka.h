// QV-Ka: the key is made after the value, from value and context [arXiv:2603.15665].
//   Q = x W_Q + b_Q (NH, HS)     V = x W_V + b_V (NKV, HS)     G = x W_ctx (d_ctx), one vector shared by all heads
//   K_g = [G ; V_g] W_K,g,  W_K,g (HS, d_ctx + HS)       O_h = softmax(s Q_h K_g^T + bias) V_g       y = concat(O_h) W_O + b_O
// Certain: K is made from [context ; value]. Inferred: G is shared by the heads and W_K acts per head (a full-width W_K would
// have more parameters than multi-head attention, against the paper's claim). --qvka-tied shares one W_K among the heads;
// --qvka-dctx sets d_ctx, default 2 HS (the paper's stronger setting); 0: K from V alone.
// G and K have no bias: a constant added to every key adds the same number to all of a query's scores; the softmax ignores it.
// With W_K,g = [A_g ; B_g]: S_h = Q_h A_g^T G^T + Q_h B_g^T V_g^T, QV plus one shared key of width d_ctx, so decoding caches only
// V and G: NKV HS + d_ctx elements per token and layer.
// Under rope the rotation stands between W_K and the query, and nothing can be absorbed. The cache then keeps the
// rotated K and V, and is as large as multi-head attention's (attention_decode).
// RoPE rotates Q and K; V stays. Saved per token: (Q, V) side by side, G, the rotated K, O, the log-sum-exp.
#pragma once
#include <cmath>

#include "attention/attention.h"

enum Weight { WQ, WV, BQ, BV, WK, WO, BO, WCTX };
enum Saved { QV, G, K, O, LSE };
enum Scratch { DQV, DG, DK, DO };
enum Cached { CACHED_V, CACHED_G_OR_K };
enum Decoded { NEW_QV, NEW_G, NEW_K, NEW_Q_ABSORBED, NEW_O };
enum Own { D_CTX, TIED };

inline const VariantOptions ATTENTION_OPTIONS = {
    own_number("qvka-dctx", 1 << 17, "width of the context vector; -1: 2 x head size"),
    own_flag("qvka-tied", "one key matrix for all heads")};

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0) c.NKV = c.NH;
    if (c.own[D_CTX] == AUTO) c.own[D_CTX] = 2 * c.HS;
    ensure_usage(c.NKV >= 1 && c.NH % c.NKV == 0, "--kv-heads %d does not divide --heads %d", c.NKV, c.NH);
}

// Whether decoding can do without K: not under rope.
inline bool absorbs_key(const ModelConfig& c) { return c.pos != Position::rope; }

inline AttentionSpec attention_spec(const ModelConfig& c) {
    int64_t q = int64_t(c.NH) * c.HS, v = int64_t(c.NKV) * c.HS, C = c.C, d_ctx = c.own[D_CTX], HS = c.HS, d_k = d_ctx + HS;
    Init init_key = Init::normal(1 / std::sqrt(double(d_k)));            // 0.02 would leave the logits too flat
    AttentionSpec s;
    s.params = {{"q.weight", {q, C}, init_weight(), true},
                {"v.weight", {v, C}, init_weight(), true, true},
                {"q.bias", {q}, Init::constant(0), false},
                {"v.bias", {v}, Init::constant(0), false, true},
                {"k.weight", c.own[TIED] ? std::vector<int64_t>{HS, d_k} : std::vector<int64_t>{c.NKV, HS, d_k}, init_key, true},
                {"o.weight", {C, q}, init_residual(c), true},
                {"o.bias", {C}, Init::constant(0), false}};
    if (d_ctx > 0) s.params.push_back({"ctx.weight", {d_ctx, C}, init_weight(), true});
    s.saved = {{"qv", size_t(q + v)}, {"g", size_t(d_ctx)}, {"k", size_t(v)}, {"o", size_t(q)}, {"lse", size_t(c.NH), true}};
    s.scratch = {{"dqv", size_t(q + v)}, {"dg", size_t(d_ctx)}, {"dk", size_t(v)}, {"do", size_t(q)}};
    s.d_qk = s.d_v = c.HS;
    s.rope_width = c.pos == Position::rope ? c.HS : 0;
    s.macs_per_token = size_t(C * (2 * q + v + d_ctx) + v * d_k);
    const bool absorbed = absorbs_key(c);
    s.cache = {{"v", c.NKV, c.HS}, absorbed ? CacheSpec{"g", 1, int(d_ctx)} : CacheSpec{"k", c.NKV, c.HS}};
    s.decode = {{"qv", size_t(q + v)}, {"g", size_t(d_ctx)}, {"k", absorbed ? 0 : size_t(v)},
                {"absorbed q", absorbed ? size_t(c.NH * d_k) : 0}, {"o", size_t(q)}};
    if (!absorbed)
        s.cache_note = format(
            "rope stands between W_K and the query: K is kept beside V, "
            "as multi-head attention does; without rope it would be V and G, %lld elements",
            (long long)(v + d_ctx));
    return s;
}

inline SdpaShape sdpa_shape(const AttentionLayer& l) {
    size_t q = size_t(l.c.NH) * l.c.HS, v = size_t(l.c.NKV) * l.c.HS;
    return {l.B, l.T, l.c.NH, l.c.NKV, l.c.HS, l.c.HS, q + v, v, q + v, q};
}
inline RopeShape rope_shape(const AttentionLayer& l, int heads, size_t row) {
    return {l.B, l.T, heads, l.c.HS, row, size_t(l.c.HS), row, size_t(l.c.HS)};
}
// K += G A^T: every head reads the same G; its weights are the first d_ctx columns of W_K
inline LinearShape key_from_context(const AttentionLayer& l) {
    size_t HS = size_t(l.c.HS), d_k = l.c.own[D_CTX] + HS;
    return {l.rows(), l.c.own[D_CTX], l.c.HS, size_t(l.c.own[D_CTX]), d_k, l.c.NKV * HS, l.c.NKV, 0, l.c.own[TIED] ? 0 : HS * d_k, HS};
}
// K_g += V_g B_g^T: each head reads its own V; its weights are the last HS columns of W_K
inline LinearShape key_from_value(const AttentionLayer& l) {
    size_t HS = size_t(l.c.HS), d_k = l.c.own[D_CTX] + HS, row = (l.c.NH + l.c.NKV) * HS;
    return {l.rows(), l.c.HS, l.c.HS, row, d_k, l.c.NKV * HS, l.c.NKV, HS, l.c.own[TIED] ? 0 : HS * d_k, HS};
}

inline void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS;
    floatX *q = l.save(QV), *v = q + q_width, *k = l.save(K);
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(l.rows(), c.C, q_width + v_width));
    linear_forward(k, v, l.w[WK] + c.own[D_CTX], nullptr, key_from_value(l));
    if (c.own[D_CTX] > 0) {
        linear_forward(l.save(G), x, l.w[WCTX], nullptr, linear_shape(l.rows(), c.C, c.own[D_CTX]));
        linear_forward(k, l.save(G), l.w[WK], nullptr, key_from_context(l), true);
    }
    if (l.rope) {
        rope_forward(q, q, l.rope, rope_shape(l, c.NH, q_width + v_width));
        rope_forward(k, k, l.rope, rope_shape(l, c.NKV, v_width));
    }
    sdpa_forward(l.save(O), l.save_master(LSE), q, k, v, l.bias, sdpa_shape(l));
    linear_forward(out, l.save(O), l.w[WO], l.w[BO], linear_shape(l.rows(), q_width, c.C));
}

inline void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS;
    LinearShape in = linear_shape(l.rows(), c.C, q_width + v_width), out = linear_shape(l.rows(), q_width, c.C);
    const floatX *q = l.save(QV), *v = q + q_width;
    floatX *dq = l.grad(DQV), *dv = dq + q_width, *dk = l.grad(DK);
    linear_backward_weight(l.dw[WO], l.dw[BO], dout, l.save(O), out, l.accumulate);
    linear_backward_input(l.grad(DO), dout, l.w[WO], out);
    sdpa_backward(dq, dk, dv, l.dp, l.da, l.grad(DO), l.save(O), l.save_master(LSE), q, l.save(K), v, l.bias, sdpa_shape(l), l.accumulate,
                  l.rope);                                               // dQ, dK: before the rotation, where there is one
    linear_backward_weight(l.dw[WK] + c.own[D_CTX], nullptr, dk, v, key_from_value(l), l.accumulate);
    linear_backward_input(dv, dk, l.w[WK] + c.own[D_CTX], key_from_value(l), true);          // dV = P^T dO + dK_g B_g
    linear_backward_weight(l.dw[WQ], l.dw[BQ], dq, x, in, l.accumulate);
    linear_backward_input(dx, dq, l.w[WQ], in);
    if (c.own[D_CTX] > 0) {
        LinearShape context = linear_shape(l.rows(), c.C, c.own[D_CTX]);
        linear_backward_weight(l.dw[WK], nullptr, dk, l.save(G), key_from_context(l), l.accumulate);
        linear_backward_input(l.grad(DG), dk, l.w[WK], key_from_context(l));                // dG: summed over the heads
        linear_backward_weight(l.dw[WCTX], nullptr, l.grad(DG), x, context, l.accumulate);
        linear_backward_input(dx, l.grad(DG), l.w[WCTX], context, true);
    }
}

// Absorbed: q_h W_K,g = [q_h A_g ; q_h B_g], the queries of G (shared by the heads) and of V_g; K is never made. This
// costs NH HS (d_ctx + HS) multiply-adds per new token, and d_ctx + HS instead of HS per cached token and head.
inline void attention_decode(floatX* out, const floatX* x, const DecodeLayer& l) {
    const ModelConfig& c = l.c;
    const int q_width = c.NH * c.HS, v_width = c.NKV * c.HS, d_k = c.own[D_CTX] + c.HS, group = c.NH / c.NKV;
    const size_t row = size_t(q_width + v_width), HS = size_t(c.HS), wk_head = c.own[TIED] ? 0 : HS * d_k, rows = l.rows();
    floatX *q = l.row(NEW_QV), *v = q + q_width, *g = l.row(NEW_G), *o = l.row(NEW_O);
    DecodeShape shape{.NH = c.NH, .NKV = c.NKV, .d_k = c.HS, .d_v = c.HS, .d_shared = 0, .q_row = row, .q_head = HS,
                      .shared_row = 0, .shared_head = 0, .scale = 1 / std::sqrt(double(c.HS))};
    linear_forward(q, x, l.w[WQ], l.w[BQ], linear_shape(rows, c.C, q_width + v_width));
    if (c.own[D_CTX] > 0) linear_forward(g, x, l.w[WCTX], nullptr, linear_shape(rows, c.C, c.own[D_CTX]));
    cache_append(l.cache[CACHED_V], v, row, c.NKV, c.HS, l.batch);
    if (absorbs_key(c)) {
        floatX* absorbed = l.row(NEW_Q_ABSORBED);            // (rows, NH, [d_ctx ; HS])
        for (int j = 0; j < group; j++)                      // query head j of every group
            linear_rows_absorb(absorbed + j * d_k, q + j * c.HS, l.w[WK],
                               {.rows = rows, .in = d_k, .out = c.HS, .ld_in = size_t(c.NH) * d_k, .ld_w = size_t(d_k),
                                .ld_out = row, .batch = c.NKV, .batch_x = size_t(group) * d_k, .batch_w = wk_head,
                                .batch_out = group * HS});
        cache_append(l.cache[CACHED_G_OR_K], g, size_t(c.own[D_CTX]), 1, c.own[D_CTX], l.batch);
        shape.d_shared = c.own[D_CTX];
        shape.q_row = shape.shared_row = size_t(c.NH) * d_k;
        shape.q_head = shape.shared_head = size_t(d_k);
        sdpa_decode(o, l.partial, absorbed + c.own[D_CTX], absorbed, l.cache[CACHED_V], l.cache[CACHED_V],
                    l.cache[CACHED_G_OR_K], nullptr, l.bias, shape, l.batch);
    } else {
        floatX* k = l.row(NEW_K);
        LinearShape from_value{.rows = rows, .in = c.HS, .out = c.HS, .ld_in = row, .ld_w = size_t(d_k),
                               .ld_out = size_t(v_width), .batch = c.NKV, .batch_x = HS, .batch_w = wk_head,
                               .batch_out = HS};
        LinearShape from_context = from_value;
        from_context.in = c.own[D_CTX];
        from_context.ld_in = size_t(c.own[D_CTX]);
        from_context.batch_x = 0;
        linear_forward(k, v, l.w[WK] + c.own[D_CTX], nullptr, from_value);
        if (c.own[D_CTX] > 0) linear_forward(k, g, l.w[WK], nullptr, from_context, true);
        rope_forward(q, q, l.rope, {1, l.batch.rows, c.NH, c.HS, row, HS, row, HS, l.batch.position});
        rope_forward(k, k, l.rope, {1, l.batch.rows, c.NKV, c.HS, size_t(v_width), HS, size_t(v_width), HS, l.batch.position});
        cache_append(l.cache[CACHED_G_OR_K], k, size_t(v_width), c.NKV, c.HS, l.batch);
        sdpa_decode(o, l.partial, q, nullptr, l.cache[CACHED_G_OR_K], l.cache[CACHED_V], nullptr, nullptr, l.bias, shape, l.batch);
    }
    linear_forward(out, o, l.w[WO], l.w[BO], linear_shape(rows, q_width, c.C));
}
