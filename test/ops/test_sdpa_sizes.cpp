// Which head sizes attention has a kernel for: the refusal, the sizes it names and the kernels themselves must agree.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "attention/sdpa.h"
#include "runtime/device/backend.h"
#include "runtime/run/error.h"
#include "runtime/device/rng.h"

// The pairs "(64,64)" in a text.
[[maybe_unused]] static std::vector<std::pair<int, int>> pairs_in(const std::string& text) {
    std::vector<std::pair<int, int>> pairs;
    for (size_t i = text.find('('); i != std::string::npos; i = text.find('(', i + 1)) {
        int a = 0, b = 0;
        if (sscanf(text.c_str() + i, "(%d,%d)", &a, &b) == 2) pairs.push_back({a, b});
    }
    return pairs;
}

// sdpa of a few positions; the attention of one position to itself alone is v.
static void check_first_row(int d_qk, int d_v, bool k_is_v) {
    const SdpaShape s{1, 3, 1, 1, d_qk, d_v, size_t(d_qk), size_t(d_qk), size_t(d_v), size_t(d_v)};
    const size_t n = size_t(s.T) * size_t(d_qk), m = size_t(s.T) * size_t(d_v);
    std::vector<floatX> q(n), v(k_is_v ? n : m), o(m);
    for (size_t i = 0; i < q.size(); i++) q[i] = floatX(float(philox_normal(1, 1, i)));
    for (size_t i = 0; i < v.size(); i++) v[i] = floatX(float(philox_normal(1, 2, i)));
    auto to_device = [](const std::vector<floatX>& x) {
        floatX* p = device_alloc_array<floatX>(x.size());
        copy_to_device(p, x.data(), x.size() * sizeof(floatX));
        return p;
    };
    floatX *Q = to_device(q), *V = to_device(v), *O = to_device(o);
    floatM* lse = device_alloc_array<floatM>(size_t(s.T));
    sdpa_forward(O, lse, Q, k_is_v ? V : Q, V, PositionBias{}, s);
    copy_to_host(o.data(), O, o.size() * sizeof(floatX));
    INFO("d_qk ", d_qk, " d_v ", d_v, k_is_v ? " K==V" : "");
    for (int x = 0; x < d_v; x++) REQUIRE(double(o[size_t(x)]) == double(v[size_t(x)]));
    for (floatX* p : {Q, V, O}) device_free(p);
    device_free(lse);
}

TEST_CASE("sdpa: impossible head sizes are refused, and the refusal says which were asked for") {
    for (auto size : {std::pair{0, 64}, {64, 0}, {-8, -8}, {100000, 64}, {64, 100000}}) {
        const int d_qk = size.first, d_v = size.second;      // INFO's lambda cannot capture a structured binding before clang 16
        if (std::string(backend_name()) == "cpu" && d_qk > 0 && d_v > 0) continue;       // any size fits there
        std::string refusal = sdpa_refusal(d_qk, d_v);
        INFO("d_qk ", d_qk, ", d_v ", d_v, ": ", refusal);
        if (std::string(backend_name()) == "cpu" && refusal.empty()) continue;           // the options' own ranges come first
        CHECK(refusal.find(format("d_qk %d", d_qk)) != std::string::npos);
        CHECK(refusal.find(format("d_v %d", d_v)) != std::string::npos);
        CHECK(refusal.find('\n') == std::string::npos);
    }
}

#ifdef PRECISION_bf16
TEST_CASE("sdpa: the sizes that a refusal names are exactly those with a bf16 kernel, and they run") {
    if (std::string(backend_name()) == "cpu") return;           // it has no list: any size fits
    backend_init(0);
    const auto listed = pairs_in(sdpa_refusal(7, 9));
    CHECK(listed.size() >= 7);
    auto is_listed = [&](int a, int b) { return std::find(listed.begin(), listed.end(), std::pair{a, b}) != listed.end(); };
    for (int d_qk = 1; d_qk <= 300; d_qk++)
        for (int d_v = 1; d_v <= 300; d_v++)
            if (sdpa_refusal(d_qk, d_v).empty() != is_listed(d_qk, d_v)) {
                INFO("d_qk ", d_qk, ", d_v ", d_v, ": \"", sdpa_refusal(d_qk, d_v), "\"");
                CHECK(false);
            }
    for (auto [d_qk, d_v] : listed) {
        check_first_row(d_qk, d_v, false);
        if (d_qk == d_v) check_first_row(d_qk, d_v, true);
    }
}
#endif

TEST_CASE("sdpa: the sizes of this precision run up to the largest") {
    if (sizeof(floatX) == 2 && std::string(backend_name()) != "cpu") return;         // those have a list
    backend_init(0);
    for (auto [d_qk, d_v] : {std::pair{1, 1}, {7, 9}, {64, 64}, {256, 256}, {192, 128}}) {
        CHECK(sdpa_refusal(d_qk, d_v) == "");
        check_first_row(d_qk, d_v, d_qk == d_v);
    }
}

TEST_CASE("sdpa: scratch for the backward grows with the shape and with the bias") {
    const SdpaShape s{4, 1000, 6, 6, 64, 64, 384, 384, 384, 384};
    SdpaShape twice = s;
    twice.B *= 2;
    const size_t bytes = sdpa_scratch_bytes(s, BiasKind::none);
    if (bytes == 0) return;                                      // SDPA=naive keeps nothing
    CHECK(bytes >= size_t(8) * 4 * 6 * 1000);
    CHECK(sdpa_scratch_bytes(twice, BiasKind::none) - 2 * bytes + 512 <= 512);         // but for a constant
    CHECK(sdpa_scratch_bytes(s, BiasKind::alibi) == bytes);
    CHECK(sdpa_scratch_bytes(s, BiasKind::power) > bytes);
}
