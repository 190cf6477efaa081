// The numbers behind the study's verdicts: Student's t, the vertex of a grid search.
#include <doctest/doctest.h>

#include "tools/claims/student.h"
#include "tools/compare/parabola.h"

TEST_CASE("Student's t: the quantiles that tables list") {
    const struct { double df, t; } table[] = {{1, 12.7062047}, {2, 4.3026527}, {3, 3.1824463}, {4, 2.7764451},
                                              {9, 2.2621572}, {30, 2.0422725}};
    for (auto [df, t] : table) CHECK(student_quantile(0.975, df) == doctest::Approx(t).epsilon(1e-6));
    CHECK(student_quantile(0.95, 4) == doctest::Approx(2.1318468).epsilon(1e-6));
}

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
