// The arithmetic of the report: means, spreads, slopes, orders, thinned curves, the unigram baseline. Tests and intervals: inference.h.
// Pure functions of numbers: no files, no printing.
// Not for training: everything here runs once, on a few thousand numbers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

inline constexpr double NOT_MEASURED = std::numeric_limits<double>::quiet_NaN();

inline double mean(const std::vector<double>& x) {
    return x.empty() ? NOT_MEASURED : std::accumulate(x.begin(), x.end(), 0.0) / double(x.size());
}

// Standard deviation between samples (n - 1 in the denominator); one sample has none.
inline double sample_sd(const std::vector<double>& x) {
    if (x.size() < 2) return NOT_MEASURED;
    double m = mean(x), squares = 0;
    for (double v : x) squares += (v - m) * (v - m);
    return std::sqrt(squares / double(x.size() - 1));
}

inline double median(std::vector<double> x) {
    if (x.empty()) return NOT_MEASURED;
    std::sort(x.begin(), x.end());
    size_t n = x.size();
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

// Standard deviation within groups, pooled: sqrt(sum of squares / sum of (n - 1)).
inline double pooled_sd(const std::vector<std::vector<double>>& groups) {
    double squares = 0, df = 0;
    for (auto& g : groups) {
        if (g.size() < 2) continue;
        squares += sample_sd(g) * sample_sd(g) * double(g.size() - 1);
        df += double(g.size() - 1);
    }
    return df > 0 ? std::sqrt(squares / df) : NOT_MEASURED;
}

// A curve of at most about `points` points: means over bins that are evenly spaced on a logarithmic axis of x, so that the noise of
// single steps goes and the steep start stays. Both the picture from a run's folder and the one from its small record start here.
struct Curve { std::vector<double> tokens, loss; };
inline Curve thinned(const Curve& c, size_t points) {
    if (c.tokens.size() <= points) return c;
    double first = 0;
    for (double x : c.tokens)
        if (x > 0 && (first == 0 || x < first)) first = x;
    const double last = c.tokens.back(), ratio = first > 0 && last > first ? std::pow(last / first, 1 / double(points)) : 1;
    Curve out;
    double sum_x = 0, sum_y = 0, n = 0, end = first * ratio;
    auto close_bin = [&] {
        if (n > 0) {
            out.tokens.push_back(sum_x / n);
            out.loss.push_back(sum_y / n);
        }
        sum_x = sum_y = n = 0;
    };
    for (size_t i = 0; i < c.tokens.size(); i++) {
        if (ratio > 1 && c.tokens[i] >= end) close_bin();
        while (ratio > 1 && end <= c.tokens[i]) end *= ratio;
        sum_x += c.tokens[i];
        sum_y += c.loss[i];
        n++;
    }
    close_bin();
    return out;
}

// Least squares of loss against log2(tokens) over the last `fraction` of the tokens: nats per doubling of the training, < 0 while
// the loss falls. NaN with fewer than two points.
struct Slope { double per_doubling = NOT_MEASURED; size_t points = 0; };

inline Slope slope_per_doubling(const std::vector<double>& tokens, const std::vector<double>& loss, double fraction) {
    std::vector<double> x, y;
    for (size_t i = 0; i < tokens.size(); i++)
        if (tokens[i] > 0 && tokens[i] >= (1 - fraction) * tokens.back()) {
            x.push_back(std::log2(tokens[i]));
            y.push_back(loss[i]);
        }
    double mx = mean(x), my = mean(y), sxx = 0, sxy = 0;
    for (size_t i = 0; i < x.size(); i++) {
        sxx += (x[i] - mx) * (x[i] - mx);
        sxy += (x[i] - mx) * (y[i] - my);
    }
    return {sxx > 0 ? sxy / sxx : NOT_MEASURED, x.size()};
}

// Indices from the lowest value to the highest; what was not measured comes last.
inline std::vector<size_t> ascending_order(const std::vector<double>& values) {
    std::vector<size_t> order(values.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        if (std::isnan(values[a]) || std::isnan(values[b])) return !std::isnan(values[a]) && std::isnan(values[b]);
        return values[a] < values[b];
    });
    return order;
}

// Pairs that two measurements of the same things order differently (Kendall's distance); equal values agree with everything.
inline size_t swapped_pairs(const std::vector<double>& a, const std::vector<double>& b) {
    size_t swapped = 0;
    for (size_t i = 0; i < a.size(); i++)
        for (size_t j = i + 1; j < a.size(); j++) swapped += (a[i] - a[j]) * (b[i] - b[j]) < 0;
    return swapped;
}

// Cross-entropy, in nats, of a model that knows only how often each token occurs: p(v) = (count_v + 1) / (N + V). Laplace's
// rule of succession, so that a token unseen in training has a finite loss. A language model must beat this.
inline double unigram_loss(const std::vector<uint64_t>& train_counts, const std::vector<uint64_t>& val_counts) {
    double n_train = 0, n_val = 0, sum = 0;
    for (uint64_t c : train_counts) n_train += double(c);
    double denominator = n_train + double(train_counts.size());
    for (size_t v = 0; v < val_counts.size(); v++) {
        n_val += double(val_counts[v]);
        sum -= double(val_counts[v]) * std::log((double(train_counts.at(v)) + 1) / denominator);
    }
    return n_val > 0 ? sum / n_val : NOT_MEASURED;
}
