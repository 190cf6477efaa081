// The operations of layers/ and attention/sdpa.h under their own names, with every stored result rounded to bf16 while
// `rounding` is set: model/gpt.h and the variant, included after this file, then compute what a plain bf16 implementation computes
// (fp32 arithmetic, bf16 weights and activations, master weights and gradients in fp32). The bf16 kernels are measured against
// it in test_step.cpp; with `rounding` off the same code is the fp32 truth. Only for step_reference.cpp, on the CPU in fp32.
#pragma once
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "attention/sdpa.h"
#include "layers/adamw.h"
#include "layers/copy.h"
#include "layers/crossentropy.h"
#include "layers/embedding.h"
#include "layers/layernorm.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "layers/swiglu.h"
#include "runtime/device/bf16.h"
#include "runtime/device/types.h"

namespace rounded {
inline bool rounding = false;

// `width` elements of each of `rows` rows. Rounding twice changes nothing, so that a result may be covered generously.
inline void round(floatX* p, size_t rows, size_t stride, size_t width) {
    for (size_t r = 0; rounding && r < rows; r++)
        for (size_t i = 0; i < width; i++) p[r * stride + i] = float(bf16(p[r * stride + i]));
}

// ---- linear
inline void round_heads(floatX* p, size_t rows, size_t stride, int width, int batch, size_t head) {
    for (int h = 0; h < batch; h++) round(p + size_t(h) * head, rows, stride, size_t(width));
}
inline void linear_forward(floatX* y, const floatX* x, const floatX* w, const floatX* b, const LinearShape& s, bool accumulate = false,
                           floatX* gelu_out = nullptr) {
    ::linear_forward(y, x, w, b, s, accumulate, gelu_out);
    round_heads(y, s.rows, s.ld_out, s.out, s.batch, s.batch_out);
    if (gelu_out) round_heads(gelu_out, s.rows, s.ld_out, s.out, s.batch, s.batch_out);
}
inline void linear_backward_input(floatX* dx, const floatX* dy, const floatX* w, const LinearShape& s, bool accumulate = false,
                                  const floatX* pre_gelu = nullptr) {
    ::linear_backward_input(dx, dy, w, s, accumulate, pre_gelu);
    round_heads(dx, s.rows, s.ld_in, s.in, s.batch, s.batch_x);
}

// ---- norms
inline void layernorm_forward(floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* w, const floatX* b,
                              size_t rows, int C) {
    ::layernorm_forward(y, mean, rstd, x, w, b, rows, C);
    round(y, 1, 0, rows * size_t(C));
}
inline void residual_layernorm_forward(floatX* sum, floatX* y, floatM* mean, floatM* rstd, const floatX* x,
                                       const floatX* branch, const floatX* w, const floatX* b, size_t rows, int C) {
    ::residual_layernorm_forward(sum, y, mean, rstd, x, branch, w, b, rows, C);
    round(sum, 1, 0, rows * size_t(C));
    layernorm_forward(y, mean, rstd, sum, w, b, rows, C);
}
inline void layernorm_backward(floatX* dx, floatM* dw, floatM* db, const floatX* dy, const floatX* x, const floatX* w, const floatM* mean,
                               const floatM* rstd, size_t rows, int C, bool add_to_dx, bool accumulate) {
    ::layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, rows, C, add_to_dx, accumulate);
    round(dx, 1, 0, rows * size_t(C));
}
inline void rmsnorm_forward(floatX* y, floatM* rstd, const floatX* x, const floatX* w, size_t rows, int C, size_t ld_x) {
    ::rmsnorm_forward(y, rstd, x, w, rows, C, ld_x);
    round(y, 1, 0, rows * size_t(C));
}
inline void residual_rmsnorm_forward(floatX* sum, floatX* y, floatM* rstd, const floatX* x, const floatX* branch,
                                     const floatX* w, size_t rows, int C) {
    ::residual_rmsnorm_forward(sum, y, rstd, x, branch, w, rows, C);
    round(sum, 1, 0, rows * size_t(C));
    rmsnorm_forward(y, rstd, sum, w, rows, C, size_t(C));
}
inline void rmsnorm_backward(floatX* dx, floatM* dw, const floatX* dy, const floatX* x, const floatX* w,
                             const floatM* rstd, size_t rows, int C, size_t ld_x, bool accumulate,
                             bool add_to_dx = false) {
    ::rmsnorm_backward(dx, dw, dy, x, w, rstd, rows, C, ld_x, accumulate, add_to_dx);
    round(dx, rows, ld_x, size_t(C));
}

