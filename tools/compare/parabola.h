// The best place of a grid search, between the grid's points.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

// Vertex, in grid steps, of the least-squares parabola through (steps[i], losses[i]) at most 2 steps from the best one and at most 0.75
// from it; the best itself when there is no minimum nearby. Losses that are not finite are left out.
inline double best_grid_step(const std::vector<int>& steps, const std::vector<double>& losses) {
    size_t best = 0;
    for (size_t i = 0; i < steps.size(); i++)
        if (std::isfinite(losses[i]) && (!std::isfinite(losses[best]) || losses[i] < losses[best])) best = i;
    // Least squares of loss = a + b x + c x^2, x the distance to the best: normal equations by sums of powers.
    double sx[5] = {}, sy[3] = {};
    for (size_t i = 0; i < steps.size(); i++) {
        const double x = steps[i] - steps[best];
        if (!std::isfinite(losses[i]) || std::fabs(x) > 2) continue;
        double power = 1;
        for (int k = 0; k < 5; k++) {
            sx[k] += power;
            if (k < 3) sy[k] += power * losses[i];
            power *= x;
        }
    }
    if (sx[0] < 3) return steps[best];
    auto determinant = [](double a, double b, double c, double d, double e, double f, double g, double h, double i) {
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    };
    const double all = determinant(sx[0], sx[1], sx[2], sx[1], sx[2], sx[3], sx[2], sx[3], sx[4]);
    if (std::fabs(all) < 1e-12) return steps[best];
    const double b = determinant(sx[0], sy[0], sx[2], sx[1], sy[1], sx[3], sx[2], sy[2], sx[4]) / all;
    const double c = determinant(sx[0], sx[1], sy[0], sx[1], sx[2], sy[1], sx[2], sx[3], sy[2]) / all;
    if (!(c > 0)) return steps[best];
    return steps[best] + std::clamp(-b / (2 * c), -0.75, 0.75);
}
