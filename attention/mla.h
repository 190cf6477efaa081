// MLA: multi-head latent attention [DeepSeek-V2, arXiv:2405.04434, sec. 2.1 and eqs. 37-47].
//   c_q = rms(x W_DQ) (d_cq)     q^C = c_q W_UQ (NH, HS)    q^R = rope(c_q W_QR) (NH, d_r)
//   c   = rms(x W_DKV) (d_c)     k^C = c W_UK (NH, HS)      v = c W_UV (NH, HS)      k^R = rope(x W_KR) (d_r), one for all heads
//   S_h = (q^C_h . k^C_h + q^R_h . k^R) / sqrt(HS + d_r) + bias       O_h = softmax(S_h) v_h       y = concat(O_h) W_O + b_O
// W_UQ and W_QR are one tensor, head by head [HS content rows ; d_r rotary rows], as in DeepSeek's released code. The heads of
// K are assembled in place: a batched product writes k^C with stride HS + d_r, rope writes k^R beside it into every head.
// --mla-dcq 0: no query compression, Q = x W_Q. --mla-dr 0 (not with --pos rope): the plain low-rank form, no rotation.
// The decoupled rotation is there whatever --pos is. Cache: d_c + d_r elements per token and layer (c and k^R).
// The default sizes follow C, so that they compress at every width: d_c = min(C / 2, 4 HS), d_r = HS / 2, and d_cq =
// 0.3 C from C = 2048 on, below that no query compression. At C = 5120, HS = 128 these are DeepSeek-V2's 512, 64, 1536
// [sec. 3.1.2]. At small widths C / 2 is best [arXiv:2506.09342], and compressing the query costs loss and parameters
// (docs/LOG.md).
// Saved per token: the down-projections, c_q, c, Q, K, V, O, the norms' rstd, the log-sum-exp.
#pragma once
#include <algorithm>
#include <cmath>

#include "attention/attention.h"

enum Weight { WDQ, WDKV, WKR, GAIN_Q, GAIN_KV, WUQ, WUK, WUV, WO, BO };
enum Saved { DOWN, CQ, CKV, Q, K, V, O, RSTD_Q, RSTD_KV, LSE };
enum Scratch { DDOWN, DCQ, DCKV, DQ, DK, DV, DO };
enum Cached { CACHED_C, CACHED_KR };
enum Decoded { NEW_DOWN, NEW_CQ, NEW_CKV, NEW_Q, NEW_Q_ABSORBED, NEW_MIXED, NEW_O, NEW_RSTD };
enum Own { D_C, D_R, D_CQ };

inline const VariantOptions ATTENTION_OPTIONS = {
    own_number("mla-dc", 1 << 17, "latent width; -1: the smaller of width / 2, 4 x head size"),
    own_number("mla-dr", 1 << 14, "rotary width; -1: head size / 2; 0: none"),
    own_number("mla-dcq", 1 << 17, "query latent; 0: no query compression; -1: that below width 2048, else 0.3 x width")};

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0) c.NKV = c.NH;
    ensure_usage(c.NKV == c.NH, "--kv-heads %d with ATTN=mla: its keys and values come from the latent, one per head; leave it out", c.NKV);
    if (c.own[D_C] <= 0) c.own[D_C] = std::max(1, std::min(c.C / 2, 4 * c.HS));              // (older runs wrote 0 for it)
    if (c.own[D_R] == AUTO) c.own[D_R] = c.HS / 4 * 2;
    if (c.own[D_CQ] == AUTO) c.own[D_CQ] = c.C < 2048 ? 0 : 3 * c.C / 10 / 64 * 64;
    ensure_usage(c.own[D_R] % 2 == 0, "--mla-dr %d is odd; the rotation works on pairs", c.own[D_R]);
    ensure_usage(c.own[D_R] > 0 || c.pos != Position::rope,
                 "--mla-dr 0 with --pos rope: MLA's rotation lives in its d_r part; give --mla-dr or another --pos");
}

inline int query_width(const ModelConfig& c) { return c.NH * (c.HS + c.own[D_R]); }
inline int down_width(const ModelConfig& c) { return c.own[D_CQ] + c.own[D_C] + c.own[D_R]; }

