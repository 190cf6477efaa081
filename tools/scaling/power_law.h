// Losses of models of several sizes as a power law that levels off, L(N) = a N^-b + c [Kaplan et al.,
// arXiv:2001.08361, sec. 1.2; the constant as in Hoffmann et al., arXiv:2203.15556, eq. 2], and what it says about a
// size that was not trained.
// Pure functions of numbers.
#pragma once
#include <cstddef>
#include <vector>

struct PowerLaw {
    double a, b, c, rms;    // nats; rms: of the residuals
    double at(double n) const;
};
// Least squares in nats, with a >= 0, c >= 0 and LEAST_B <= b <= MOST_B; three points or more of different n, else
// NaN. For a given b the law is linear in a and c: so b alone is searched.
inline constexpr double LEAST_B = 0.01, MOST_B = 2;
PowerLaw fit_power_law(const std::vector<double>& n, const std::vector<double>& loss);

// One variant's losses: mean[i] over seeds[i] runs at n[i].
struct Ladder {
    std::vector<double> mean;
    std::vector<size_t> seeds;
};
struct Predicted {
    double difference, low, high;
};
// The difference of two fitted laws at `far`, ladder minus base, with the interval that the noise between seeds gives
// it: every mean is redrawn as normal with the standard deviation sd / sqrt(seeds), the laws are fitted again, and
// the interval holds the middle 1 - alpha of `draws` such differences (a parametric bootstrap). It knows nothing of
// another error: that the law is not the true one.
Predicted predict_difference(const std::vector<double>& n, const Ladder& base, const Ladder& ladder, double sd,
                             double far, double alpha, int draws = 2000);
