// Causal attention on the CPU. See sdpa.h for the equations; sdpa_naive.cpp is the same in loops, to read first.
// The one idea: a panel of PANEL queries meets all keys up to the diagonal in a few products of gemm_tile.h, whose
// operands are in cache: numbers, or pairs of bf16 (sdpa_operands.h). So no more than PANEL x T of S, P, dP and dS exists
// at a time. K and V are copied once into the layouts that the products read (O(T d), shared by the heads of a group);
// queries and outputs are copied panel by panel.
// Threads: sdpa_tasks.h. Every sum runs over its terms in one order (keys ascending; panels of queries
// ascending; heads of a group ascending), whichever thread computes it, so results depend neither on the number
// of threads nor on how the work is cut.
#include "attention/sdpa.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention/sdpa_operands.h"
#include "attention/sdpa_tasks.h"
#include "layers/cpu_math.h"
#include "layers/gemm_tile.h"

namespace {
constexpr int PANEL = 4 * TILE_ROWS;                         // queries at a time
constexpr int KEYS = 2 * LANES<floatM>;                      // keys are padded with zero rows to whole register tiles

struct Memory {                                              // grows to the largest shape and is kept
    std::vector<floatM> memory;
    size_t used = 0;
    void reserve(size_t n) {
        used = 0;
        if (memory.size() < n) memory.resize(n);
    }
    floatM* take(size_t n) {
        floatM* p = memory.data() + used;
        used += round_up(n, 16);
        return p;
    }
    Operand* operands(size_t n) { return reinterpret_cast<Operand*>(take(n)); }
};
thread_local Memory mine;                                    // a task's panels
Memory shared;                                               // what a task reads or leaves for others

struct Problem {
    const SdpaShape& s;
    const PositionBias& bias;
    int ld;                                                  // T rounded up to KEYS
    floatM scale;
    int group() const { return s.NH / s.NKV; }
    size_t row(int b, int t) const { return size_t(b) * s.T + t; }
};
Problem problem(const SdpaShape& s, const PositionBias& bias) {
    return {s, bias, int(round_up(size_t(s.T), KEYS)), floatM(1 / std::sqrt(double(s.d_qk)))};
}

// ---------------------------------------------------------------------------------------------- copies

// The keys and values of one sequence and key/value head, as the products read them; null: not wanted.
struct Keys { Operand *k_t, *v_t, *k, *v; };                 // terms of K^T (d_qk, ld), V^T (d_v, ld), K (T, d_qk), V (T, d_v)
Keys keys_at(const Problem& p, Operand* packed, int b, int kv, bool backward) {
    const SdpaShape& s = p.s;
    const size_t k_t = terms(size_t(s.d_qk)) * p.ld, v_t = terms(size_t(s.d_v)) * p.ld;
    const size_t k = terms(size_t(s.T)) * s.d_qk, v = terms(size_t(s.T)) * s.d_v;
    Operand* at = packed + (size_t(b) * s.NKV + kv) * (backward ? k_t + v_t + k : k_t + v);
    return backward ? Keys{at, at + k_t, at + k_t + v_t, nullptr} : Keys{at, nullptr, nullptr, at + k_t};
}
size_t packed_size(const Problem& p, bool backward) {
    const SdpaShape& s = p.s;
    const size_t T = terms(size_t(s.T)), d_qk = terms(size_t(s.d_qk)), d_v = terms(size_t(s.d_v));
    const size_t one = backward ? (d_qk + d_v) * p.ld + T * s.d_qk : d_qk * p.ld + T * s.d_v;
    return size_t(s.B) * s.NKV * one;
}
void pack_keys(const Problem& p, Operand* packed, const floatX* k, const floatX* v, bool backward) {
    const SdpaShape& s = p.s;
    const int block = 8 * KEYS, blocks = int(ceil_div(size_t(p.ld), size_t(block)));
#pragma omp parallel for collapse(3) schedule(static)
    for (int b = 0; b < s.B; b++)
        for (int kv = 0; kv < s.NKV; kv++)
            for (int i = 0; i < blocks; i++) {
                const Range t{i * block, std::min(p.ld, (i + 1) * block)};
                const int rows = std::min(t.end, s.T) - t.begin;
                const floatX *k_in = k + p.row(b, 0) * s.k_row + size_t(kv) * s.d_qk,
                             *v_in = v + p.row(b, 0) * s.v_row + size_t(kv) * s.d_v;
                Keys to = keys_at(p, packed, b, kv, backward);
                load_transposed(to.k_t, k_in, s.k_row, s.T, s.d_qk, p.ld, t.begin, t.end);
                if (to.v_t) load_transposed(to.v_t, v_in, s.v_row, s.T, s.d_v, p.ld, t.begin, t.end);
                const size_t first = size_t(t.begin / PER_OPERAND);
                if (to.k) load_terms(to.k + first * s.d_qk, k_in + t.begin * s.k_row, s.k_row, rows, s.d_qk, 1);
                if (to.v) load_terms(to.v + first * s.d_v, v_in + t.begin * s.v_row, s.v_row, rows, s.d_v, 1);
            }
}

// ---------------------------------------------------------------------------------------------- bias

// f(distance) of one head stored backwards, table[T - 1 - d] = f(d), so that row i reads it forwards over j; zero beyond the diagonal.
template <class F> void fill_reversed(floatM* table, int T, F f) {
    for (int d = 0; d < T; d++) table[T - 1 - d] = f(floatM(d));
    std::fill(table + T, table + T + KEYS, floatM(0));
}
void bias_table(floatM* table, const PositionBias& b, int h, int T) {
    if (b.kind == BiasKind::none) std::fill(table, table + T + KEYS, floatM(0));
    if (b.kind == BiasKind::alibi) fill_reversed(table, T, [&](floatM d) { return -b.slope[h] * d; });
    if (b.kind == BiasKind::power) fill_reversed(table, T, [&](floatM d) { return -floatM(b.p[h]) * std::log(1 + floatM(b.a[h]) * d); });
}

// ---------------------------------------------------------------------------------------------- forward

// The first n of a row of scores become exp(scale score + bias - largest); returns 1 / their sum, and in *lse its logarithm.
// Whole tiles are computed: what lies beyond n counts as a score of minus infinity.
floatM softmax_row(floatM* row, floatM* lse, const floatM* bias, int n, floatM scale) {
    const int padded = int(round_up(size_t(n), KEYS));
    floatM top = -std::numeric_limits<floatM>::infinity();
    std::fill(row + n, row + padded, top);
#pragma omp simd reduction(max : top)
    for (int j = 0; j < padded; j++) {
        row[j] = row[j] * after(scale) + bias[j];
        top = row[j] > top ? row[j] : top;
    }
    const floatM sum = sum_of(padded, [=](int j) { return row[j] = fast_exp(row[j] - top); });
    *lse = top + std::log(sum);
    return 1 / sum;
}

void forward_part(const Problem& p, floatX* o, floatM* lse, const floatX* q, const Keys& keys, int b, int h, Range queries) {
    const SdpaShape& s = p.s;
    const int T = s.T, d1 = s.d_qk, d2 = s.d_v;
    mine.reserve(size_t(PANEL) * (2 * p.ld + d1 + d2) + T + KEYS + 5 * 16);
    floatM *P = mine.take(size_t(PANEL) * p.ld), *out = mine.take(size_t(PANEL) * d2), *bias = mine.take(size_t(T) + KEYS);
    Operand *q_rows = mine.operands(size_t(PANEL) * d1), *room = mine.operands(size_t(PANEL) * p.ld / 2);
    bias_table(bias, p.bias, h, T);
    for (int i0 = queries.begin; i0 < queries.end; i0 += PANEL) {
        const int rows = std::min(PANEL, queries.end - i0), n = i0 + rows;
        load_rows(q_rows, q + p.row(b, i0) * s.q_row + size_t(h) * d1, s.q_row, rows, d1, p.scale);
        const TileA<Operand> queries_a{q_rows, terms(size_t(d1)), 1};
        tile_product<false>(P, p.ld, queries_a, keys.k_t, p.ld, rows, int(round_up(size_t(n), KEYS)), int(queries_a.i_stride));
        floatM inverse_sum[PANEL];
        for (int r = 0; r < rows; r++) {
            const int i = i0 + r;
            floatM* row = P + size_t(r) * p.ld;
            inverse_sum[r] = softmax_row(row, lse + (size_t(b) * s.NH + h) * T + i, bias + (T - 1 - i), i + 1, p.scale);
            std::fill(row + i + 1, row + n, floatM(0));
        }
        const TileA<Operand> weights{as_rows(room, P, p.ld, rows, n, 1), size_t(p.ld / PER_OPERAND), 1};
        tile_product<false>(out, d2, weights, keys.v, d2, rows, d2, int(terms(size_t(n))));
        for (int r = 0; r < rows; r++) {
            floatX* to = o + p.row(b, i0 + r) * s.o_row + size_t(h) * d2;
#pragma omp simd
            for (int c = 0; c < d2; c++) store(to[c], out[size_t(r) * d2 + c] * inverse_sum[r]);
        }
    }
}

// ---------------------------------------------------------------------------------------------- backward, panel by panel

// Forward was S = s Q K^T + bias, P = exp(S - lse), O = P V. A panel: `rows` queries from i0 on, against keys [begin, begin + width).
struct Panel {
    int i0, rows, begin, width, ld;
    floatM *D, *P, *dS;                                      // rowsum(dO * O) (PANEL); (PANEL, ld)
    Operand *q, *dout;                                       // rows of s Q (PANEL, d_qk) and dO (PANEL, d_v), for S and dP
    Operand *q_terms, *dout_terms;                           // the same as terms, for dK and dV
    Operand* room;                                           // (PANEL, ld / 2)
};

// s Q, dO and D of the panel's queries.
void load_panel(Panel& x, const Problem& p, const floatX* q, const floatX* dout, const floatX* o, int b, int h) {
    const SdpaShape& s = p.s;
    const floatX *q_in = q + p.row(b, x.i0) * s.q_row + size_t(h) * s.d_qk,
                 *dout_in = dout + p.row(b, x.i0) * s.o_row + size_t(h) * s.d_v;
    load_rows(x.q, q_in, s.q_row, x.rows, s.d_qk, p.scale);
    load_rows(x.dout, dout_in, s.o_row, x.rows, s.d_v, 1);
    if (PAIRS) {
        load_terms(x.q_terms, q_in, s.q_row, x.rows, s.d_qk, p.scale);
        load_terms(x.dout_terms, dout_in, s.o_row, x.rows, s.d_v, 1);
    }
    for (int r = 0; r < x.rows; r++) {
        const floatX* o_row = o + p.row(b, x.i0 + r) * s.o_row + size_t(h) * s.d_v;
        const floatX* d_row = dout_in + r * s.o_row;
        x.D[r] = sum_of(s.d_v, [=](int c) { return floatM(d_row[c]) * floatM(o_row[c]); });
    }
}

// P again, from S and the log-sum-exp, and dS: forward was O = P V and P = softmax(S), so dP = dO V^T and dS = P * (dP - D).
// Beyond the diagonal both are zero.
void probabilities_and_score_gradients(Panel& x, const Problem& p, const Keys& keys, const floatM* bias, const floatM* lse) {
    const int whole = int(round_up(size_t(x.width), KEYS));
    const size_t d_qk = terms(size_t(p.s.d_qk)), d_v = terms(size_t(p.s.d_v));
    tile_product<false>(x.P, x.ld, TileA<Operand>{x.q, d_qk, 1}, keys.k_t + x.begin, p.ld, x.rows, whole, int(d_qk));
    tile_product<false>(x.dS, x.ld, TileA<Operand>{x.dout, d_v, 1}, keys.v_t + x.begin, p.ld, x.rows, whole, int(d_v));
    for (int r = 0; r < x.rows; r++) {
        const int i = x.i0 + r, n = std::clamp(i + 1 - x.begin, 0, x.width), padded = int(round_up(size_t(n), KEYS));
        floatM *P = x.P + size_t(r) * x.ld, *dS = x.dS + size_t(r) * x.ld;
        const floatM *bias_row = bias + (p.s.T - 1 - i) + x.begin, l = lse[i], D = x.D[r];
#pragma omp simd
        for (int j = 0; j < padded; j++) {
            P[j] = fast_exp(P[j] * after(p.scale) + bias_row[j] - l);
            dS[j] = P[j] * (dS[j] - D);
        }
        std::fill(P + n, P + x.width, floatM(0));
        std::fill(dS + n, dS + x.width, floatM(0));
    }
}

// Forward was O = P V: dV += P^T dO.  Forward was S = (s Q) K^T: dK += dS^T (s Q).  dk and dv begin at key x.begin.
void add_key_gradients(floatM* dk, floatM* dv, const Panel& x, const Problem& p) {
    const int d_qk = p.s.d_qk, d_v = p.s.d_v, k = int(terms(size_t(x.rows)));
    const Operand* P = as_terms(x.room, x.P, x.ld, x.rows, x.width, 1);
    tile_product<true>(dv, d_v, TileA<Operand>{P, 1, size_t(x.ld)}, x.dout_terms, d_v, x.width, d_v, k);
    const Operand* dS = as_terms(x.room, x.dS, x.ld, x.rows, x.width, p.scale);
    tile_product<true>(dk, d_qk, TileA<Operand>{dS, 1, size_t(x.ld)}, x.q_terms, d_qk, x.width, d_qk, k);
}

// Forward was S = s Q K^T: dQ = s dS K (pairs of dS have s in them). `scratch`: (PANEL, d_qk). The panel must hold all keys up
// to the diagonal.
void write_query_gradients(floatX* dq, floatM* scratch, const Panel& x, const Problem& p, const Keys& keys, int b, int h) {
    const SdpaShape& s = p.s;
    const TileA<Operand> dS{as_rows(x.room, x.dS, x.ld, x.rows, x.width, p.scale), size_t(x.ld / PER_OPERAND), 1};
    tile_product<false>(scratch, s.d_qk, dS, keys.k, s.d_qk, x.rows, s.d_qk, int(terms(size_t(x.width))));
    for (int r = 0; r < x.rows; r++) {
        floatX* to = dq + p.row(b, x.i0 + r) * s.q_row + size_t(h) * s.d_qk;
#pragma omp simd
        for (int c = 0; c < s.d_qk; c++) store(to[c], scratch[size_t(r) * s.d_qk + c] * before(p.scale));
    }
}

// Forward was S += -p ln(1 + a d): dp += -dS ln(1 + a d), da += -dS p d / (1 + a d). Sums of each row, to be added in order of rows.
struct BiasSlopes { floatM *log, *ratio, *by_row; };         // tables ln(1 + a d) and d / (1 + a d); (B, NH, T, 2)
void bias_gradients(const BiasSlopes& t, const Panel& x, const Problem& p, int b, int h) {
    for (int r = 0; r < x.rows; r++) {
        const int i = x.i0 + r;
        const floatM *dS = x.dS + size_t(r) * x.ld, *log_row = t.log + (p.s.T - 1 - i), *ratio_row = t.ratio + (p.s.T - 1 - i);
        floatM* out = t.by_row + ((size_t(b) * p.s.NH + h) * p.s.T + i) * 2;
        out[0] = -sum_of(i + 1, [=](int j) { return dS[j] * log_row[j]; });
        out[1] = -floatM(p.bias.p[h]) * sum_of(i + 1, [=](int j) { return dS[j] * ratio_row[j]; });
    }
}

// What a backward task reads and writes. dk_heads, dv_heads: (B, NH, T, d) sums of each query head, where a group shares keys; else null.
struct Backward {
    floatX *dq, *dk, *dv;
    const floatX *dout, *o, *q;
    const floatM* lse;
    Operand* packed;
    floatM *dk_heads, *dv_heads, *by_row;
    bool same() const { return dk == dv; }                   // K and V are one tensor: both terms go into one sum
};

void write_key_gradients(const Backward& w, const Problem& p, const floatM* dk, const floatM* dv, int b, int h, Range keys) {
    const SdpaShape& s = p.s;
    const size_t n = size_t(keys.end - keys.begin), head = (size_t(b) * s.NH + h) * s.T + keys.begin;
    if (w.dk_heads) {
        std::copy(dk, dk + n * s.d_qk, w.dk_heads + head * s.d_qk);
        if (!w.same()) std::copy(dv, dv + n * s.d_v, w.dv_heads + head * s.d_v);
        return;
    }
    for (size_t t = 0; t < n; t++) {
        floatX *k_to = w.dk + (p.row(b, keys.begin) + t) * s.k_row + size_t(h) * s.d_qk,
               *v_to = w.dv + (p.row(b, keys.begin) + t) * s.v_row + size_t(h) * s.d_v;
        for (int c = 0; c < s.d_qk; c++) store(k_to[c], dk[t * s.d_qk + c]);
        for (int c = 0; c < s.d_v && !w.same(); c++) store(v_to[c], dv[t * s.d_v + c]);
    }
}

// One head's gradients: dQ (and the bias's) of `queries`, dK and dV of `keys`. Both ranges are whole, or one of them is empty.
void backward_part(const Backward& w, const Problem& p, int b, int h, Range queries, Range keys) {
    const SdpaShape& s = p.s;
    const int T = s.T, d1 = s.d_qk, d2 = s.d_v;
    const bool query_side = queries.begin < queries.end, key_side = keys.begin < keys.end, power = p.bias.kind == BiasKind::power;
    if (!query_side && !key_side) return;                    // an empty part
    const size_t key_rows = key_side ? size_t(keys.end - keys.begin) : 0;
    mine.reserve(size_t(PANEL) * (3 * p.ld + 3 * d1 + 2 * d2 + 1) + key_rows * (d1 + d2) + 3 * (size_t(T) + KEYS) + 14 * 16);
    floatM *bias = mine.take(size_t(T) + KEYS), *scratch = mine.take(size_t(PANEL) * d1);
    floatM *dk = mine.take(key_rows * d1), *dv = w.same() ? dk : mine.take(key_rows * d2);
    BiasSlopes slopes{mine.take(size_t(T) + KEYS), mine.take(size_t(T) + KEYS), w.by_row};
    Panel x{};
    x.ld = p.ld;
    x.D = mine.take(PANEL), x.P = mine.take(size_t(PANEL) * p.ld), x.dS = mine.take(size_t(PANEL) * p.ld);
    x.q = x.q_terms = mine.operands(size_t(PANEL) * d1), x.dout = x.dout_terms = mine.operands(size_t(PANEL) * d2);
    if (PAIRS) x.q_terms = mine.operands(size_t(PANEL) * d1), x.dout_terms = mine.operands(size_t(PANEL) * d2);
    x.room = mine.operands(size_t(PANEL) * p.ld / 2);
    bias_table(bias, p.bias, h, T);
    if (power && query_side) {
        const floatM a = floatM(p.bias.a[h]);
        fill_reversed(slopes.log, T, [&](floatM d) { return std::log(1 + a * d); });
        fill_reversed(slopes.ratio, T, [&](floatM d) { return d / (1 + a * d); });
    }
    std::fill(dk, dk + key_rows * d1, floatM(0));
    if (!w.same()) std::fill(dv, dv + key_rows * d2, floatM(0));
    const Keys packed = keys_at(p, w.packed, b, h / p.group(), true);
    const floatM* lse = w.lse + (size_t(b) * s.NH + h) * T;
    const int first = query_side ? queries.begin : keys.begin / PANEL * PANEL, last = query_side ? queries.end : T;
    for (x.i0 = first; x.i0 < last; x.i0 += PANEL) {
        x.rows = std::min(PANEL, last - x.i0);
        x.begin = query_side ? 0 : keys.begin;
        x.width = (query_side ? x.i0 + x.rows : std::min(keys.end, x.i0 + x.rows)) - x.begin;
        load_panel(x, p, w.q, w.dout, w.o, b, h);
        probabilities_and_score_gradients(x, p, packed, bias, lse);
        if (key_side) add_key_gradients(dk, dv, x, p);
        if (query_side) write_query_gradients(w.dq, scratch, x, p, packed, b, h);
        if (query_side && power) bias_gradients(slopes, x, p, b, h);
    }
    if (key_side) write_key_gradients(w, p, dk, dv, b, h, keys);
}

// A group's query heads read the same keys: their sums are added in order of heads.
void sum_heads_of_groups(const Backward& w, const Problem& p) {
    const SdpaShape& s = p.s;
    auto sum = [&](floatX* to, const floatM* heads, int d) {
        const size_t head = size_t(s.T) * d;
        for (int c = 0; c < d; c++) {
            floatM total = heads[c];
            for (int g = 1; g < p.group(); g++) total += heads[g * head + c];
            store(to[c], total);
        }
    };
#pragma omp parallel for collapse(3) schedule(static)
    for (int b = 0; b < s.B; b++)
        for (int kv = 0; kv < s.NKV; kv++)
            for (int t = 0; t < s.T; t++) {
                const size_t first = (size_t(b) * s.NH + size_t(kv) * p.group()) * s.T + t;
                sum(w.dk + p.row(b, t) * s.k_row + size_t(kv) * s.d_qk, w.dk_heads + first * s.d_qk, s.d_qk);
                if (!w.same()) sum(w.dv + p.row(b, t) * s.v_row + size_t(kv) * s.d_v, w.dv_heads + first * s.d_v, s.d_v);
            }
}

void sum_bias_gradients(floatM* dp, floatM* da, const floatM* by_row, const SdpaShape& s, bool accumulate) {
    for (int h = 0; h < s.NH; h++) {
        floatM sum_p = 0, sum_a = 0;
        for (int b = 0; b < s.B; b++)
            for (int t = 0; t < s.T; t++) {
                const floatM* row = by_row + ((size_t(b) * s.NH + h) * s.T + t) * 2;
                sum_p += row[0];
                sum_a += row[1];
            }
        dp[h] = (accumulate ? dp[h] : floatM(0)) + sum_p;
        da[h] = (accumulate ? da[h] : floatM(0)) + sum_a;
    }
}

// Elements of `shared` that the backward takes: packed keys and values; the heads' sums of a group; power's sums of rows.
struct SharedSizes { size_t packed, dk_heads, dv_heads, by_row; };
SharedSizes backward_sizes(const Problem& p) {
    const SdpaShape& s = p.s;
    const size_t heads = s.NKV < s.NH ? size_t(s.B) * s.NH * s.T : 0;
    return {packed_size(p, true), heads * s.d_qk, heads * s.d_v, p.bias.kind == BiasKind::power ? size_t(s.B) * s.NH * s.T * 2 : 0};
}
size_t total(const SharedSizes& n) { return n.packed + n.dk_heads + n.dv_heads + n.by_row + 4 * 16; }
}  // namespace