// A tensor that a setting leaves out keeps its place in the table, with no rows, so that the enums above stay right.
inline AttentionSpec attention_spec(const ModelConfig& c) {
    int64_t C = c.C, dcq = c.own[D_CQ], dc = c.own[D_C], dr = c.own[D_R], heads = int64_t(c.NH) * c.HS, q = query_width(c);
    auto up = [&](int64_t latent) { return Init::normal(0.02 * std::sqrt(double(C) / double(latent))); };   // as if from width C
    AttentionSpec s;
    s.params = {{"dq.weight", {dcq, C}, init_weight(), true},
                {"dkv.weight", {dc, C}, init_weight(), true, true},
                {"kr.weight", {dr, C}, init_weight(), true, true},
                {"q_norm.weight", {dcq}, Init::constant(1), false},
                {"kv_norm.weight", {dc}, Init::constant(1), false},
                {dcq ? "uq.weight" : "q.weight", {q, dcq ? dcq : C}, dcq ? up(dcq) : init_weight(), true},
                {"uk.weight", {heads, dc}, up(dc), true},
                {"uv.weight", {heads, dc}, up(dc), true},
                {"o.weight", {C, heads}, init_residual(c), true},
                {"o.bias", {C}, Init::constant(0), false}};
    s.saved = {{"down", size_t(down_width(c))}, {"cq", size_t(dcq)}, {"ckv", size_t(dc)}, {"q", size_t(q)},
               {"k", size_t(q)}, {"v", size_t(heads)}, {"o", size_t(heads)}, {"rstd_q", 1, true}, {"rstd_kv", 1, true},
               {"lse", size_t(c.NH), true}};
    s.scratch = {{"ddown", size_t(down_width(c))}, {"dcq", size_t(dcq)}, {"dckv", size_t(dc)}, {"dq", size_t(q)}, {"dk", size_t(q)},
                 {"dv", size_t(heads)}, {"do", size_t(heads)}};
    s.d_qk = c.HS + c.own[D_R];
    s.d_v = c.HS;
    s.rope_width = c.own[D_R];
    s.macs_per_token = size_t(C * down_width(c) + q * (dcq ? dcq : C) + 2 * dc * heads + heads * C);
    s.cache = {{"c", 1, int(dc)}, {"kr", 1, int(dr)}};       // c normed, k^R rotated
    s.decode = {{"down", size_t(down_width(c))}, {"cq", size_t(dcq)}, {"ckv", size_t(dc)}, {"q", size_t(q)},
                {"absorbed q", size_t(c.NH * dc)}, {"mixed c", size_t(c.NH * dc)}, {"o", size_t(heads)},
                {"rstd", 1, true}};
    s.d_v_decode = int(dc);
    return s;
}

inline SdpaShape sdpa_shape(const AttentionLayer& l) {
    size_t q = size_t(query_width(l.c)), v = size_t(l.c.NH) * l.c.HS;
    return {l.B, l.T, l.c.NH, l.c.NH, l.c.HS + l.c.own[D_R], l.c.HS, q, q, v, v};
}
// c (shared by the heads) -> the content part of every head of K
inline LinearShape content_key(const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    size_t dc = size_t(c.own[D_C]), d_qk = size_t(c.HS + c.own[D_R]);
    return {l.rows(), c.own[D_C], c.HS, dc, dc, size_t(query_width(c)), c.NH, 0, c.HS * dc, d_qk};
}
// q^R: the last d_r of each head of Q, in place.   k^R: one vector in `down` -> the last d_r of every head of K.
inline RopeShape rope_query(const AttentionLayer& l) {
    size_t row = size_t(query_width(l.c)), head = size_t(l.c.HS + l.c.own[D_R]);
    return {l.B, l.T, l.c.NH, l.c.own[D_R], row, head, row, head};
}
inline RopeShape rope_key(const AttentionLayer& l) {
    return {l.B, l.T, l.c.NH, l.c.own[D_R], size_t(query_width(l.c)), size_t(l.c.HS + l.c.own[D_R]), size_t(down_width(l.c)), 0};
}

