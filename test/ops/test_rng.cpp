// Philox against the authors' known answers, and what is built on it against its distribution. Not a test of randomness (BigCrush is).
#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <vector>

#include "runtime/device/rng.h"

TEST_CASE("philox4x32-10: known answers (Random123, kat_vectors)") {
    struct { uint64_t seed, stream, index; uint32_t expected[4]; } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        // counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0 (digits of pi), low words first
        {0x299f31d0a4093822ull, 0x0370734413198a2eull, 0x85a308d3243f6a88ull, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (const auto& c : cases) {
        const Philox r = philox(c.seed, c.stream, c.index);
        for (int i = 0; i < 4; i++) CHECK(r.x[i] == c.expected[i]);
    }
}

TEST_CASE("philox is a pure function; seed, stream and index each matter") {
    std::set<uint32_t> seen;
    for (uint64_t seed = 0; seed < 3; seed++)
        for (uint64_t stream : {uint64_t(0), uint64_t(1), uint64_t(1) << 32})
            for (uint64_t index : {uint64_t(0), uint64_t(1), uint64_t(1) << 32}) {
                CHECK(philox(seed, stream, index).x[0] == philox(seed, stream, index).x[0]);
                seen.insert(philox(seed, stream, index).x[0]);
            }
    CHECK(seen.size() == 27);
}

TEST_CASE("uniform and normal have their moments") {
    const int n = 200'000;
    double mean = 0, variance = 0, normal_mean = 0, normal_square = 0, normal_fourth = 0;
    for (int i = 0; i < n; i++) {
        for (int lane = 0; lane < 2; lane++) {
            const double u = philox_uniform(7, rng_stream("test"), i, lane);
            REQUIRE(u >= 0);
            REQUIRE(u < 1);
            mean += u / (2 * n);
            variance += (u - 0.5) * (u - 0.5) / (2 * n);
        }
        const double z = philox_normal(7, rng_stream("test"), i);
        normal_mean += z / n;
        normal_square += z * z / n;
        normal_fourth += z * z * z * z / n;
    }
    // Five standard errors each: fixed numbers, so this never fails by chance.
    CHECK(std::abs(mean - 0.5) < 5 * std::sqrt(1.0 / 12 / (2 * n)));
    CHECK(std::abs(variance - 1.0 / 12) < 5 * std::sqrt(1.0 / 180 / (2 * n)));
    CHECK(std::abs(normal_mean) < 5 / std::sqrt(n));
    CHECK(std::abs(normal_square - 1) < 5 * std::sqrt(2.0 / n));
    CHECK(std::abs(normal_fourth - 3) < 5 * std::sqrt(96.0 / n));
}

TEST_CASE("below: in range, all values, evenly") {
    for (uint32_t n : {1u, 2u, 7u, 1000u}) {
        std::vector<int> count(n);
        const int draws = 200 * int(n);
        for (int i = 0; i < draws; i++) {
            const uint32_t x = philox_below(3, 5, i, n);
            REQUIRE(x < n);
            count[x]++;
        }
        double chi2 = 0;
        for (int c : count) chi2 += (c - 200.0) * (c - 200.0) / 200;
        CHECK(chi2 < (n - 1) + 5 * std::sqrt(2.0 * n));
    }
    CHECK(philox_below(1, 2, 3, 0xffffffffu) < 0xffffffffu);
}

TEST_CASE("streams: FNV-1a of the name") {
    CHECK(rng_stream("") == 0xcbf29ce484222325ull);
    CHECK(rng_stream("a") == 0xaf63dc4c8601ec8cull);           // the reference's test vectors
    CHECK(rng_stream("foobar") == 0x85944171f73967e8ull);
}
