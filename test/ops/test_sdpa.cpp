// Attention's core, forward and backward, on whatever backend this binary is built for, against a naive oracle in double.
// Tolerance, as in flash-attention's own tests: for each tensor, max error <= 2 * (max error of the naive implementation that
// rounds every stored intermediate, S, P, dP and dS, to floatX) + atol. atol covers what naive gets exactly right by luck (T = 1:
// P = 1): two roundings of the largest element to floatX, and a float's rounding in sums of n terms, n the larger of T and the head size.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "attention/sdpa.h"
#include "runtime/device/backend.h"
#include "runtime/run/error.h"
#include "runtime/device/rng.h"
#include "test/ops/op_common.h"
#ifdef BACKEND_EMU
#include "runtime/device/emu/emu.h"
#endif

namespace {
using Doubles = std::vector<double>;
constexpr int PAD = 8;                                   // elements after each row, which nobody may touch
constexpr double SENTINEL = 7;

// A rounding to floatX, relative to 1.
constexpr double EPS = sizeof(floatX) == 2 ? 0x1p-8 : sizeof(floatX) == 4 ? 0x1p-24 : 0x1p-53;
constexpr double EPS_ARITHMETIC = sizeof(floatM) == 8 ? 0x1p-53 : 0x1p-24;

enum class Layout { fused, separate };                   // q, k, v in one row as from one projection; or three tensors
// rotated: dq and dk are to be those of q and k before they were rotated. o_rotated: o is rotated back, and dout belongs to that.
struct Case {
    int B, T, NH, NKV, d_qk, d_v;
    bool k_is_v = false;
    BiasKind bias = BiasKind::none;
    Layout layout = Layout::fused;
    bool rotated = false, o_rotated = false;
};
constexpr double THETA = 100;                            // angles well apart at these short lengths

std::string name(const Case& c) {
    const char* bias[] = {"no bias", "alibi", "power"};
    return format("B %d T %d NH %d NKV %d d_qk %d d_v %d%s, %s, %s rows%s%s", c.B, c.T, c.NH, c.NKV, c.d_qk, c.d_v, c.k_is_v ? " K==V" : "",
                  bias[int(c.bias)], c.layout == Layout::fused ? "fused" : "separate", c.rotated ? ", rotated" : "",
                  c.o_rotated ? ", o rotated back" : "");
}

// Where q, k, v (and dq, dk, dv) lie in one allocation of `size` elements.
struct Placement { SdpaShape s; size_t q, k, v, size; };
Placement place(const Case& c) {
    const size_t q = size_t(c.NH) * c.d_qk, k = size_t(c.NKV) * c.d_qk, v = c.k_is_v ? 0 : size_t(c.NKV) * c.d_v, rows = size_t(c.B) * c.T;
    const size_t o_row = size_t(c.NH) * c.d_v + PAD;
    if (c.layout == Layout::fused) {
        size_t row = q + k + v + PAD;
        return {{c.B, c.T, c.NH, c.NKV, c.d_qk, c.d_v, row, row, row, o_row}, 0, q, c.k_is_v ? q : q + k, rows * row};
    }
    const size_t q_row = q + PAD, k_row = k + PAD, v_row = c.k_is_v ? k_row : v + PAD, k_at = rows * q_row,
                 v_at = c.k_is_v ? k_at : k_at + rows * k_row;
    return {{c.B, c.T, c.NH, c.NKV, c.d_qk, c.d_v, q_row, k_row, v_row, o_row}, 0, k_at, v_at, v_at + rows * v_row};
}

struct Inputs { std::vector<floatX> qkv, dout, p, a; std::vector<floatM> slope; };
Inputs make_inputs(const Case& c, const Placement& at) {
    Inputs in;
    for (size_t i = 0; i < at.size; i++) in.qkv.push_back(floatX(philox_normal(1, 1, i)));
    for (size_t i = 0; i < size_t(c.B) * c.T * at.s.o_row; i++) in.dout.push_back(floatX(philox_normal(1, 2, i)));
    for (int h = 0; h < c.NH; h++) {
        in.p.push_back(floatX(0.3 + 0.5 * h));
        in.a.push_back(floatX(0.9 / (1 + h)));
        in.slope.push_back(floatM(std::exp2(-1.0 - h)));
    }
    return in;
}

// R_t x of a row of d elements at position t [rope.h], rounded before: what a rotation in a pass of its own reads.
template <class Real, class Round> void rotate_row(Real* x, int d, int t, Round round) {
    for (int i = 0; i < d / 2; i++) {
        const double angle = t * std::pow(THETA, -2.0 * i / d);
        const Real cosine = Real(std::cos(angle)), sine = Real(std::sin(angle)), a = round(x[i]), b = round(x[i + d / 2]);
        x[i] = a * cosine - b * sine;
        x[i + d / 2] = b * cosine + a * sine;
    }
}

// The textbook's formulas, in Real arithmetic; round(x) is applied to every matrix that such an implementation would store.
// dp_scale, da_scale: the size of the terms that cancel in dp and da, see below.
struct Answer { Doubles o, lse, dqkv, dp, da, dp_scale, da_scale; };
template <class Real, class Round> Answer naive_attention(const Case& c, const Placement& at, const Inputs& in, Round round) {
    const SdpaShape& s = at.s;
    const Doubles per_head(c.NH);
    Answer r{Doubles(size_t(c.B) * c.T * s.o_row, SENTINEL), Doubles(size_t(c.B) * c.NH * c.T), Doubles(at.size, SENTINEL),
             per_head, per_head, per_head, per_head};
    const Real scale = Real(1 / std::sqrt(double(c.d_qk)));
    for (int b = 0; b < c.B; b++)
        for (int kv = 0; kv < c.NKV; kv++) {
            std::vector<Real> dk(size_t(c.T) * c.d_qk), dv(size_t(c.T) * c.d_v);
            for (int h = kv * (c.NH / c.NKV); h < (kv + 1) * (c.NH / c.NKV); h++) {
                auto row = [&](size_t start, size_t stride, int t, int head, int d) {
                    return start + (size_t(b) * c.T + t) * stride + size_t(head) * d;
                };
                auto q = [&](int t, int x) { return Real(in.qkv[row(at.q, s.q_row, t, h, c.d_qk) + x]); };
                auto k = [&](int t, int x) { return Real(in.qkv[row(at.k, s.k_row, t, kv, c.d_qk) + x]); };
                auto v = [&](int t, int x) { return Real(in.qkv[row(at.v, s.v_row, t, kv, c.d_v) + x]); };
                const Real p_h = Real(in.p[h]), a_h = Real(in.a[h]);
                for (int i = 0; i < c.T; i++) {
                    std::vector<Real> P(i + 1), dP(i + 1);
                    Real top = -std::numeric_limits<Real>::infinity(), sum = 0, D = 0;
                    for (int j = 0; j <= i; j++) {
                        Real score = 0;
                        for (int x = 0; x < c.d_qk; x++) score += q(i, x) * k(j, x);
                        score *= scale;
                        if (c.bias == BiasKind::alibi) score -= Real(in.slope[h]) * Real(i - j);
                        if (c.bias == BiasKind::power) score -= p_h * std::log(1 + a_h * Real(i - j));
                        P[j] = round(score);
                        top = std::max(top, P[j]);
                    }
                    for (int j = 0; j <= i; j++) sum += P[j] = std::exp(P[j] - top);
                    for (int j = 0; j <= i; j++) P[j] = round(P[j] / sum);
                    r.lse[(size_t(b) * c.NH + h) * c.T + i] = double(top + std::log(sum));
                    std::vector<Real> o(c.d_v), dq(c.d_qk);
                    for (int x = 0; x < c.d_v; x++)
                        for (int j = 0; j <= i; j++) o[x] += P[j] * v(j, x);
                    if (c.o_rotated) rotate_row(o.data(), c.d_v, -i, round);
                    for (int x = 0; x < c.d_v; x++) r.o[row(0, s.o_row, i, h, c.d_v) + x] = double(round(o[x]));
                    std::vector<Real> dout(c.d_v);
                    for (int x = 0; x < c.d_v; x++) dout[x] = Real(in.dout[row(0, s.o_row, i, h, c.d_v) + x]);
                    if (c.o_rotated) {
                        rotate_row(dout.data(), c.d_v, i, round);
                        for (Real& x : dout) x = round(x);
                    }
                    for (int j = 0; j <= i; j++) {
                        for (int x = 0; x < c.d_v; x++) dP[j] += dout[x] * v(j, x);
                        dP[j] = round(dP[j]);
                        D += P[j] * dP[j];
                    }
                    double row_p = 0, row_a = 0;
                    for (int j = 0; j <= i; j++) {
                        Real dS = round(P[j] * (dP[j] - D)), log_d = std::log(1 + a_h * Real(i - j)),
                             ratio = Real(i - j) / (1 + a_h * Real(i - j));
                        for (int x = 0; x < c.d_v; x++) dv[size_t(j) * c.d_v + x] += P[j] * dout[x];
                        for (int x = 0; x < c.d_qk; x++) {
                            dk[size_t(j) * c.d_qk + x] += scale * dS * q(i, x);
                            dq[x] += scale * dS * k(j, x);
                        }
                        r.dp[h] -= double(dS * log_d);
                        r.da[h] -= double(dS * p_h * ratio);
                        double size = double(P[j]) * (std::fabs(double(dP[j])) + std::fabs(double(D)));
                        row_p += size * double(log_d);
                        row_a += size * double(p_h * ratio);
                    }
                    r.dp_scale[h] += row_p * row_p;
                    r.da_scale[h] += row_a * row_a;
                    if (c.rotated) rotate_row(dq.data(), c.d_qk, -i, round);
                    for (int x = 0; x < c.d_qk; x++) r.dqkv[row(at.q, s.q_row, i, h, c.d_qk) + x] = double(round(dq[x]));
                }
            }
            for (int t = 0; t < c.T; t++) {
                const size_t token = size_t(b) * c.T + t, k_row = at.k + token * s.k_row + size_t(kv) * c.d_qk;
                const size_t v_row = at.v + token * s.v_row + size_t(kv) * c.d_v;
                Real *dk_t = &dk[size_t(t) * c.d_qk], *dv_t = &dv[size_t(t) * c.d_v];
                if (c.k_is_v)
                    for (int x = 0; x < c.d_v; x++) dk_t[x] = dv_t[x] += dk_t[x];
                if (c.rotated) rotate_row(dk_t, c.d_qk, -t, round);
                for (int x = 0; x < c.d_v; x++) r.dqkv[v_row + x] = double(round(c.k_is_v ? dk_t[x] : dv_t[x]));
                for (int x = 0; x < c.d_qk && !c.k_is_v; x++) r.dqkv[k_row + x] = double(round(dk_t[x]));
            }
        }
    for (int h = 0; h < c.NH; h++) r.dp_scale[h] = std::sqrt(r.dp_scale[h]), r.da_scale[h] = std::sqrt(r.da_scale[h]);
    return r;
}

struct Outputs { std::vector<floatX> o, dqkv; std::vector<floatM> lse, dp, da; };
Outputs run_sdpa(const Case& c, const Placement& at, const Inputs& in, bool accumulate, double before) {
    const std::vector<floatM> head_before(c.NH, floatM(before));
    Device<floatX> qkv(in.qkv), dout(in.dout), p(in.p), a(in.a);
    Device<floatX> o(std::vector<floatX>(in.dout.size(), floatX(SENTINEL))), dqkv(std::vector<floatX>(at.size, floatX(SENTINEL)));
    Device<floatM> slope(in.slope), lse(std::vector<floatM>(size_t(c.B) * c.NH * c.T)), dp(head_before), da(head_before);
    PositionBias bias;
    bias.kind = c.bias;
    if (c.bias == BiasKind::alibi) bias.slope = slope.p;
    if (c.bias == BiasKind::power) bias.p = p.p, bias.a = a.p;
    std::vector<floatM> angles(size_t(c.T) * c.d_qk), o_angles(size_t(c.T) * c.d_v);
    rope_table(angles.data(), c.T, c.d_qk, THETA);
    rope_table(o_angles.data(), c.T, c.d_v, THETA);
    Device<floatM> rope(angles), o_rope(o_angles);
    const floatM *rotated = c.rotated ? rope.p : nullptr, *o_rotated = c.o_rotated ? o_rope.p : nullptr;
    sdpa_forward(o.p, lse.p, qkv.p + at.q, qkv.p + at.k, qkv.p + at.v, bias, at.s, o_rotated);
    const std::vector<floatX> o_forward = o.get();
    sdpa_backward(dqkv.p + at.q, dqkv.p + at.k, dqkv.p + at.v, dp.p, da.p, dout.p, o.p, lse.p, qkv.p + at.q,
                  qkv.p + at.k, qkv.p + at.v, bias, at.s, accumulate, rotated, o_rotated);
    return {o_forward, dqkv.get(), lse.get(), dp.get(), da.get()};
}

// Compares n elements at `start`, `stride` apart in `rows` rows.
template <class T>
void check_rows(const std::string& tensor, const std::vector<T>& got, const Doubles& want, const Doubles& naive, size_t start, size_t rows,
                size_t stride, size_t n, int terms) {
    double error = 0, naive_error = 0, largest = 0;
    size_t worst = start;
    for (size_t r = 0; r < rows; r++)
        for (size_t x = 0; x < n; x++) {
            size_t i = start + r * stride + x;
            double e = std::fabs(double(got[i]) - want[i]);
            if (!(e <= error)) error = e, worst = i;             // catches NaN too
            naive_error = std::max(naive_error, std::fabs(naive[i] - want[i]));
            largest = std::max(largest, std::fabs(want[i]));
        }
    double atol = 2 * EPS * largest + 8 * std::sqrt(double(terms)) * EPS_ARITHMETIC * (1 + largest);
    INFO(tensor, "[", worst - start, "] = ", double(got[worst]), ", want ", want[worst], "; max error ", error,
         ", naive ", naive_error, ", atol ", atol);
    CHECK(error <= 2 * naive_error + atol);
}

void check(const Case& c) {
    INFO(name(c));
    backend_init(0);
    const Placement at = place(c);
    const SdpaShape& s = at.s;
    const Inputs in = make_inputs(c, at);
    const Answer want = naive_attention<double>(c, at, in, [](double x) { return x; });
    const Answer naive = naive_attention<floatM>(c, at, in, [](floatM x) { return floatM(floatX(x)); });
    const bool accumulate = c.T % 2 == 1;
    const double before = 3;
    const int terms = std::max({c.T, c.d_qk, c.d_v});
    Outputs got = run_sdpa(c, at, in, accumulate, before);
    const size_t rows = size_t(c.B) * c.T;
    check_rows("o", got.o, want.o, naive.o, 0, rows, s.o_row, size_t(c.NH) * c.d_v, terms);
    check_rows("dq", got.dqkv, want.dqkv, naive.dqkv, at.q, rows, s.q_row, size_t(c.NH) * c.d_qk, terms);
    if (!c.k_is_v) check_rows("dk", got.dqkv, want.dqkv, naive.dqkv, at.k, rows, s.k_row, size_t(c.NKV) * c.d_qk, terms);
    check_rows("dv", got.dqkv, want.dqkv, naive.dqkv, at.v, rows, s.v_row, size_t(c.NKV) * c.d_v, terms);
    // The log-sum-exp is never rounded to floatX: exact products of floatX, sums in floatM.
    for (size_t i = 0; i < want.lse.size(); i++)
        if (!(std::fabs(double(got.lse[i]) - want.lse[i]) <= 32 * EPS_ARITHMETIC * (1 + std::fabs(want.lse[i])))) {
            INFO("lse[", i, "] = ", double(got.lse[i]), ", want ", want.lse[i]);
            CHECK(false);
            break;
        }
    // dp and da are sums of signed terms that cancel: naive's error may be small by luck. Instead: each row's terms carry one
    // common rounding (D's) of at most 2 EPS, independent between rows, so the sum's error is about EPS sqrt(sum over rows); 4 of that.
    if (c.bias == BiasKind::power)
        for (int h = 0; h < c.NH; h++) {
            double start = accumulate ? before : 0;
            INFO("head ", h, ": dp ", double(got.dp[h]), ", want ", want.dp[h] + start, "; da ", double(got.da[h]),
                 ", want ", want.da[h] + start);
            auto tolerance = [&](double value, double scale) {
                return 4 * EPS * scale + 16 * EPS_ARITHMETIC * (start + std::fabs(value) + scale);
            };
            CHECK(std::fabs(double(got.dp[h]) - want.dp[h] - start) <= tolerance(want.dp[h], want.dp_scale[h]));
            CHECK(std::fabs(double(got.da[h]) - want.da[h] - start) <= tolerance(want.da[h], want.da_scale[h]));
        }
    else
        CHECK(double(got.dp[0]) == before);
    size_t touched = 0;                                          // padding, and in the fused row what lies between
    for (size_t i = 0; i < got.o.size(); i++) touched += i % s.o_row >= s.o_row - PAD && double(got.o[i]) != SENTINEL;
    for (size_t i = 0; i < got.dqkv.size(); i++) touched += want.dqkv[i] == SENTINEL && double(got.dqkv[i]) != SENTINEL;
    CHECK(touched == 0);
    Outputs again = run_sdpa(c, at, in, accumulate, before);     // same bits
    CHECK(std::memcmp(again.dqkv.data(), got.dqkv.data(), got.dqkv.size() * sizeof(floatX)) == 0);
    CHECK(std::memcmp(again.dp.data(), got.dp.data(), got.dp.size() * sizeof(floatM)) == 0);
}

// Under a sanitizer, some ten times slower, fewer lengths, each with a tail behind a full tile; head sizes all the same.
#if defined(EMU_ASAN) || defined(EMU_TSAN)
constexpr bool SHORT_RUN = true;
#else
constexpr bool SHORT_RUN = false;
#endif
constexpr BiasKind BIASES[] = {BiasKind::none, BiasKind::alibi, BiasKind::power};
}  // namespace

