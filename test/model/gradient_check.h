// Compares a model's gradients with finite differences, tensor by tensor, and says where a fault is likely to be. A wrong
// backward step spoils the gradients of everything before it in the model, so one mistake makes most tensors wrong. The one
// to look at is the one nearest to the loss, which the backward reached first: the last wrong one in the parameter table.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "test/model/model_common.h"

// An element and its gradient by central differences, whose error is O(h^2) from curvature and O(1e-16 / h) from rounding: about 1e-9.
struct Sample { size_t param, index; double want; };

// Up to 5 elements of every tensor. Of the token embedding, rows that the batch looks up: the others have the head's gradient only.
inline std::vector<Sample> finite_differences(GPT& g, const TestBatch& b) {
    const double h = 1e-5;
    std::vector<Sample> samples;
    for (size_t n = 0; n < g.params.size(); n++) {
        const Param& p = g.params[n];
        const std::vector<floatM> w = get_weights(g, p);
        auto loss_at = [&](size_t i, double step) {
            std::vector<floatM> moved = w;
            moved[i] += floatM(step);
            set_weights(g, p, moved);
            return mean_loss(g, b);
        };
        for (size_t k = 0; k < std::min<size_t>(p.size, 5); k++) {
            size_t i = p.size <= 5 ? k : philox_below(13, rng_stream(p.spec.name), k, uint32_t(p.size));
            if (n == 0) i = size_t(b.tokens[k]) * size_t(g.c.C) + i % size_t(g.c.C);
            samples.push_back({n, i, (loss_at(i, h) - loss_at(i, -h)) / (2 * h)});
        }
        set_weights(g, p, w);
    }
    return samples;
}

struct TensorCheck {
    std::string name;
    size_t checked = 0, wrong = 0, worst = 0;                // elements; the one that is farthest off
    double got = 0, want = 0, largest = 0;                   // of the worst element; the gradient's largest element
    bool zero = false;                                       // a gradient of zeros, which no sample of it would show
    double error() const { return std::fabs(got - want); }
};

// The gradients that a backward has left, tensor by tensor. Where nothing rotates it, a key bias adds the same number to all
// scores of a query, and the softmax ignores that: its gradient may be zero.
inline std::vector<TensorCheck> check_gradients(const GPT& g, const std::vector<Sample>& samples) {
    std::vector<TensorCheck> list;
    for (size_t n = 0; n < g.params.size(); n++) {
        const Param& p = g.params[n];
        const std::vector<floatM> grad = get_gradient(g, p);
        TensorCheck t{.name = p.spec.name};
        for (floatM d : grad) t.largest = std::max(t.largest, std::fabs(double(d)));
        for (const Sample& s : samples) {
            if (s.param != n) continue;
            const double got = double(grad[s.index]);
            t.wrong += !(std::fabs(got - s.want) < 1e-7 + 1e-6 * std::fabs(s.want));
            if (t.checked++ == 0 || !(std::fabs(got - s.want) <= t.error())) t.worst = s.index, t.got = got, t.want = s.want;
        }
        const bool ignored = p.spec.name.find("k.bias") != std::string::npos && g.c.pos != Position::rope;
        t.zero = p.size > 0 && !ignored && !(t.largest > 1e-8);
        list.push_back(t);
    }
    return list;
}

struct GradientFault {
    size_t wrong = 0, of = 0;
    std::string nearest, report;                             // the tensor to look at; a line for it, then one for each other wrong tensor
};
inline GradientFault find_fault(const std::vector<TensorCheck>& list) {
    GradientFault f;
    auto line = [](const TensorCheck& t) {
        if (t.zero) return format("%s: zero everywhere", t.name.c_str());
        return format("%s: %zu of %zu elements wrong; [%zu] is %.6g, by finite differences %.6g", t.name.c_str(),
                      t.wrong, t.checked, t.worst, t.got, t.want);
    };
    std::string others;
    for (const TensorCheck& t : list) {
        if (t.checked == 0) continue;
        f.of++;
        if (t.wrong == 0 && !t.zero) continue;
        if (f.wrong++ > 0) others = "    " + f.report + "\n" + others;      // the last one found is the nearest
        f.nearest = t.name;
        f.report = line(t);
    }
    if (f.wrong > 0)
        f.report = format(
                       "%zu of %zu tensors wrong. Nearest to the fault (what lies between it and the loss "
                       "is right):\n  %s\n",
                       f.wrong, f.of, f.report.c_str()) +
                   (others.empty() ? "" : "  what this spoils, going back:\n" + others);
    return f;
}
