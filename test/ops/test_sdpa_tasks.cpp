// How the CPU's attention is divided (attention/sdpa_tasks.h): the parts cover a head once, tasks counted on paper keep 1 to 128 threads
// busy, and no bit depends on the number of threads.
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "attention/sdpa_tasks.h"
#include "attention/sdpa.h"
#include "test/ops/op_common.h"

namespace {
constexpr int UNIT = 48, KEY_UNIT = 32;                      // a panel's queries, a tile's keys with AVX-512; AVX2's 24 and 16 divide finer

// Pairs (query, key) that a part of one head computes.
double area(Triangle side, int T, Range r) {
    double pairs = 0;
    for (int t = r.begin; t < r.end; t++) pairs += side == Triangle::queries ? t + 1 : T - t;
    return pairs;
}
// When tasks go, in order, each to the thread that is free first (schedule(dynamic, 1)): when the last one ends.
double makespan(const std::vector<double>& tasks, int threads) {
    std::vector<double> busy(size_t(threads), 0.0);
    for (double cost : tasks) *std::min_element(busy.begin(), busy.end()) += cost;
    return *std::max_element(busy.begin(), busy.end());
}
std::vector<double> forward_tasks(int heads, int T, int threads) {
    std::vector<double> tasks;
    const int parts = parts_per_head(heads, T, UNIT, threads);
    for (int part = 0; part < parts; part++)
        tasks.insert(tasks.end(), size_t(heads),
                     2 * area(Triangle::queries, T, triangle_task(Triangle::queries, T, UNIT, part, parts)));
    return tasks;
}
std::vector<double> backward_tasks(int heads, int T, int threads) {
    if (!split_heads(heads, threads)) return std::vector<double>(size_t(heads), WHOLE_PRODUCTS * area(Triangle::queries, T, {0, T}));
    std::vector<double> tasks;
    const int keys = parts_per_head(2 * heads, T, KEY_UNIT, threads), queries = parts_per_head(2 * heads, T, UNIT, threads);
    for (int i = 0; i < keys; i++)
        tasks.insert(tasks.end(), size_t(heads),
                     KEY_PRODUCTS * area(Triangle::keys, T, triangle_task(Triangle::keys, T, KEY_UNIT, i, keys)));
    for (int i = 0; i < queries; i++)
        tasks.insert(
            tasks.end(), size_t(heads),
            QUERY_PRODUCTS * area(Triangle::queries, T, triangle_task(Triangle::queries, T, UNIT, i, queries)));
    return tasks;
}
double sum(const std::vector<double>& v) {
    double total = 0;
    for (double x : v) total += x;
    return total;
}
}  // namespace

TEST_CASE("sdpa's parts cover every position once, in order") {
    for (Triangle side : {Triangle::queries, Triangle::keys})
        for (int T : {1, 31, 48, 49, 200, 1024, 4099})
            for (int unit : {16, 24, 48})
                for (int parts : {1, 2, 3, 7, 64}) {
                    int at = 0;
                    for (int part = 0; part < parts; part++) {
                        Range r = triangle_part(side, T, unit, part, parts);
                        REQUIRE(r.begin == at);
                        REQUIRE(r.end >= r.begin);
                        REQUIRE((r.begin % unit == 0 || r.begin == T));
                        at = r.end;
                    }
                    REQUIRE(at == T);
                }
}

