// See power_law.h.
#include "tools/scaling/power_law.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <set>

#include "tools/report/stats.h"

double PowerLaw::at(double n) const { return a * std::pow(n, -b) + c; }

// Least squares of loss = a x + c with a, c >= 0: the sum of squares, and a and c.
struct Line {
    double a, c, squares;
};
static Line fit_line(const std::vector<double>& x, const std::vector<double>& loss) {
    const double mx = mean(x), ml = mean(loss);
    double sxx = 0, sxl = 0, xx = 0, xl = 0;
    for (size_t i = 0; i < x.size(); i++) {
        sxx += (x[i] - mx) * (x[i] - mx);
        sxl += (x[i] - mx) * (loss[i] - ml);
        xx += x[i] * x[i];
        xl += x[i] * loss[i];
    }
    Line line{sxx > 0 ? sxl / sxx : 0, 0, 0};
    line.c = ml - line.a * mx;
    if (line.a < 0) line = {0, ml, 0};
    if (line.c < 0) line = {xl / xx, 0, 0};
    for (size_t i = 0; i < x.size(); i++) {
        const double r = loss[i] - line.a * x[i] - line.c;
        line.squares += r * r;
    }
    return line;
}

PowerLaw fit_power_law(const std::vector<double>& n, const std::vector<double>& loss) {
    if (std::set<double>(n.begin(), n.end()).size() < 3)
        return {NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED};
    const double unit = n[0];    // x near 1, whatever b is
    std::vector<double> x(n.size());
    auto line_of = [&](double b) {
        for (size_t i = 0; i < n.size(); i++) x[i] = std::pow(n[i] / unit, -b);
        return fit_line(x, loss);
    };
    constexpr int GRID = 60;    // coarse, since the sum of squares has one valley over log b; then halved
    const double ratio = std::pow(MOST_B / LEAST_B, 1.0 / GRID);
    double best = LEAST_B, least = line_of(best).squares;
    auto consider = [&](double b) {
        b = std::clamp(b, LEAST_B, MOST_B);
        if (double squares = line_of(b).squares; squares < least) {
            least = squares;
            best = b;
            return true;
        }
        return false;
    };
    for (int i = 1; i <= GRID; i++) consider(LEAST_B * std::pow(ratio, i));
    for (double step = ratio; step > 1 + 1e-9; step = std::sqrt(step))
        while (consider(best * step) || consider(best / step)) {}
    const Line line = line_of(best);
    return {line.a * std::pow(unit, best), best, line.c, std::sqrt(line.squares / double(n.size()))};
}

// Box and Muller's method: the standard library's normal numbers differ between libraries.
static double normal(std::mt19937_64& bits) {
    const double u = (double(bits() >> 11) + 0.5) * 0x1p-53, v = double(bits() >> 11) * 0x1p-53;
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

Predicted predict_difference(const std::vector<double>& n, const Ladder& base, const Ladder& ladder, double sd,
                             double far, double alpha, int draws) {
    const double difference = fit_power_law(n, ladder.mean).at(far) - fit_power_law(n, base.mean).at(far);
    if (std::isnan(difference) || std::isnan(sd)) return {difference, NOT_MEASURED, NOT_MEASURED};
    std::mt19937_64 bits(1);
    auto redrawn = [&](const Ladder& l) {
        std::vector<double> values = l.mean;
        for (size_t i = 0; i < values.size(); i++) values[i] += normal(bits) * sd / std::sqrt(double(l.seeds[i]));
        return fit_power_law(n, values).at(far);
    };
    std::vector<double> drawn;
    for (int i = 0; i < draws; i++) {
        const double of_ladder = redrawn(ladder);
        drawn.push_back(of_ladder - redrawn(base));
    }
    std::sort(drawn.begin(), drawn.end());
    const auto outside = static_cast<size_t>(std::floor(alpha / 2 * double(drawn.size())));
    return {difference, drawn[outside], drawn[drawn.size() - 1 - outside]};
}