// ---- elementwise
inline void swiglu_forward(floatX* y, const floatX* gate_up, size_t rows, int F) {
    ::swiglu_forward(y, gate_up, rows, F);
    round(y, 1, 0, rows * size_t(F));
}
inline void swiglu_backward(floatX* dgate_up, const floatX* dy, const floatX* gate_up, size_t rows, int F) {
    ::swiglu_backward(dgate_up, dy, gate_up, rows, F);
    round(dgate_up, 1, 0, 2 * rows * size_t(F));
}
// (a copy rounds nothing; its backward adds)
inline void copy_backward(floatX* din, const floatX* dout, const CopyShape& s, bool accumulate) {
    ::copy_backward(din, dout, s, accumulate);
    for (int h = 0; h < s.heads; h++) round(din + size_t(h) * s.in_head, s.rows, s.in_row, size_t(s.d));
}

// ---- positions, embedding, loss
inline void rope_forward(floatX* out, const floatX* in, const floatM* table, const RopeShape& s, bool inverse = false) {
    ::rope_forward(out, in, table, s, inverse);
    for (int h = 0; h < s.heads; h++) round(out + size_t(h) * s.out_head, size_t(s.B) * s.T, s.out_row, size_t(s.d));
}
inline void rope_backward(floatX* din, const floatX* dout, const floatM* table, const RopeShape& s,
                          bool accumulate = false, bool inverse = false) {
    ::rope_backward(din, dout, table, s, accumulate, inverse);
    for (int h = 0; h < s.heads; h++) round(din + size_t(h) * s.in_head, size_t(s.B) * s.T, s.in_row, size_t(s.d));
}
inline void embedding_forward(floatX* x, const int* tokens, const floatX* wte, const floatX* pos, int B, int T, int C) {
    ::embedding_forward(x, tokens, wte, pos, B, T, C);
    round(x, 1, 0, size_t(B) * T * C);
}
inline void crossentropy_forward_backward(floatM* losses, floatX* logits, const int* targets, size_t rows, int V, int Vp, floatM scale) {
    ::crossentropy_forward_backward(losses, logits, targets, rows, V, Vp, scale);
    round(logits, 1, 0, rows * size_t(Vp));
}