TEST_CASE("sdpa at every awkward length") {
    int turn = 0;
    for (int T : {1, 5, 63, 64, 65, 130, 200}) {
        if (SHORT_RUN && T != 5 && T != 130) continue;
        check({1, T, 2, 1, 64, 64, false, BIASES[turn % 3]});
        check({1, T, 1, 1, 64, 64, true, BIASES[(turn + 1) % 3], Layout::separate});
        check({1, T, 1, 1, 6, 6, false, BIASES[(turn + 2) % 3]});
        turn++;
    }
}

TEST_CASE("sdpa at every head size") {
    struct { int d_qk, d_v; } sizes[] = {{32, 32}, {48, 32}, {96, 64}, {96, 96}, {128, 128}, {192, 128}, {20, 20},
                                         {12, 8}, {80, 80}, {256, 256}};
    for (auto [d_qk, d_v] : sizes) {
        const int T = d_qk == 256 ? 37 : 70;
        if (!SHORT_RUN) check({1, T, 1, 1, d_qk, d_v, false, BiasKind::none, Layout::fused});
        check({1, T, 1, 1, d_qk, d_v, false, BiasKind::power, Layout::separate});
        if (d_qk == d_v) check({1, SHORT_RUN ? T : T + 64, 1, 1, d_qk, d_v, true, BiasKind::power, Layout::fused});
    }
}