inline void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const size_t rows = l.rows(), width = size_t(down_width(c));
    floatX *down = l.save(DOWN), *q = l.save(Q), *k = l.save(K);
    linear_forward(down, x, l.w[WDQ], nullptr, linear_shape(rows, c.C, down_width(c)));     // x W_DQ, x W_DKV, x W_KR at once
    if (c.own[D_CQ] > 0) {
        rmsnorm_forward(l.save(CQ), l.save_master(RSTD_Q), down, l.w[GAIN_Q], rows, c.own[D_CQ], width);
        linear_forward(q, l.save(CQ), l.w[WUQ], nullptr, linear_shape(rows, c.own[D_CQ], query_width(c)));
    } else {
        linear_forward(q, x, l.w[WUQ], nullptr, linear_shape(rows, c.C, query_width(c)));
    }
    rmsnorm_forward(l.save(CKV), l.save_master(RSTD_KV), down + c.own[D_CQ], l.w[GAIN_KV], rows, c.own[D_C], width);
    linear_forward(k, l.save(CKV), l.w[WUK], nullptr, content_key(l));
    linear_forward(l.save(V), l.save(CKV), l.w[WUV], nullptr, linear_shape(rows, c.own[D_C], c.NH * c.HS));
    if (l.rope) {
        rope_forward(q + c.HS, q + c.HS, l.rope, rope_query(l));
        rope_forward(k + c.HS, down + c.own[D_CQ] + c.own[D_C], l.rope, rope_key(l));
    }
    sdpa_forward(l.save(O), l.save_master(LSE), q, k, l.save(V), l.bias, sdpa_shape(l));
    linear_forward(out, l.save(O), l.w[WO], l.w[BO], linear_shape(rows, c.NH * c.HS, c.C));
}

inline void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l) {
    const ModelConfig& c = l.c;
    const size_t rows = l.rows(), width = size_t(down_width(c));
    LinearShape out = linear_shape(rows, c.NH * c.HS, c.C), down_shape = linear_shape(rows, c.C, down_width(c));
    LinearShape value = linear_shape(rows, c.own[D_C], c.NH * c.HS);
    floatX *ddown = l.grad(DDOWN), *dq = l.grad(DQ), *dk = l.grad(DK), *dckv = l.grad(DCKV);
    linear_backward_weight(l.dw[WO], l.dw[BO], dout, l.save(O), out, l.accumulate);
    linear_backward_input(l.grad(DO), dout, l.w[WO], out);
    sdpa_backward(dq, dk, l.grad(DV), l.dp, l.da, l.grad(DO), l.save(O), l.save_master(LSE), l.save(Q), l.save(K), l.save(V), l.bias,
                  sdpa_shape(l), l.accumulate);
    if (l.rope) {
        rope_backward(dq + c.HS, dq + c.HS, l.rope, rope_query(l));
        rope_backward(ddown + c.own[D_CQ] + c.own[D_C], dk + c.HS, l.rope, rope_key(l));        // dk^R: summed over the heads
    }
    linear_backward_weight(l.dw[WUK], nullptr, dk, l.save(CKV), content_key(l), l.accumulate);
    linear_backward_input(dckv, dk, l.w[WUK], content_key(l));
    linear_backward_weight(l.dw[WUV], nullptr, l.grad(DV), l.save(CKV), value, l.accumulate);
    linear_backward_input(dckv, l.grad(DV), l.w[WUV], value, true);
    rmsnorm_backward(ddown + c.own[D_CQ], l.dw[GAIN_KV], dckv, l.save(DOWN) + c.own[D_CQ], l.w[GAIN_KV],
                     l.save_master(RSTD_KV), rows, c.own[D_C], width, l.accumulate);
    LinearShape query = linear_shape(rows, c.own[D_CQ] > 0 ? c.own[D_CQ] : c.C, query_width(c));
    const floatX* query_input = c.own[D_CQ] > 0 ? l.save(CQ) : x;
    linear_backward_weight(l.dw[WUQ], nullptr, dq, query_input, query, l.accumulate);
    if (c.own[D_CQ] > 0) {
        linear_backward_input(l.grad(DCQ), dq, l.w[WUQ], query);
        rmsnorm_backward(ddown, l.dw[GAIN_Q], l.grad(DCQ), l.save(DOWN), l.w[GAIN_Q], l.save_master(RSTD_Q), rows,
                         c.own[D_CQ], width, l.accumulate);
    }
    linear_backward_weight(l.dw[WDQ], nullptr, ddown, x, down_shape, l.accumulate);
    linear_backward_input(dx, ddown, l.w[WDQ], down_shape);
    if (c.own[D_CQ] == 0) linear_backward_input(dx, dq, l.w[WUQ], query, true);
}