// ---- attention as in a textbook: S, P, dP and dS are matrices that are stored, and so rounded, between the operations.
// D = rowsum(dO * O) from the rounded O, as in sdpa.h's definition: its error is common to a row and the largest part of dp's and da's.
inline float stored(float x) { return float(bf16(x)); }
inline float bias_of(const PositionBias& bias, int h, int distance) {
    if (bias.kind == BiasKind::alibi) return -bias.slope[h] * float(distance);
    return bias.kind == BiasKind::power ? -bias.p[h] * std::log1p(bias.a[h] * float(distance)) : 0.0f;
}
inline float dot(const floatX* a, const floatX* b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}
// Row i of S, then of P: (i + 1) numbers. Returns the log-sum-exp.
inline float probabilities(std::vector<float>& P, const floatX* q, const floatX* k, size_t k_row, int i, int h,
                           const PositionBias& bias, int d) {
    float top = -INFINITY, sum = 0;
    for (int j = 0; j <= i; j++)
        top = std::max(top, P[size_t(j)] = stored(dot(q, k + size_t(j) * k_row, d) / std::sqrt(float(d)) +
                                                  bias_of(bias, h, i - j)));
    for (int j = 0; j <= i; j++) sum += std::exp(P[size_t(j)] - top);
    for (int j = 0; j <= i; j++) P[size_t(j)] = stored(std::exp(P[size_t(j)] - top) / sum);
    return top + std::log(sum);
}
inline RopeShape heads_of_output(const SdpaShape& s) {
    const size_t d = size_t(s.d_v);
    return {s.B, s.T, s.NH, s.d_v, s.o_row, d, s.o_row, d};
}
inline void sdpa_forward(floatX* o, floatM* lse, const floatX* q, const floatX* k, const floatX* v,
                         const PositionBias& bias, const SdpaShape& s, const floatM* o_rope = nullptr) {
    if (!rounding) return ::sdpa_forward(o, lse, q, k, v, bias, s, o_rope);
    std::vector<float> P(size_t(s.T));
    for (int b = 0; b < s.B; b++)
        for (int h = 0; h < s.NH; h++)
            for (int i = 0; i < s.T; i++) {
                const size_t first = size_t(b) * s.T, row = first + i, kv = size_t(h) * s.NKV / s.NH;
                lse[(size_t(b) * s.NH + h) * s.T + i] = probabilities(
                    P, q + row * s.q_row + h * s.d_qk, k + first * s.k_row + kv * s.d_qk, s.k_row, i, h, bias, s.d_qk);
                for (int x = 0; x < s.d_v; x++) {
                    float sum = 0;
                    for (int j = 0; j <= i; j++) sum += P[size_t(j)] * v[(first + j) * s.v_row + kv * s.d_v + x];
                    o[row * s.o_row + h * s.d_v + x] = stored(sum);
                }
            }
    if (o_rope) rounded::rope_forward(o, o, o_rope, heads_of_output(s), true);
}
inline void sdpa_backward(floatX* dq, floatX* dk, floatX* dv, floatM* dp, floatM* da, floatX* dout,
                          floatX* o, const floatM* lse, const floatX* q, const floatX* k, const floatX* v,
                          const PositionBias& bias, const SdpaShape& s, bool accumulate,
                          const floatM* rope = nullptr, const floatM* o_rope = nullptr) {
    if (!rounding) return ::sdpa_backward(dq, dk, dv, dp, da, dout, o, lse, q, k, v, bias, s, accumulate, rope, o_rope);
    if (o_rope)
        for (floatX* rows : {o, dout}) rounded::rope_forward(rows, rows, o_rope, heads_of_output(s));
    const float scale = 1 / std::sqrt(float(s.d_qk));
    std::vector<float> P(size_t(s.T)), dP(size_t(s.T));
    if (bias.kind == BiasKind::power && !accumulate) for (int h = 0; h < s.NH; h++) dp[h] = da[h] = 0;
    for (int b = 0; b < s.B; b++)
        for (int kv = 0; kv < s.NKV; kv++) {
            std::vector<float> dk_sum(size_t(s.T) * s.d_qk), dv_sum(size_t(s.T) * s.d_v);
            for (int h = kv * (s.NH / s.NKV); h < (kv + 1) * (s.NH / s.NKV); h++)
                for (int i = 0; i < s.T; i++) {
                    const size_t first = size_t(b) * s.T, row = first + i;
                    const floatX *qi = q + row * s.q_row + h * s.d_qk, *ks = k + first * s.k_row + kv * s.d_qk,
                                 *vs = v + first * s.v_row + kv * s.d_v;
                    const floatX* doi = dout + row * s.o_row + h * s.d_v;
                    probabilities(P, qi, ks, s.k_row, i, h, bias, s.d_qk);
                    for (int j = 0; j <= i; j++) dP[size_t(j)] = stored(dot(doi, vs + size_t(j) * s.v_row, s.d_v));
                    const float D = dot(doi, o + row * s.o_row + h * s.d_v, s.d_v);
                    std::vector<float> dq_sum(size_t(s.d_qk));
                    for (int j = 0; j <= i; j++) {
                        const float g = stored(P[size_t(j)] * (dP[size_t(j)] - D)), distance = float(i - j);
                        if (bias.kind == BiasKind::power) {
                            dp[h] -= g * std::log1p(bias.a[h] * distance);
                            da[h] -= g * bias.p[h] * distance / (1 + bias.a[h] * distance);
                        }
                        for (int x = 0; x < s.d_qk; x++) {
                            dq_sum[size_t(x)] += scale * g * ks[size_t(j) * s.k_row + x];
                            dk_sum[size_t(j) * s.d_qk + x] += scale * g * qi[x];
                        }
                        for (int x = 0; x < s.d_v; x++) dv_sum[size_t(j) * s.d_v + x] += P[size_t(j)] * doi[x];
                    }
                    for (int x = 0; x < s.d_qk; x++) dq[row * s.q_row + h * s.d_qk + x] = stored(dq_sum[size_t(x)]);
                }
            for (int t = 0; t < s.T; t++) {
                const size_t row = size_t(b) * s.T + t;
                const float* k_sum = &dk_sum[size_t(t) * s.d_qk];
                for (int x = 0; x < s.d_v; x++)
                    dv[row * s.v_row + kv * s.d_v + x] =
                        stored(dv_sum[size_t(t) * s.d_v + x] + (dk == dv ? k_sum[x] : 0.0f));
                for (int x = 0; x < s.d_qk && dk != dv; x++) dk[row * s.k_row + kv * s.d_qk + x] = stored(k_sum[x]);
            }
        }
    if (!rope) return;
    const size_t d = size_t(s.d_qk);
    rope_backward(dq, dq, rope, {s.B, s.T, s.NH, s.d_qk, s.q_row, d, s.q_row, d});
    rope_backward(dk, dk, rope, {s.B, s.T, s.NKV, s.d_qk, s.k_row, d, s.k_row, d});
}

