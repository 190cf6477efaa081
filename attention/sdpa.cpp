// Causal attention on the CPU. See sdpa.h for the equations.
// One task is one (sequence, key/value head) with all its query heads. Per query head: Q (times s), K, V and their
// transposes are copied into contiguous buffers once (O(T d)); then panels of QUERY_ROWS queries against all keys up to the
// diagonal go through the register-tiled product of gemm_tile.h. A panel is QUERY_ROWS x T, in the L2 cache; no T x T is kept.
// Tasks run in parallel; inside one all sums have a fixed order, so results do not depend on the thread count.
#include "attention/sdpa.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "layers/cpu_math.h"
#include "layers/gemm_tile.h"

namespace {
constexpr int QUERY_ROWS = 4 * TILE_ROWS;
constexpr int KEY_PAD = 2 * LANES<floatX>;                   // panels are computed for whole register tiles of keys

struct Workspace {                                           // one per thread, grows to the largest shape and stays
    std::vector<floatX> memory;
    floatX* take(size_t n) { floatX* p = memory.data() + used; used += round_up(n, 16); return p; }
    void reserve(size_t n) { used = 0; if (memory.size() < n) memory.resize(n); }
    size_t used = 0;
};
thread_local Workspace workspace;

void copy_rows(floatX* out, const floatX* in, size_t row_stride, int T, int d, floatX scale) {
    for (int t = 0; t < T; t++)
        for (int c = 0; c < d; c++) out[size_t(t) * d + c] = in[t * row_stride + c] * scale;
}
void copy_transposed(floatX* out, const floatX* in, size_t row_stride, int T, int d, int ld) {   // out (d, ld), zero beyond T
    for (int c = 0; c < d; c++) {
        for (int t = 0; t < T; t++) out[size_t(c) * ld + t] = in[t * row_stride + c];
        for (int t = T; t < ld; t++) out[size_t(c) * ld + t] = 0;
    }
}

// The bias of one head by distance, stored backwards: reversed[T - 1 - d] = bias(d), so that row i reads it forwards over j.
void reversed_bias(floatX* reversed, const PositionBias& b, int h, int T) {
    for (int d = 0; d < T; d++) {
        floatM value = 0;
        if (b.kind == BiasKind::alibi) value = -b.slope[h] * d;
        if (b.kind == BiasKind::power) value = -b.p[h] * std::log(1 + b.a[h] * d);
        reversed[T - 1 - d] = floatX(value);
    }
}

// scores (rows, ld): S of queries i0.. against keys 0..i0+rows-1, bias added; entries beyond the diagonal are left as they fall.
void score_panel(floatX* scores, int ld, const floatX* q, const floatX* k_transposed, int k_ld, const floatX* bias, int T, int i0, int rows, int d) {
    int keys = int(round_up(size_t(i0 + rows), KEY_PAD));
    tile_product<false>(scores, ld, TileA<floatX>{q + size_t(i0) * d, size_t(d), 1}, k_transposed, k_ld, rows, keys, d);
    if (!bias) return;
    for (int r = 0; r < rows; r++) {
        floatX* row = scores + size_t(r) * ld;
        const floatX* at = bias + (T - 1 - (i0 + r));
#pragma omp simd
        for (int j = 0; j <= i0 + r; j++) row[j] += at[j];
    }
}
}  // namespace