TEST_CASE("sdpa with grouped heads and more than one sequence") {
    for (BiasKind bias : BIASES) {
        check({2, 67, 4, 2, 32, 32, false, bias, Layout::fused});
        check({2, 67, 3, 1, 32, 32, true, bias, Layout::fused});
        check({2, 19, 4, 2, 6, 4, false, bias, Layout::separate});
        if (SHORT_RUN) continue;
        check({2, 33, 4, 2, 6, 6, true, bias, Layout::fused});
        check({2, 131, 6, 2, 48, 32, false, bias, Layout::separate});
    }
}

// Gradients of what was rotated: in registers on tensor cores, by rope_backward afterwards elsewhere. Rows past the end have no angles.
TEST_CASE("sdpa's gradients before the rotation") {
    struct { int d_qk, d_v; } sizes[] = {{32, 32}, {48, 32}, {64, 64}, {96, 96}, {128, 128}, {192, 128}, {6, 6}};
    for (auto [d_qk, d_v] : sizes)
        for (bool k_is_v : {false, true}) {
            if (k_is_v && d_qk != d_v) continue;
            check({2, 37, 4, 2, d_qk, d_v, k_is_v, BiasKind::none, k_is_v ? Layout::fused : Layout::separate, true});
            if (!SHORT_RUN && d_qk <= 64) check({1, 150, 1, 1, d_qk, d_v, k_is_v, BiasKind::alibi, Layout::fused, true});
        }
}