// ---- the update works on fp32 master weights, as it does in bf16 builds; the model reads them rounded
inline std::map<const floatX*, std::vector<floatM>> masters;
inline void adamw_update(floatX* weights, floatM* master, floatM* m, floatM* v, const floatM* grad, size_t n,
                         const floatM* norm, const AdamW& a) {
    // (an empty tensor shares its address with the next)
    if (!rounding || n == 0) return ::adamw_update(weights, master, m, v, grad, n, norm, a);
    std::vector<floatM>& own = masters.try_emplace(weights, weights, weights + n).first->second;
    ::adamw_update(own.data(), nullptr, m, v, grad, n, norm, a);
    for (size_t i = 0; i < n; i++) weights[i] = own[i];
    round(weights, 1, 0, n);
}
}  // namespace rounded

#define linear_forward rounded::linear_forward
#define linear_backward_input rounded::linear_backward_input
#define layernorm_forward rounded::layernorm_forward
#define residual_layernorm_forward rounded::residual_layernorm_forward
#define layernorm_backward rounded::layernorm_backward
#define rmsnorm_forward rounded::rmsnorm_forward
#define rmsnorm_backward rounded::rmsnorm_backward
#define residual_rmsnorm_forward rounded::residual_rmsnorm_forward
#define swiglu_forward rounded::swiglu_forward
#define swiglu_backward rounded::swiglu_backward
#define copy_backward rounded::copy_backward
#define rope_forward rounded::rope_forward
#define rope_backward rounded::rope_backward
#define embedding_forward rounded::embedding_forward
#define crossentropy_forward_backward rounded::crossentropy_forward_backward
#define sdpa_forward rounded::sdpa_forward
#define sdpa_backward rounded::sdpa_backward
#define adamw_update rounded::adamw_update