void sdpa_forward(floatX* o, floatM* lse, const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s) {
    const int T = s.T, dq = s.d_qk, dv = s.d_v, ld = int(round_up(size_t(T), KEY_PAD)), group = s.NH / s.NKV;
    const floatX scale = floatX(1 / std::sqrt(double(dq)));
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (int b = 0; b < s.B; b++)
        for (int kv = 0; kv < s.NKV; kv++) {
            workspace.reserve(size_t(dq) * ld + size_t(T) * (dv + dq + 1) + QUERY_ROWS * (ld + size_t(dv)) + 16 * 6);
            floatX *k_t = workspace.take(size_t(dq) * ld), *v_c = workspace.take(size_t(T) * dv), *q_c = workspace.take(size_t(T) * dq);
            floatX *panel = workspace.take(size_t(QUERY_ROWS) * ld), *out = workspace.take(size_t(QUERY_ROWS) * dv), *bias_h = workspace.take(T);
            copy_transposed(k_t, k + size_t(b) * T * s.k_row + size_t(kv) * dq, s.k_row, T, dq, ld);
            copy_rows(v_c, v + size_t(b) * T * s.v_row + size_t(kv) * dv, s.v_row, T, dv, 1);
            for (int h = kv * group; h < (kv + 1) * group; h++) {
                copy_rows(q_c, q + size_t(b) * T * s.q_row + size_t(h) * dq, s.q_row, T, dq, scale);
                if (bias.kind != BiasKind::none) reversed_bias(bias_h, bias, h, T);
                for (int i0 = 0; i0 < T; i0 += QUERY_ROWS) {
                    int rows = std::min(QUERY_ROWS, T - i0);
                    score_panel(panel, ld, q_c, k_t, ld, bias.kind == BiasKind::none ? nullptr : bias_h, T, i0, rows, dq);
                    floatX inverse_sum[QUERY_ROWS];
                    for (int r = 0; r < rows; r++) {
                        floatX* row = panel + size_t(r) * ld;
                        int n = i0 + r + 1;
                        floatX top = row[0], sum = 0;
#pragma omp simd reduction(max : top)
                        for (int j = 0; j < n; j++) top = row[j] > top ? row[j] : top;
#pragma omp simd reduction(+ : sum)
                        for (int j = 0; j < n; j++) sum += row[j] = fast_exp(row[j] - top);
                        std::fill(row + n, row + i0 + rows, floatX(0));
                        inverse_sum[r] = 1 / sum;
                        lse[(size_t(b) * s.NH + h) * T + i0 + r] = top + std::log(sum);
                    }
                    tile_product<false>(out, dv, TileA<floatX>{panel, size_t(ld), 1}, v_c, dv, rows, dv, i0 + rows);
                    for (int r = 0; r < rows; r++) {
                        floatX* to = o + (size_t(b) * T + i0 + r) * s.o_row + size_t(h) * dv;
                        for (int c = 0; c < dv; c++) to[c] = out[size_t(r) * dv + c] * inverse_sum[r];
                    }
                }
            }
        }
}