// The output rotated back, as for values that were rotated: in registers on tensor cores, by rope_forward afterwards elsewhere.
TEST_CASE("sdpa with its output rotated back") {
    struct { int d_qk, d_v; } sizes[] = {{32, 32}, {48, 32}, {64, 64}, {96, 96}, {128, 128}, {192, 128}, {6, 6}};
    for (auto [d_qk, d_v] : sizes)
        for (bool k_is_v : {false, true}) {
            if (k_is_v && d_qk != d_v) continue;
            check({2, 37, 4, 2, d_qk, d_v, k_is_v, BiasKind::none, k_is_v ? Layout::fused : Layout::separate, k_is_v, true});
            if (!SHORT_RUN && d_qk <= 64) check({1, 150, 1, 1, d_qk, d_v, k_is_v, BiasKind::alibi, Layout::fused, true, true});
        }
}

// A row of a tensor that is not 16-byte aligned: the tensor-core kernels cannot read it, the plain ones must take over.
TEST_CASE("sdpa with rows that no vector load can read") {
    Case c{1, 9, 1, 1, 32, 32, false, BiasKind::none, Layout::fused};
    Placement at = place(c);
    Inputs in = make_inputs(c, at);
    Answer want = naive_attention<double>(c, at, in, [](double x) { return x; });
    in.qkv.insert(in.qkv.begin(), floatX(0));                   // all starts move by one element
    at.q++, at.k++, at.v++, at.size++;
    Outputs got = run_sdpa(c, at, in, false, 0);
    for (int t = 0; t < c.T; t++)
        for (int x = 0; x < c.d_v; x++)
            REQUIRE(double(got.o[t * at.s.o_row + x]) ==
                    doctest::Approx(want.o[t * at.s.o_row + x]).epsilon(0.05).scale(1));
}

