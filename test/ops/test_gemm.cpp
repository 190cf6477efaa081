// The CPU's matrix products (layers/gemm.h) against a double loop: our own, the library's, bf16 with sums in
// fp32, and oneDNN's matmul primitive in the types that this machine's processor allows; float is always
// among them, so that its strides and its cache are tried everywhere.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "layers/gemm.h"
#include "runtime/device/backend.h"
#include "runtime/device/rng.h"
#include "runtime/device/types.h"

namespace {
struct Case { bool ta, tb; int m, n, k; bool accumulate, bias; };
constexpr int PAD = 3;                                       // elements behind each row

template <class T> std::vector<T> numbers(size_t n, uint64_t seed) {
    std::vector<T> v(n);
    for (size_t i = 0; i < n; i++) v[i] = T(float(philox_normal(seed, 5, i)));
    return v;
}
// Runs multiply(..) on padded matrices; true: it did, and the result was checked. Allowed: k additions in
// fp32, each off by at most 2^-24 of the sum of all terms' sizes, independently, so sqrt(k) of that; twice
// this, and a few for few terms; and one rounding to C's type.
template <class T, class C, class Multiply> bool check(const std::string& name, const Case& c, Multiply multiply) {
    const size_t lda = size_t(c.ta ? c.m : c.k) + PAD, ldb = size_t(c.tb ? c.k : c.n) + PAD, ldc = size_t(c.n) + PAD;
    const auto a = numbers<T>(size_t(c.ta ? c.k : c.m) * lda, 1), b = numbers<T>(size_t(c.tb ? c.n : c.k) * ldb, 2),
               bias = numbers<T>(size_t(c.n), 4);
    const auto before = numbers<C>(size_t(c.m) * ldc, 3);
    auto got = before;
    if (!multiply(a.data(), lda, b.data(), ldb, got.data(), ldc, c.bias ? bias.data() : nullptr)) return false;
    const std::string how = std::string(c.ta ? ", A transposed" : "") + (c.tb ? ", B transposed" : "") +
                            (c.accumulate ? ", added" : "") + (c.bias ? ", bias" : "");
    INFO(name, ": m ", c.m, ", n ", c.n, ", k ", c.k, how);
    for (int i = 0; i < c.m; i++)
        for (size_t j = 0; j < ldc; j++) {
            const size_t at = size_t(i) * ldc + j;
            if (j >= size_t(c.n)) {
                REQUIRE(float(got[at]) == float(before[at]));            // the padding is nobody's
                continue;
            }
            double want = (c.accumulate ? double(before[at]) : 0.0) + (c.bias ? double(bias[j]) : 0.0), size = std::fabs(want);
            for (int k = 0; k < c.k; k++) {
                const double term = double(c.ta ? a[size_t(k) * lda + size_t(i)] : a[size_t(i) * lda + size_t(k)]) *
                                    double(c.tb ? b[j * ldb + size_t(k)] : b[size_t(k) * ldb + j]);
                want += term, size += std::fabs(term);
            }
            const double e = std::fabs(double(got[at]) - want);
            if (!(e <= (4 + 2 * std::sqrt(double(c.k))) * 0x1p-24 * size + (sizeof(C) == 2 ? 0x1p-8 * std::fabs(want) : 0))) {
                INFO("element ", i, ", ", j, ": ", double(got[at]), ", should be ", want);
                FAIL_CHECK("wrong product");
                return true;
            }
        }
    return true;
}
std::vector<Case> cases() {
    std::vector<Case> list;
    for (bool ta : {false, true})
        for (bool tb : {false, true})
            for (bool add : {false, true})
                for (auto [m, n, k] : {std::array{1, 1, 1}, {7, 5, 3}, {33, 65, 17}, {64, 48, 96}, {19, 31, 1100}})
                    list.push_back({ta, tb, m, n, k, add, add != ta});
    return list;
}
}  // namespace

