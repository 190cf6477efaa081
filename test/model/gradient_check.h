// Compares a model's gradients with finite differences, tensor by tensor, and says where a fault is likely to be. A wrong backward step
// spoils the gradients of everything before it in the model, so one mistake makes most tensors wrong; the one to look at is the nearest to
// the loss, which the backward reached first: the last wrong one in the parameter table.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "test/model/model_common.h"

// Central difference; its error is O(h^2) from curvature and O(1e-16 / h) from rounding: about 1e-9 at h = 1e-5.
inline double numeric_gradient(GPT& g, const Param& p, size_t i, const TestBatch& b) {
    const double h = 1e-5;
    std::vector<floatM> w = get_weights(g, p), moved = w;
    moved[i] = w[i] + h;
    set_weights(g, p, moved);
    double up = mean_loss(g, b);
    moved[i] = w[i] - h;
    set_weights(g, p, moved);
    double down = mean_loss(g, b);
    set_weights(g, p, w);
    return (up - down) / (2 * h);
}

struct TensorCheck {
    std::string name;
    size_t checked = 0, wrong = 0, worst = 0;                // elements; the one that is farthest off
    double got = 0, want = 0, largest = 0;                   // of the worst element; the gradient's largest element
    bool zero = false;                                       // a gradient of zeros, which no sample of it would show
    double error() const { return std::fabs(got - want); }
};

// Up to 5 elements of every tensor, after `backward`. A key bias moves all scores of a query alike where nothing rotates it, and the
// softmax ignores that: its gradient may be zero.
inline std::vector<TensorCheck> check_gradients(GPT& g, const TestBatch& b) {
    std::vector<TensorCheck> list;
    for (const Param& p : g.params) {
        const std::vector<floatM> grad = get_gradient(g, p);
        TensorCheck t{.name = p.spec.name};
        for (floatM d : grad) t.largest = std::max(t.largest, std::fabs(double(d)));
        t.checked = std::min<size_t>(p.size, 5);
        for (size_t k = 0; k < t.checked; k++) {
            const size_t i = p.size <= 5 ? k : philox_below(13, rng_stream(p.spec.name), k, uint32_t(p.size));
            const double want = numeric_gradient(g, p, i, b), got = double(grad[i]);
            t.wrong += !(std::fabs(got - want) < 1e-7 + 1e-6 * std::fabs(want));
            if (k == 0 || !(std::fabs(got - want) <= t.error())) t.worst = i, t.got = got, t.want = want;
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
        return format("%s: %zu of %zu elements wrong; [%zu] is %.6g, by finite differences %.6g", t.name.c_str(), t.wrong, t.checked, t.worst, t.got, t.want);
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
        f.report = format("%zu of %zu tensors wrong. Nearest to the fault (what lies between it and the loss is right):\n  %s\n", f.wrong, f.of,
                          f.report.c_str()) + (others.empty() ? "" : "  what this spoils, going back:\n" + others);
    return f;
}
