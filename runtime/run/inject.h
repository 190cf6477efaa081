// Faults on demand, to test what a run does about them: QV_SCALE_GRADIENT=<step>[-<step>]:<factor>[@<rank>] multiplies all
// gradients of these steps (counted from 1) by the factor, which may be "nan" or "inf", on that rank or on all. If it is
// not set the factor is 1, at the cost of one getenv per step. For tests only. Kills on demand: crash_point.h.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

inline double injected_gradient_factor(int64_t step, int rank) {
    const char* wanted = std::getenv("QV_SCALE_GRADIENT");
    long long first = 0, last = 0;
    double factor = 1;
    if (!wanted) return 1;
    if (std::sscanf(wanted, "%lld-%lld:%lf", &first, &last, &factor) != 3) {
        if (std::sscanf(wanted, "%lld:%lf", &first, &factor) != 2) return 1;
        last = first;
    }
    const char* at = std::strchr(wanted, '@');
    return first <= step && step <= last && (!at || std::atoi(at + 1) == rank) ? factor : 1;
}