TEST_CASE("gemm: our own product and the library's in fp32") {
    for (const Case& c : cases()) {
        check<float, float>("plain", c, [&](auto a, size_t lda, auto b, size_t ldb, float* out, size_t ldc, auto bias) {
            if (bias) return false;
            gemm_plain(c.ta, c.tb, c.m, c.n, c.k, a, lda, b, ldb, c.accumulate, out, ldc);
            return true;
        });
        check<float, float>(gemm_library(), c, [&](auto a, size_t lda, auto b, size_t ldb, float* out, size_t ldc, auto bias) {
            if (bias) return false;
            gemm(c.ta, c.tb, c.m, c.n, c.k, a, lda, b, ldb, c.accumulate, out, ldc);
            return true;
        });
    }
}

TEST_CASE("gemm: bf16 with sums in fp32") {
    for (const Case& c : cases()) {
        check<bf16, bf16>("to bf16", c, [&](auto a, size_t lda, auto b, size_t ldb, bf16* out, size_t ldc, auto bias) {
            gemm(c.ta, c.tb, c.m, c.n, c.k, a, lda, b, ldb, c.accumulate, out, ldc, bias);
            return true;
        });
        check<bf16, float>("to fp32", c, [&](auto a, size_t lda, auto b, size_t ldb, float* out, size_t ldc, auto bias) {
            if (bias) return false;
            gemm(c.ta, c.tb, c.m, c.n, c.k, a, lda, b, ldb, c.accumulate, out, ldc);
            return true;
        });
    }
}

// Each shape twice: the second time from the cache of primitives. On another number of threads the same bits:
// the primitive is made for one.
TEST_CASE("gemm: oneDNN's matmul primitive") {
    int in_float = 0, in_bf16 = 0;
    for (int round = 0; round < 2; round++)
        for (const Case& c : cases()) {
            in_float += check<float, float>("oneDNN, fp32", c, [&](auto... x) {
                auto [a, lda, b, ldb, out, ldc, bias] = std::tuple{x...};
                return gemm_onednn<float, float>(c.ta, c.tb, c.m, c.n, c.k, a, lda, b, ldb, c.accumulate, out, ldc, bias);
            });
            in_bf16 += check<bf16, bf16>("oneDNN, bf16", c, [&](auto... x) {
                auto [a, lda, b, ldb, out, ldc, bias] = std::tuple{x...};
                return gemm_onednn<bf16, bf16>(c.ta, c.tb, c.m, c.n, c.k, a, lda, b, ldb, c.accumulate, out, ldc, bias);
            });
            in_bf16 += check<bf16, float>("oneDNN, bf16 to fp32", c, [&](auto... x) {
                auto [a, lda, b, ldb, out, ldc, bias] = std::tuple{x...};
                return !bias && gemm_onednn<bf16, float>(c.ta, c.tb, c.m, c.n, c.k, a, lda, b, ldb, c.accumulate, out, ldc);
            });
        }
    const bool onednn = std::string(gemm_library()).find("oneDNN") != std::string::npos;
    CHECK(in_float == (onednn ? 2 * int(cases().size()) : 0));
    if (has_bf16_products()) CHECK(in_bf16 >= 2 * int(cases().size()));
    if (!onednn) return;
    const int m = 96, n = 200, k = 700;
    const auto a = numbers<float>(size_t(m) * k, 1), b = numbers<float>(size_t(k) * n, 2);
    std::vector<float> first(size_t(m) * n), now(first.size());
    for (int threads : {1, 2, 4}) {
        backend_init(threads);
        REQUIRE(gemm_onednn<float, float>(false, false, m, n, k, a.data(), size_t(k), b.data(), size_t(n), false, now.data(), size_t(n)));
        if (threads == 1) first = now;
        CHECK(std::memcmp(first.data(), now.data(), now.size() * sizeof(float)) == 0);
    }
    backend_init(0);
}
