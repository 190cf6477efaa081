// The arithmetic of the report: means, paired differences with their interval, smoothing, slopes, orders, the unigram baseline.
// Pure functions of numbers: no files, no printing (those are in report_runs.h, report_text.h, report_plot.h).
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

// t with P(|t_df| < t) = 0.95. Table for small df; beyond it the expansion of Abramowitz & Stegun 26.7.5 (error < 1e-4).
inline double student_t_95(size_t df) {
    static constexpr double table[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
                                       2.2010,  2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860};
    if (df == 0) return NOT_MEASURED;
    if (df <= std::size(table)) return table[df - 1];
    double z = 1.959964, z3 = z * z * z, z5 = z3 * z * z, v = double(df);
    return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v);
}

// a[i] and b[i] share a seed: same initial values where shapes agree, same batches. Their difference removes that common part.
// The mean lies in mean +- half_width with 95% confidence (t interval, n - 1 degrees of freedom), if differences are normal.
struct PairedDifference { size_t n = 0; double mean = NOT_MEASURED, sd = NOT_MEASURED, half_width = NOT_MEASURED; };

inline PairedDifference paired_difference(const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> d(std::min(a.size(), b.size()));
    for (size_t i = 0; i < d.size(); i++) d[i] = a[i] - b[i];
    PairedDifference r{d.size(), mean(d), sample_sd(d), NOT_MEASURED};
    if (r.n >= 2) r.half_width = student_t_95(r.n - 1) * r.sd / std::sqrt(double(r.n));
    return r;
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

// Moving average over i - half .. i + half. At the start, where a loss falls steeply, the window shrinks on both sides, so that
// it is not biased; at the end, where the loss is flat and only noise is left, it loses its right side only.
inline std::vector<double> smooth(const std::vector<double>& y, size_t half) {
    std::vector<double> sums(y.size() + 1, 0.0), out(y.size());
    for (size_t i = 0; i < y.size(); i++) sums[i + 1] = sums[i] + y[i];
    for (size_t i = 0; i < y.size(); i++) {
        size_t reach = std::min(half, i), last = std::min(i + reach, y.size() - 1), first = i - reach;
        out[i] = (sums[last + 1] - sums[first]) / double(last + 1 - first);
    }
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

// Moves label positions apart until neighbours are at least `gap` apart and all lie in [low, high] (if there is room), keeping
// their order: neighbours that are too near form a block around their common centre; blocks that touch merge.
inline std::vector<double> spread_labels(const std::vector<double>& wanted, double gap, double low, double high) {
    struct Block { double sum; size_t n; double start; };      // sum of (wanted - offset within the block)
    std::vector<size_t> order = ascending_order(wanted);
    std::vector<Block> blocks;
    auto place = [&](Block& b) {
        double length = gap * double(b.n - 1);
        b.start = std::clamp(b.sum / double(b.n), low, std::max(low, high - length));
    };
    for (size_t i : order) {
        blocks.push_back({wanted[i], 1, 0});
        place(blocks.back());
        while (blocks.size() > 1) {
            Block &before = blocks[blocks.size() - 2], &last = blocks.back();
            if (last.start - (before.start + gap * double(before.n - 1)) >= gap) break;
            before.sum += last.sum - gap * double(before.n) * double(last.n);
            before.n += last.n;
            blocks.pop_back();
            place(blocks.back());
        }
    }
    std::vector<double> out(wanted.size());
    size_t k = 0;
    for (Block& b : blocks)
        for (size_t i = 0; i < b.n; i++) out[order[k++]] = b.start + gap * double(i);
    return out;
}
