// attention/sdpa_naive.cpp, the form to read, against the form that this binary runs (the CPU's panels, the CUDA kernels): two
// independent ways to the same numbers, the bias's learned slopes included. test_sdpa.cpp holds each against double precision.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "attention/sdpa.h"
#include "runtime/device/backend.h"
#include "test/ops/op_common.h"

#define sdpa_forward naive_forward
#define sdpa_backward naive_backward
#define sdpa_refusal naive_refusal
#define sdpa_scratch_bytes naive_scratch_bytes
#include "attention/sdpa_naive.cpp"
#undef sdpa_forward
#undef sdpa_backward
#undef sdpa_refusal
#undef sdpa_scratch_bytes

namespace {
// |a - b| <= tolerance (1 + the largest b). In fp64 both agree to 1e-12. In fp32 and bf16 each is off by the
// roundings of products of T terms. In bf16 the kernels also round P and dS, which moves a result by about
// 2^-9 of the largest one for each of the few large terms.
template <class T> void check_equal(const char* what, const std::vector<T>& got, const std::vector<T>& want) {
    const double tolerance = sizeof(floatX) == 8 ? 1e-12 : sizeof(floatX) == 4 ? 1e-5 : 0x1p-6;
    double largest = 0, error = 0;
    for (size_t i = 0; i < want.size(); i++) {
        largest = std::max(largest, std::fabs(double(want[i])));
        double e = std::fabs(double(got[i]) - double(want[i]));
        if (!(e <= error)) error = e;
    }
    INFO(std::string(what), ": error ", error, ", largest ", largest);
    CHECK(error <= tolerance * (1 + largest));
}

void compare(const SdpaShape& s, BiasKind kind, bool k_is_v) {
    const size_t rows = size_t(s.B) * s.T, heads = size_t(s.NH);
    auto q = normal_vector<floatX>(rows * s.q_row, 1), k = normal_vector<floatX>(rows * s.k_row, 2),
         v = normal_vector<floatX>(rows * s.v_row, 3);
    auto dout = normal_vector<floatX>(rows * s.o_row, 4), p = normal_vector<floatX>(heads, 5, 0.1, 1),
         a = normal_vector<floatX>(heads, 6, 0.1, 0.5);
    auto slope = normal_vector<floatM>(heads, 7, 0.1, 0.5);
    if (k_is_v) v = k;
    auto bias_of = [&](const floatM* m, const floatX* pp, const floatX* aa) {
        PositionBias bias;
        bias.kind = kind;
        if (kind == BiasKind::alibi) bias.slope = m;
        if (kind == BiasKind::power) bias.p = pp, bias.a = aa;
        return bias;
    };
    // host memory for the loops
    std::vector<floatX> o(dout.size()), dq(q.size()), dk(k.size()), dv(v.size());
    std::vector<floatM> lse(rows * heads), dp(heads, floatM(2)), da(heads, floatM(3));
    const floatX* value = k_is_v ? k.data() : v.data();
    floatX* d_value = k_is_v ? dk.data() : dv.data();
    const PositionBias bias = bias_of(slope.data(), p.data(), a.data());
    naive_forward(o.data(), lse.data(), q.data(), k.data(), value, bias, s, nullptr);
    naive_backward(dq.data(), dk.data(), d_value, dp.data(), da.data(), dout.data(), o.data(), lse.data(), q.data(),
                   k.data(), value, bias, s, true, nullptr, nullptr);
    // device memory for the form under test; its backward gets the loops' O, so that only the backward is compared
    DX Q(q), K(k), V(v), dO(dout), O(o.size()), dQ(dq.size()), dK(dk.size()), dV(dv.size()), P(p), A(a);
    DM slopes(slope), L(lse.size()), dP(std::vector<floatM>(heads, floatM(2))), dA(std::vector<floatM>(heads, floatM(3)));
    const PositionBias there = bias_of(slopes, P, A);
    sdpa_forward(O, L, Q, K, k_is_v ? K.p : V.p, there, s);
    check_equal("o", O.get(), o);
    check_equal("lse", L.get(), lse);
    copy_to_device(O.p, o.data(), o.size() * sizeof(floatX));
    sdpa_backward(dQ, dK, k_is_v ? dK.p : dV.p, dP, dA, dO, O, L, Q, K, k_is_v ? K.p : V.p, there, s, true);
    check_equal("dq", dQ.get(), dq);
    check_equal("dk", dK.get(), dk);
    if (!k_is_v) check_equal("dv", dV.get(), dv);
    if (kind != BiasKind::power || sizeof(floatX) == 2) return;          // sums that cancel: test_sdpa.cpp has their rule in bf16
    check_equal("dp", dP.get(), dp);
    check_equal("da", dA.get(), da);
}
}  // namespace

TEST_CASE("sdpa agrees with the textbook's loops") {
    backend_init(0);
    for (BiasKind kind : {BiasKind::none, BiasKind::alibi, BiasKind::power}) {
        compare({1, 67, 4, 2, 16, 12, 64, 32, 24, 48}, kind, false);
        compare({2, 33, 3, 1, 8, 8, 24, 8, 8, 24}, kind, true);
    }
    compare({1, 1, 2, 2, 6, 6, 12, 12, 12, 12}, BiasKind::none, false);
    compare({1, 130, 2, 2, 32, 32, 64, 64, 64, 64}, BiasKind::power, false);
}
