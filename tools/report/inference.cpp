// Student's t, Holm, block means; see inference.h. Checked against scipy's values in test/system/test_report_stats.cpp.
#include "tools/report/inference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tools/report/stats.h"

// The fraction 1/(1+ d1/(1+ d2/(1+ ...))) by Lentz's method: d_{2m} = m (b-m) x / ((a+2m-1)(a+2m)),
// d_{2m+1} = -(a+m)(a+b+m) x / ((a+2m)(a+2m+1)). Converges fast for x < (a+1)/(a+b+2).
static double beta_fraction(double a, double b, double x) {
    constexpr double TINY = 1e-300, PRECISION = 1e-15;
    auto away_from_zero = [](double v) { return std::abs(v) < TINY ? TINY : v; };
    double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), value = d;
    for (int m = 1; m < 10000; m++) {
        for (double term :
             {m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))}) {
            d = 1 / away_from_zero(1 + term * d);
            c = away_from_zero(1 + term / c);
            value *= c * d;
        }
        if (std::abs(c * d - 1) < PRECISION) break;
    }
    return value;
}

double incomplete_beta(double a, double b, double x) {
    if (!(x > 0)) return std::isnan(x) ? x : 0;
    if (x >= 1) return 1;
    // x^a (1-x)^b / (a B(a, b)); the symmetry I_x(a, b) = 1 - I_{1-x}(b, a) keeps x where the fraction converges.
    double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double student_t_two_sided(double t, double df) {
    if (std::isnan(t) || !(df > 0)) return NOT_MEASURED;
    if (std::isinf(t)) return 0;
    return incomplete_beta(df / 2, 0.5, df / (df + t * t));
}

double student_t_quantile(double p, double df) {
    if (!(p > 0 && p < 1) || !(df > 0)) return NOT_MEASURED;
    if (p < 0.5) return -student_t_quantile(1 - p, df);
    // P(|T| >= t) falls with t: double the upper end until it is passed, then halve the interval down to the last bit.
    const double tail = 2 * (1 - p);
    double low = 0, high = 1;
    while (student_t_two_sided(high, df) > tail) {
        low = high;
        high *= 2;
    }
    for (int i = 0; i < 200 && low < high; i++) {
        double middle = 0.5 * (low + high);
        if (middle == low || middle == high) break;
        (student_t_two_sided(middle, df) > tail ? low : high) = middle;
    }
    return 0.5 * (low + high);
}

PairedDifference paired_difference(const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> d(std::min(a.size(), b.size()));
    for (size_t i = 0; i < d.size(); i++) d[i] = a[i] - b[i];
    PairedDifference r{d.size(), mean(d), sample_sd(d), NOT_MEASURED};
    if (r.n < 2) return r;
    if (r.sd == 0) r.p = r.mean == 0 ? 1 : 0;
    else r.p = student_t_two_sided(r.mean / (r.sd / std::sqrt(double(r.n))), double(r.n - 1));
    return r;
}

double half_width(const PairedDifference& d, double alpha) {
    if (d.n < 2) return NOT_MEASURED;
    return student_t_quantile(1 - alpha / 2, double(d.n - 1)) * d.sd / std::sqrt(double(d.n));
}

Holm holm(const std::vector<double>& p, double alpha) {
    Holm h;
    h.adjusted.assign(p.size(), NOT_MEASURED);
    h.level.assign(p.size(), NOT_MEASURED);
    h.rejected.assign(p.size(), 0);
    for (double v : p) h.tests += !std::isnan(v);
    double largest = 0, stopped_at = 0;      // stopped_at: the level of the first that is not rejected, kept for all after it
    std::vector<size_t> order = ascending_order(p);
    for (size_t i = 0; i < h.tests; i++) {
        size_t k = order[i];
        double factor = double(h.tests - i);
        largest = std::max(largest, std::min(1.0, factor * p[k]));
        h.adjusted[k] = largest;
        if (stopped_at == 0 && !(p[k] <= alpha / factor)) stopped_at = alpha / factor;
        h.rejected[k] = stopped_at == 0;
        h.level[k] = stopped_at == 0 ? alpha / factor : stopped_at;
    }
    return h;
}

size_t seeds_to_tell(double sd, double delta, double alpha, double power) {
    constexpr size_t MOST = 10000;
    if (std::isnan(sd) || !(delta > 0)) return 0;
    auto enough = [&](size_t n) {
        double t = student_t_quantile(1 - alpha / 2, double(n - 1)) + student_t_quantile(power, double(n - 1));
        return t * sd / std::sqrt(double(n)) <= delta;
    };
    if (!enough(MOST)) return 0;
    size_t low = 1, high = MOST;             // enough(high) always; it falls with n, so halving finds the first
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        (enough(middle) ? high : low) = middle;
    }
    return high;
}

BlockMean block_mean(const std::vector<double>& values, double alpha) {
    BlockMean r{0, 0, mean(values), NOT_MEASURED};
    const size_t n = values.size();
    if (n < 8) return r;
    r.per_block = size_t(std::lround(std::sqrt(double(n))));
    r.blocks = n / r.per_block;
    std::vector<double> means;
    for (size_t g = 0; g < r.blocks; g++) {
        auto first = values.begin() + std::ptrdiff_t(g * n / r.blocks), last = values.begin() + std::ptrdiff_t((g + 1) * n / r.blocks);
        means.push_back(mean({first, last}));
    }
    r.half_width = student_t_quantile(1 - alpha / 2, double(r.blocks - 1)) * sample_sd(means) / std::sqrt(double(r.blocks));
    return r;
}
