// Causal attention as in a textbook: loops over sequences b, heads h, queries i and keys j. `make SDPA=naive` builds
// the trainer with it. It is the first rung of the ladder in docs/tour.md (then sdpa.cpp: panels; sdpa_simt.cuh: tiles
// with an online softmax; sdpa_forward.cuh: tensor cores), and the tests check the other forms against it. See sdpa.h
// for the equations. Not for: speed (20 to 50 times slower than sdpa.cpp).
//
// S, P, dP and dS exist one row at a time, in floatM; what is stored is floatX.
#include "attention/sdpa.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace {
// sum_c a_c b_c
floatM dot(const floatX* a, const floatX* b, int n) {
    floatM sum = 0;
    for (int c = 0; c < n; c++) sum += floatM(a[c]) * floatM(b[c]);
    return sum;
}

// What is added to the score of a key `distance` positions back.
floatM bias_at(const PositionBias& bias, int h, int distance) {
    if (bias.kind == BiasKind::alibi) return -bias.slope[h] * floatM(distance);
    if (bias.kind == BiasKind::power) return -floatM(bias.p[h]) * std::log(1 + floatM(bias.a[h]) * floatM(distance));
    return 0;
}

// Where head h of position (b, t) begins in a tensor whose rows are `row` apart and whose heads have d elements.
size_t at(const SdpaShape& s, int b, int t, size_t row, int h, int d) { return (size_t(b) * s.T + t) * row + size_t(h) * d; }
}  // namespace

void sdpa_forward(floatX* o, floatM* lse, const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s,
                  const floatM* o_rope) {
    const floatM scale = floatM(1 / std::sqrt(double(s.d_qk)));
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (int b = 0; b < s.B; b++)
        for (int h = 0; h < s.NH; h++) {
            const int kv = h / (s.NH / s.NKV);               // the key/value head that query head h reads
            std::vector<floatM> p(size_t(s.T)), out(size_t(s.d_v));
            for (int i = 0; i < s.T; i++) {
                const floatX* q_i = q + at(s, b, i, s.q_row, h, s.d_qk);
                // s_ij = scale q_i . k_j + bias(i - j), for the keys up to the query itself
                floatM top = -std::numeric_limits<floatM>::infinity();
                for (int j = 0; j <= i; j++) {
                    p[j] = scale * dot(q_i, k + at(s, b, j, s.k_row, kv, s.d_qk), s.d_qk) + bias_at(bias, h, i - j);
                    top = std::max(top, p[j]);
                }
                // p_ij = exp(s_ij) / sum_j exp(s_ij), the largest s taken out of numerator and denominator so that nothing overflows
                floatM sum = 0;
                for (int j = 0; j <= i; j++) sum += p[j] = std::exp(p[j] - top);
                for (int j = 0; j <= i; j++) p[j] /= sum;
                lse[(size_t(b) * s.NH + h) * s.T + i] = top + std::log(sum);
                // o_i = sum_j p_ij v_j
                std::fill(out.begin(), out.end(), floatM(0));
                for (int j = 0; j <= i; j++) {
                    const floatX* v_j = v + at(s, b, j, s.v_row, kv, s.d_v);
                    for (int c = 0; c < s.d_v; c++) out[c] += p[j] * floatM(v_j[c]);
                }
                floatX* o_i = o + at(s, b, i, s.o_row, h, s.d_v);
                for (int c = 0; c < s.d_v; c++) o_i[c] = floatX(out[c]);
            }
        }
    if (o_rope) rotate_output(o, o_rope, s, true);
}