// One query per sequence attends to itself alone: O = V to the bit, dV = dO, dQ = dK = 0 up to the rounding of D.
TEST_CASE("sdpa of one position") {
    Case c{2, 1, 2, 2, 64, 64};
    Placement at = place(c);
    Inputs in = make_inputs(c, at);
    Outputs got = run_sdpa(c, at, in, false, 0);
    for (int b = 0; b < 2; b++)
        for (int x = 0; x < 128; x++) {
            REQUIRE(double(got.o[b * at.s.o_row + x]) == double(in.qkv[at.v + b * at.s.v_row + x]));
            REQUIRE(double(got.dqkv[at.v + b * at.s.v_row + x]) == double(in.dout[b * at.s.o_row + x]));
            REQUIRE(std::fabs(double(got.dqkv[at.q + b * at.s.q_row + x])) < 1e-5);
        }
}

TEST_CASE("sdpa refuses impossible shapes") {
    if (std::string(backend_name()) == "cpu") return;           // there the model's own checks come first
    floatX x{};
    floatM m{};
    auto forward = [&](SdpaShape s) { sdpa_forward(&x, &m, &x, &x, &x, PositionBias{}, s); };
    CHECK_THROWS_WITH_AS(forward({1, 4, 3, 2, 6, 6, 8, 8, 8, 8}), doctest::Contains("NKV must divide NH"), Error);
    CHECK_THROWS_WITH_AS(forward({1, 4, 1, 1, 257, 6, 300, 300, 8, 8}), doctest::Contains("go up to 256"), Error);
}

#if defined(BACKEND_EMU) && defined(PRECISION_bf16)
// No 8 rows of an ldmatrix and no 8 lanes of a 16-byte access meet in one bank, for any head size that has a tensor-core kernel.
TEST_CASE("sdpa's shared memory has no bank conflicts") {
    emu::Stats& seen = emu::stats();
    seen = {};                                                   // another suite in this program plants conflicts
    struct { int d_qk, d_v; } sizes[] = {{32, 32}, {48, 32}, {64, 64}, {96, 64}, {96, 96}, {128, 128}, {192, 128}};
    for (auto [d_qk, d_v] : sizes)
        for (bool k_is_v : {false, true})
            if (!k_is_v || d_qk == d_v) check({1, 70, 1, 1, d_qk, d_v, k_is_v});
    CHECK(seen.ldmatrix_phases > 1000);
    CHECK(seen.ldmatrix_conflicts == 0);
    CHECK(seen.access_phases > 100);
    CHECK(seen.access_conflicts == 0);
}
#endif