void sdpa_backward(floatX* dq, floatX* dk, floatX* dv, floatM* dp, floatM* da, const floatX* dout, const floatX* o, const floatM* lse,
                   const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s, bool accumulate) {
    const int T = s.T, d1 = s.d_qk, d2 = s.d_v, ld = int(round_up(size_t(T), KEY_PAD)), group = s.NH / s.NKV;
    const floatX scale = floatX(1 / std::sqrt(double(d1)));
    const bool same = dk == dv, power = bias.kind == BiasKind::power;
    static std::vector<floatM> bias_grads;                   // (B, NH, 2): summed over B in order at the end
    bias_grads.assign(power ? size_t(s.B) * s.NH * 2 : 0, 0);
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (int b = 0; b < s.B; b++)
        for (int kv = 0; kv < s.NKV; kv++) {
            workspace.reserve(size_t(d1 + d2) * ld + size_t(T) * (4 * d1 + 3 * d2 + 4) + QUERY_ROWS * (2 * ld + size_t(d1)) + 16 * 16);
            floatX *k_t = workspace.take(size_t(d1) * ld), *v_t = workspace.take(size_t(d2) * ld), *k_c = workspace.take(size_t(T) * d1);
            floatX *q_c = workspace.take(size_t(T) * d1), *do_c = workspace.take(size_t(T) * d2), *delta = workspace.take(T);
            floatX *dk_c = workspace.take(size_t(T) * d1), *dv_c = same ? dk_c : workspace.take(size_t(T) * d2);
            floatX *p_panel = workspace.take(size_t(QUERY_ROWS) * ld), *ds_panel = workspace.take(size_t(QUERY_ROWS) * ld);
            floatX *dq_c = workspace.take(size_t(QUERY_ROWS) * d1), *bias_h = workspace.take(T), *log_h = workspace.take(T);
            const floatX *k_in = k + size_t(b) * T * s.k_row + size_t(kv) * d1, *v_in = v + size_t(b) * T * s.v_row + size_t(kv) * d2;
            copy_transposed(k_t, k_in, s.k_row, T, d1, ld);
            copy_transposed(v_t, v_in, s.v_row, T, d2, ld);
            copy_rows(k_c, k_in, s.k_row, T, d1, 1);
            std::fill(dk_c, dk_c + size_t(T) * d1, floatX(0));
            if (!same) std::fill(dv_c, dv_c + size_t(T) * d2, floatX(0));
            for (int h = kv * group; h < (kv + 1) * group; h++) {
                copy_rows(q_c, q + size_t(b) * T * s.q_row + size_t(h) * d1, s.q_row, T, d1, scale);
                copy_rows(do_c, dout + size_t(b) * T * s.o_row + size_t(h) * d2, s.o_row, T, d2, 1);
                for (int t = 0; t < T; t++) {
                    const floatX* o_row = o + (size_t(b) * T + t) * s.o_row + size_t(h) * d2;
                    floatX sum = 0;
#pragma omp simd reduction(+ : sum)
                    for (int c = 0; c < d2; c++) sum += do_c[size_t(t) * d2 + c] * o_row[c];
                    delta[t] = sum;
                }
                if (bias.kind != BiasKind::none) reversed_bias(bias_h, bias, h, T);
                floatM dp_h = 0, da_h = 0;
                if (power) for (int d = 0; d < T; d++) log_h[T - 1 - d] = std::log(1 + bias.a[h] * d);
                for (int i0 = 0; i0 < T; i0 += QUERY_ROWS) {
                    int rows = std::min(QUERY_ROWS, T - i0), keys = i0 + rows;
                    score_panel(p_panel, ld, q_c, k_t, ld, bias.kind == BiasKind::none ? nullptr : bias_h, T, i0, rows, d1);
                    tile_product<false>(ds_panel, ld, TileA<floatX>{do_c + size_t(i0) * d2, size_t(d2), 1}, v_t, ld, rows,
                                        int(round_up(size_t(keys), KEY_PAD)), d2);
                    for (int r = 0; r < rows; r++) {
                        floatX *p = p_panel + size_t(r) * ld, *ds = ds_panel + size_t(r) * ld;
                        floatX l = floatX(lse[(size_t(b) * s.NH + h) * T + i0 + r]), D = delta[i0 + r];
                        int n = i0 + r + 1;
#pragma omp simd
                        for (int j = 0; j < n; j++) {
                            p[j] = fast_exp(p[j] - l);
                            ds[j] = p[j] * (ds[j] - D);
                        }
                        std::fill(p + n, p + keys, floatX(0));
                        std::fill(ds + n, ds + keys, floatX(0));
                        if (!power) continue;
                        for (int j = 0; j < n; j++) {
                            int distance = i0 + r - j;
                            dp_h -= ds[j] * log_h[T - 1 - distance];
                            da_h -= ds[j] * bias.p[h] * distance / (1 + bias.a[h] * distance);
                        }
                    }
                    tile_product<true>(dv_c, d2, TileA<floatX>{p_panel, 1, size_t(ld)}, do_c + size_t(i0) * d2, d2, keys, d2, rows);
                    tile_product<true>(dk_c, d1, TileA<floatX>{ds_panel, 1, size_t(ld)}, q_c + size_t(i0) * d1, d1, keys, d1, rows);
                    tile_product<false>(dq_c, d1, TileA<floatX>{ds_panel, size_t(ld), 1}, k_c, d1, rows, d1, keys);
                    for (int r = 0; r < rows; r++) {
                        floatX* to = dq + (size_t(b) * T + i0 + r) * s.q_row + size_t(h) * d1;
                        for (int c = 0; c < d1; c++) to[c] = dq_c[size_t(r) * d1 + c] * scale;
                    }
                }
                if (power) bias_grads[(size_t(b) * s.NH + h) * 2] = dp_h, bias_grads[(size_t(b) * s.NH + h) * 2 + 1] = da_h;
            }
            for (int t = 0; t < T; t++) {
                std::copy(dk_c + size_t(t) * d1, dk_c + size_t(t + 1) * d1, dk + (size_t(b) * T + t) * s.k_row + size_t(kv) * d1);
                if (!same) std::copy(dv_c + size_t(t) * d2, dv_c + size_t(t + 1) * d2, dv + (size_t(b) * T + t) * s.v_row + size_t(kv) * d2);
            }
        }
    if (!power) return;
    for (int h = 0; h < s.NH; h++) {
        floatM sum_p = accumulate ? dp[h] : floatM(0), sum_a = accumulate ? da[h] : floatM(0);
        for (int b = 0; b < s.B; b++) {
            sum_p += bias_grads[(size_t(b) * s.NH + h) * 2];
            sum_a += bias_grads[(size_t(b) * s.NH + h) * 2 + 1];
        }
        dp[h] = sum_p;
        da[h] = sum_a;
    }
}

std::string sdpa_refusal(int, int) { return ""; }
size_t sdpa_scratch_bytes(const SdpaShape&, BiasKind) { return 0; }