// Absorbed [DeepSeek-V2, sec. 2.1.3]: q^C_h . k^C_h = q^C_h . (W_UK,h c) = (W_UK,h^T q^C_h) . c
// and sum_j p_j v_hj = W_UV,h (sum_j p_j c_j). So all heads read one cached vector c as key and as value, and k^R
// with it; K and V are never made. This costs 2 NH HS d_c multiply-adds per new token (what W_UK and W_UV cost
// anyway) and 2 NH d_c per cached token, d_c / HS times as many as multi-head attention, for a cache of d_c + d_r.
inline void attention_decode(floatX* out, const floatX* x, const DecodeLayer& l) {
    const ModelConfig& c = l.c;
    const size_t rows = l.rows(), width = size_t(down_width(c)), dc = size_t(c.own[D_C]),
                 head = size_t(c.HS + c.own[D_R]), q_row = size_t(query_width(c));
    floatX *down = l.row(NEW_DOWN), *q = l.row(NEW_Q), *absorbed = l.row(NEW_Q_ABSORBED), *mixed = l.row(NEW_MIXED), *o = l.row(NEW_O);
    floatX* kr = down + c.own[D_CQ] + c.own[D_C];
    linear_forward(down, x, l.w[WDQ], nullptr, linear_shape(rows, c.C, down_width(c)));
    if (c.own[D_CQ] > 0) {
        rmsnorm_forward(l.row(NEW_CQ), l.row_master(NEW_RSTD), down, l.w[GAIN_Q], rows, c.own[D_CQ], width);
        linear_forward(q, l.row(NEW_CQ), l.w[WUQ], nullptr, linear_shape(rows, c.own[D_CQ], query_width(c)));
    } else {
        linear_forward(q, x, l.w[WUQ], nullptr, linear_shape(rows, c.C, query_width(c)));
    }
    rmsnorm_forward(l.row(NEW_CKV), l.row_master(NEW_RSTD), down + c.own[D_CQ], l.w[GAIN_KV], rows, c.own[D_C], width);
    if (l.rope) {
        rope_forward(q + c.HS, q + c.HS, l.rope, {1, l.batch.rows, c.NH, c.own[D_R], q_row, head, q_row, head, l.batch.position});
        rope_forward(kr, kr, l.rope, {1, l.batch.rows, 1, c.own[D_R], width, 0, width, 0, l.batch.position});
        cache_append(l.cache[CACHED_KR], kr, width, 1, c.own[D_R], l.batch);
    }
    cache_append(l.cache[CACHED_C], l.row(NEW_CKV), dc, 1, c.own[D_C], l.batch);
    linear_rows_absorb(absorbed, q, l.w[WUK],
                       {.rows = rows, .in = c.own[D_C], .out = c.HS, .ld_in = c.NH * dc, .ld_w = dc, .ld_out = q_row,
                        .batch = c.NH, .batch_x = dc, .batch_w = c.HS * dc, .batch_out = head});
    DecodeShape shape{.NH = c.NH, .NKV = 1, .d_k = c.own[D_C], .d_v = c.own[D_C], .d_shared = c.own[D_R],
                      .q_row = c.NH * dc, .q_head = dc, .shared_row = q_row, .shared_head = head,
                      .scale = 1 / std::sqrt(double(c.HS + c.own[D_R]))};
    sdpa_decode(mixed, l.partial, absorbed, q + c.HS, l.cache[CACHED_C], l.cache[CACHED_C], l.cache[CACHED_KR], nullptr,
                l.bias, shape, l.batch);
    linear_forward(o, mixed, l.w[WUV], nullptr,
                   {.rows = rows, .in = c.own[D_C], .out = c.HS, .ld_in = c.NH * dc, .ld_w = dc,
                    .ld_out = size_t(c.NH * c.HS), .batch = c.NH, .batch_x = dc, .batch_w = c.HS * dc,
                    .batch_out = size_t(c.HS)});
    linear_forward(out, o, l.w[WO], l.w[BO], linear_shape(rows, c.NH * c.HS, c.C));
}
