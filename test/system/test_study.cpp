// The numbers behind the study's verdicts: the vertex of a grid search, the rule for a verdict.
#include <doctest/doctest.h>

#include "tools/claims/verdict.h"
#include "tools/compare/parabola.h"

TEST_CASE("the best of a grid lies at the vertex of its parabola") {
    auto loss = [](double x) { return 3 + 0.02 * (x - 0.3) * (x - 0.3); };
    CHECK(best_grid_step({-1, 0, 1}, {loss(-1), loss(0), loss(1)}) == doctest::Approx(0.3));
    // 3 steps away: not used
    CHECK(best_grid_step({-2, -1, 0, 1, 2, 3}, {loss(-2), loss(-1), loss(0), loss(1), loss(2), 99}) == doctest::Approx(0.3));
    CHECK(best_grid_step({0, 1, 2}, {loss(0), loss(1), INFINITY}) == 0);                  // two points make no parabola
    CHECK(best_grid_step({-1, 0, 1}, {3.1, 3.0, 3.0999}) == doctest::Approx(0).epsilon(0.01));
    CHECK(best_grid_step({-1, 0, 1}, {3.0, 2.0, 1.0}) == 1);                              // a line: no vertex, the best is at the edge
    CHECK(best_grid_step({0, 1, 2}, {2.0, 2.001, 9.0}) >= -0.75);                         // never far from what was tried
}

TEST_CASE("a verdict needs three seeds and an interval on one side") {
    auto interval = [](size_t n, double low, double high) { return Interval{n, (low + high) / 2, low, high}; };
    CHECK(below(interval(3, -0.5, -0.1), 0, "").word == "supported");
    CHECK(below(interval(3, 0.1, 0.5), 0, "").word == "contradicted");
    CHECK(below(interval(3, -0.1, 0.1), 0, "").word == "undecided");
    CHECK(below(interval(2, -0.5, -0.1), 0, "").word == "undecided");
    CHECK(below(interval(3, 0.002, 0.008), 0.01, "").word == "supported");
    CHECK(below(interval(3, 0.002, 0.012), 0.01, "").word == "undecided");
    CHECK(above(interval(3, 0.02, 0.3), 0.01, "").word == "supported");
    CHECK(above(interval(3, -0.02, 0.005), 0.01, "").word == "contradicted");
    CHECK(is_zero(interval(5, -0.009, 0.009), "").word == "supported");
    CHECK(is_zero(interval(5, -0.009, 0.011), "").word == "undecided");
    CHECK(is_zero(interval(5, 0.001, 0.002), "").word == "contradicted");
    const Verdict yes{"supported", "a"}, no{"contradicted", "b"}, open{"undecided", "c"};
    CHECK(all_of({yes, yes}).word == "supported");
    CHECK(all_of({yes, open}).word == "undecided");
    CHECK(all_of({open, no, yes}).word == "contradicted");
    CHECK(all_of({yes, no}).because == "a; b");
}

// Losses at T, 2 T and 4 T: each is taken for what it is.
TEST_CASE("how a loss grows with the context") {
    const std::vector<Evaluation> list = read_evaluations("qkv alibi 1 1 3.5\nqkv alibi 1 2 3.25\nqkv alibi 1 4 3.75\nqkv rope 1 4 9\n"
                                                          "qkv alibi 2 4 4.0\nqkv alibi 2 1 3.0\nqv alibi 1 1 1\nqkv alibi 3 4 5");
    CHECK(list.size() == 8);
    CHECK(loss_growth(list, "qkv", "alibi", 4) == std::vector<double>{0.25, 1.0});
    CHECK(loss_growth(list, "qkv", "alibi", 2) == std::vector<double>{-0.25});
    CHECK(loss_growth(list, "qkv", "rope", 4).empty());
}