// The speed-up over one thread, which computes the backward's five products where the cut costs seven. What can be reached is bounded by
// the threads and by the largest panel, one UNIT of T queries that see T keys: 1 / (2 UNIT / T) of a head.
TEST_CASE("sdpa's tasks keep 1 to 128 threads busy") {
    struct { const char* what; int heads, T;
    } shapes[] = {{"one sequence of 4096, 12 heads", 12, 4096},
                  {"one of 4096, one head", 1, 4096},
                  {"4 of 1024, 12 heads", 48, 1024},
                  {"8 of 256, 6 heads", 48, 256},
                  {"16 of 128, 4 heads", 64, 128}};
    for (auto [what, heads, T] : shapes) {
        const double pairs = heads * area(Triangle::queries, T, {0, T}), widest = heads * std::max(1.0, T / (2.0 * UNIT));
        double one_fewer = 0;
        for (int threads = 1; threads <= 128; threads++) {
            const double forward = 2 * pairs / makespan(forward_tasks(heads, T, threads), threads);
            const double backward = WHOLE_PRODUCTS * pairs / makespan(backward_tasks(heads, T, threads), threads);
            const std::string line = std::string(what) + ", " + std::to_string(threads) + " threads: forward " +
                                     std::to_string(forward) + " times one thread's speed, backward " +
                                     std::to_string(backward);
            if (getenv("SHOW_TASKS")) printf("%s\n", line.c_str());
            INFO(line);
            CHECK(forward >= 0.75 * std::min(double(threads), widest));
            CHECK(backward >= 0.75 * 5 / 7 * std::min(double(threads), widest));
            CHECK(backward >= 0.9 * one_fewer);              // one thread more is not much slower
            one_fewer = backward;
        }
    }
    // one thread computes nothing twice
    CHECK(sum(backward_tasks(12, 4096, 1)) == 12 * WHOLE_PRODUCTS * area(Triangle::queries, 4096, {0, 4096}));
    CHECK(sum(backward_tasks(1, 4096, 2)) == doctest::Approx(7 * area(Triangle::queries, 4096, {0, 4096})));
}

// Threads 1 keeps heads whole, 5 cut them (3 heads): the same bits from both ways.
TEST_CASE("sdpa gives the same bits on 1, 2, 3 and 5 threads") {
    if (std::string(backend_name()) != "cpu") return;
    struct { int B, NH, NKV, T, d_qk, d_v; bool same; BiasKind kind;
    } cases[] = {{1, 3, 1, 150, 16, 16, false, BiasKind::power},
                 {1, 1, 1, 333, 32, 24, false, BiasKind::alibi},
                 {1, 2, 2, 101, 6, 6, true, BiasKind::none},
                 {2, 4, 2, 130, 20, 20, true, BiasKind::power}};
    bool cut = false, whole = false;
    for (auto c : cases) {
        const SdpaShape s{c.B, c.T, c.NH, c.NKV, c.d_qk, c.d_v, size_t(c.NH * c.d_qk), size_t(c.NKV * c.d_qk),
                          size_t(c.NKV * c.d_v), size_t(c.NH * c.d_v)};
        const size_t rows = size_t(c.B) * c.T;
        DX q(normal_vector<floatX>(rows * s.q_row, 1)), k(normal_vector<floatX>(rows * s.k_row, 2)),
            v(normal_vector<floatX>(rows * s.v_row, 3));
        DX dout(normal_vector<floatX>(rows * s.o_row, 4)), p(normal_vector<floatX>(c.NH, 5, 0.1, 1)),
            a(normal_vector<floatX>(c.NH, 6, 0.1, 0.5));
        DM slope(normal_vector<floatM>(c.NH, 7, 0.1, 0.5));
        PositionBias bias{c.kind, slope, p, a};
        struct Bits { std::vector<floatX> o, dq, dk, dv; std::vector<floatM> lse, dp, da; } first;
        for (int threads : {1, 2, 3, 5}) {
            backend_init(threads);
            (split_heads(c.B * c.NH, threads) ? cut : whole) = true;
            DX o(dout.n), dq(q.n), dk(k.n), dv(v.n);
            DM lse(rows * c.NH), dp(c.NH), da(c.NH);
            sdpa_forward(o, lse, q, k, c.same ? k.p : v.p, bias, s);
            sdpa_backward(dq, dk, c.same ? dk.p : dv.p, dp, da, dout, o, lse, q, k, c.same ? k.p : v.p, bias, s, false);
            Bits now{o.get(), dq.get(), dk.get(), dv.get(), lse.get(), dp.get(), da.get()};
            if (threads == 1) first = now;
            auto same_bits = [&](const char* what, const auto& x, const auto& y) {
                INFO(std::string(what), ", T ", c.T, ", ", threads, " threads");
                CHECK(std::memcmp(x.data(), y.data(), x.size() * sizeof(x[0])) == 0);
            };
            same_bits("o", now.o, first.o), same_bits("lse", now.lse, first.lse), same_bits("dq", now.dq, first.dq);
            same_bits("dk", now.dk, first.dk), same_bits("dv", now.dv, first.dv), same_bits("dp", now.dp, first.dp),
                same_bits("da", now.da, first.da);
        }
    }
    backend_init(0);
    CHECK(cut);
    CHECK(whole);
}