void sdpa_forward(floatX* o, floatM* lse, const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s,
                  const floatM* o_rope) {
    const Problem p = problem(s, bias);
    shared.reserve(packed_size(p, false) + 16);
    Operand* packed = shared.operands(packed_size(p, false));
    pack_keys(p, packed, k, v, false);
    const int parts = parts_per_head(s.B * s.NH, s.T, PANEL, omp_get_max_threads());
#pragma omp parallel for collapse(3) schedule(dynamic, 1)
    for (int part = 0; part < parts; part++)
        for (int b = 0; b < s.B; b++)
            for (int h = 0; h < s.NH; h++)
                forward_part(p, o, lse, q, keys_at(p, packed, b, h / p.group(), false), b, h,
                             triangle_task(Triangle::queries, s.T, PANEL, part, parts));
    if (o_rope) rotate_output(o, o_rope, s, true);
}

void sdpa_backward(floatX* dq, floatX* dk, floatX* dv, floatM* dp, floatM* da, floatX* dout, floatX* o, const floatM* lse,
                   const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s, bool accumulate,
                   const floatM* rope, const floatM* o_rope) {
    if (o_rope)
        for (floatX* rows : {o, dout}) rotate_output(rows, o_rope, s, false);
    const Problem p = problem(s, bias);
    const SharedSizes n = backward_sizes(p);
    shared.reserve(total(n));
    Backward w{dq, dk, dv, dout, o, q, lse, shared.operands(n.packed), nullptr, nullptr, nullptr};
    if (n.dk_heads) w.dk_heads = shared.take(n.dk_heads), w.dv_heads = shared.take(n.dv_heads);
    if (n.by_row) w.by_row = shared.take(n.by_row);
    pack_keys(p, w.packed, k, v, true);
    const int threads = omp_get_max_threads(), heads = s.B * s.NH;
    const bool split = split_heads(heads, threads);
    const int key_parts = split ? parts_per_head(2 * heads, s.T, KEYS, threads) : 0;
    const int query_parts = split ? parts_per_head(2 * heads, s.T, PANEL, threads) : 1;
    const Range all{0, s.T}, nothing{0, 0};
#pragma omp parallel for collapse(3) schedule(dynamic, 1)
    for (int task = 0; task < key_parts + query_parts; task++)           // the largest of all heads first
        for (int b = 0; b < s.B; b++)
            for (int h = 0; h < s.NH; h++) {
                if (!split) backward_part(w, p, b, h, all, all);
                else if (task < key_parts) backward_part(w, p, b, h, nothing, triangle_task(Triangle::keys, s.T, KEYS, task, key_parts));
                else backward_part(w, p, b, h, triangle_task(Triangle::queries, s.T, PANEL, task - key_parts, query_parts), nothing);
            }
    if (w.dk_heads) sum_heads_of_groups(w, p);
    if (w.by_row) sum_bias_gradients(dp, da, w.by_row, s, accumulate);
    if (rope) rotate_back(dq, dk, rope, s);
}

std::string sdpa_refusal(int, int) { return ""; }
size_t sdpa_scratch_bytes(const SdpaShape& s, BiasKind kind) {
    PositionBias bias;
    bias.kind = kind;
    return total(backward_sizes(problem(s, bias))) * sizeof(floatM);
}