void sdpa_backward(floatX* dq, floatX* dk, floatX* dv, floatM* dp, floatM* da, floatX* dout, floatX* o, const floatM* lse,
                   const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s, bool accumulate,
                   const floatM* rope, const floatM* o_rope) {
    // forward was o = R_{-t} o^, a rotation, so do^ = R_t do; and o^ = R_t o
    if (o_rope)
        for (floatX* rows : {o, dout}) rotate_output(rows, o_rope, s, false);
    const floatM scale = floatM(1 / std::sqrt(double(s.d_qk)));
    const int group = s.NH / s.NKV;
    const bool power = bias.kind == BiasKind::power;
    std::vector<floatM> dp_sum(size_t(s.B) * s.NH), da_sum(size_t(s.B) * s.NH);
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (int b = 0; b < s.B; b++)
        for (int kv = 0; kv < s.NKV; kv++) {
            // Every query of every head of the group adds to the gradients of the keys and values that it read.
            std::vector<floatM> dk_sum(size_t(s.T) * s.d_qk), dv_sum(size_t(s.T) * s.d_v), dq_sum(size_t(s.d_qk));
            for (int h = kv * group; h < (kv + 1) * group; h++)
                for (int i = 0; i < s.T; i++) {
                    const floatX *q_i = q + at(s, b, i, s.q_row, h, s.d_qk), *dout_i = dout + at(s, b, i, s.o_row, h, s.d_v);
                    const floatM l = lse[(size_t(b) * s.NH + h) * s.T + i];
                    // D_i = sum_j p_ij dp_ij = dout_i . o_i, since dp_ij = dout_i . v_j and o_i = sum_j p_ij v_j
                    const floatM D = dot(dout_i, o + at(s, b, i, s.o_row, h, s.d_v), s.d_v);
                    std::fill(dq_sum.begin(), dq_sum.end(), floatM(0));
                    for (int j = 0; j <= i; j++) {
                        const floatX *k_j = k + at(s, b, j, s.k_row, kv, s.d_qk), *v_j = v + at(s, b, j, s.v_row, kv, s.d_v);
                        const int d = i - j;
                        // p_ij as in the forward, from the saved log of the sum
                        const floatM p = std::exp(scale * dot(q_i, k_j, s.d_qk) + bias_at(bias, h, d) - l);
                        // forward was out_i += p_ij v_j, so dp_ij = dout_i . v_j ...
                        const floatM dp_ij = dot(dout_i, v_j, s.d_v);
                        // ... and dv_j += p_ij dout_i
                        for (int c = 0; c < s.d_v; c++) dv_sum[size_t(j) * s.d_v + c] += p * floatM(dout_i[c]);
                        // forward was p_i = softmax(s_i), with dp_ij / ds_ik = p_ij ([j = k] - p_ik), so ds_ij = p_ij (dp_ij - D_i)
                        const floatM ds = p * (dp_ij - D);
                        // forward was s_ij = scale q_i . k_j + bias(i - j), so dq_i += scale ds_ij k_j and dk_j += scale ds_ij q_i
                        for (int c = 0; c < s.d_qk; c++) {
                            dq_sum[c] += scale * ds * floatM(k_j[c]);
                            dk_sum[size_t(j) * s.d_qk + c] += scale * ds * floatM(q_i[c]);
                        }
                        // bias was -p ln(1 + a d) with the learned p and a, so dp -= ds ln(1 + a d) and da -= ds p d / (1 + a d)
                        if (!power) continue;
                        const floatM reach = 1 + floatM(bias.a[h]) * floatM(d);
                        dp_sum[size_t(b) * s.NH + h] -= ds * std::log(reach);
                        da_sum[size_t(b) * s.NH + h] -= ds * floatM(bias.p[h]) * floatM(d) / reach;
                    }
                    for (int c = 0; c < s.d_qk; c++) dq[at(s, b, i, s.q_row, h, s.d_qk) + c] = floatX(dq_sum[c]);
                }
            // Where K and V are one tensor (QV), its gradient is the sum of both terms.
            for (int j = 0; j < s.T; j++) {
                floatX *dk_j = dk + at(s, b, j, s.k_row, kv, s.d_qk), *dv_j = dv + at(s, b, j, s.v_row, kv, s.d_v);
                for (int c = 0; c < s.d_qk && dk != dv; c++) dk_j[c] = floatX(dk_sum[size_t(j) * s.d_qk + c]);
                for (int c = 0; c < s.d_v; c++)
                    dv_j[c] =
                        floatX(dv_sum[size_t(j) * s.d_v + c] + (dk == dv ? dk_sum[size_t(j) * s.d_qk + c] : floatM(0)));
            }
        }
    for (int h = 0; power && h < s.NH; h++) {
        if (!accumulate) dp[h] = da[h] = 0;
        for (int b = 0; b < s.B; b++) {
            dp[h] += dp_sum[size_t(b) * s.NH + h];
            da[h] += da_sum[size_t(b) * s.NH + h];
        }
    }
    // forward read q = R_t q' and k = R_t k', rotations, so dq' = R_{-t} dq and dk' = R_{-t} dk
    if (rope) rotate_back(dq, dk, rope, s);
}

std::string sdpa_refusal(int, int) { return ""; }
size_t sdpa_scratch_bytes(const SdpaShape&, BiasKind) { return 0; }
