// Student's t: the value below which a share `p` of the distribution with `df` degrees of freedom lies, by bisection of the integral of
// its density (Simpson's rule; 10 digits for 0.5 < p <= 0.9999, df >= 1).
#pragma once
#include <cmath>

// P(0 < T < t): substituting T = sqrt(df) tan(a) makes the density cos(a)^(df - 1), smooth on [0, pi / 2).
inline double student_half_area(double t, double df) {
    const int n = 2000;
    const double top = std::atan(t / std::sqrt(df)), h = top / n;
    double sum = 0;
    for (int i = 0; i <= n; i++) sum += std::pow(std::cos(i * h), df - 1) * (i == 0 || i == n ? 1 : i % 2 ? 4 : 2);
    const double scale = std::exp(std::lgamma((df + 1) / 2) - std::lgamma(df / 2)) / std::sqrt(M_PI);
    return scale * sum * h / 3;
}

inline double student_quantile(double p, double df) {
    double low = 0, high = 1e5;
    for (int i = 0; i < 100; i++) {
        const double middle = (low + high) / 2;
        (student_half_area(middle, df) < p - 0.5 ? low : high) = middle;
    }
    return (low + high) / 2;
}
