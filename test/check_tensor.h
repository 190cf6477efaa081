// A tensor against reference values, for the tests of whole models.
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

// Differences are measured against the largest element of the tensor: |got - want| <= tolerance * max |want|. whose: where
// `want` comes from.
template <class A, class B>
void check_tensor(const std::string& what, const std::vector<A>& got, const std::vector<B>& want, double tolerance,
                  const char* whose = "PyTorch") {
    REQUIRE(got.size() == want.size());
    double largest = 1e-3, error = 0;                        // gradients below 1e-3 are compared as if they were 1e-3
    size_t worst = 0;
    for (size_t i = 0; i < got.size(); i++) {
        largest = std::max(largest, std::fabs(double(want[i])));
        double e = std::fabs(double(got[i]) - double(want[i]));
        if (!(e <= error)) error = e, worst = i;
    }
    INFO(what, "[", worst, "]: ", double(got[worst]), ", ", whose, " has ", double(want[worst]), "; largest ", largest, ", error ", error);
    CHECK(error <= tolerance * largest);
}
