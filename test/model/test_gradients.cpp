// Whole-model finite differences in double precision, driven by the parameter table: every tensor of every configuration of
// the variant that this binary is built with.
#include <doctest/doctest.h>

#include <cmath>

#include "test/model/model_common.h"

static_assert(sizeof(floatX) == 8, "build with PRECISION=fp64");

// Central difference; its error is O(h^2) from curvature and O(1e-16 / h) from rounding: about 1e-9 at h = 1e-5.
static double numeric_gradient(GPT& g, const Param& p, size_t i, const TestBatch& b) {
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

TEST_CASE("finite differences, every tensor, every position") {
    backend_init(0);
    for (const NamedConfig& config : all_configs()) {
        GPT g = gpt_allocate(config.c, 3);
        init_for_test(g, 7);
        TestBatch b = random_batch(3, config.c.T, config.c.V, 11);
        backward(g, b);
        size_t checked = 0;
        for (const Param& p : g.params) {
            std::vector<floatM> grad = get_gradient(g, p);
            double largest = 0;
            for (floatM d : grad) largest = std::max(largest, std::fabs(double(d)));
            size_t samples = std::min<size_t>(p.size, 5);
            for (size_t k = 0; k < samples; k++) {
                size_t i = p.size <= 5 ? k : philox_below(13, rng_stream(p.spec.name), k, uint32_t(p.size));
                double want = numeric_gradient(g, p, i, b), got = double(grad[i]);
                INFO(std::string(ATTENTION_NAME), ", ", config.name, ": ", p.spec.name, "[", i, "] analytic ", got, " numeric ", want);
                CHECK(std::fabs(got - want) < 1e-7 + 1e-6 * std::fabs(want));
                checked++;
            }
            // A gradient that is zero everywhere would pass by accident: only an unused tensor may have one.
            // (A key bias moves all scores of a query alike where nothing rotates it; the softmax ignores that.)
            bool ignored = p.spec.name.find("k.bias") != std::string::npos && config.c.pos != Position::rope;
            INFO(std::string(ATTENTION_NAME), ", ", config.name, ": ", p.spec.name);
            if (p.size > 0 && !ignored) CHECK(largest > 1e-8);
        }
        CHECK(checked > 50);
        gpt_free(g);
    }
}

TEST_CASE("micro-batches add up to the whole batch's gradient") {
    backend_init(0);
    ModelConfig c = awkward_config(Position::power);
    GPT g = gpt_allocate(c, 4);
    init_for_test(g, 3);
    TestBatch b = random_batch(4, c.T, c.V, 5);
    double whole = backward(g, b);
    std::vector<std::vector<floatM>> want;
    for (const Param& p : g.params) want.push_back(get_gradient(g, p));
    double sum = 0;
    for (int part = 0; part < 4; part++)
        sum += gpt_forward_backward(g, b.tokens.data() + part * c.T, b.targets.data() + part * c.T, 1, c.T, 1.0 / (4 * c.T), part > 0);
    CHECK(sum / (4 * c.T) == doctest::Approx(whole).epsilon(1e-12));
    for (size_t k = 0; k < g.params.size(); k++) {
        std::vector<floatM> got = get_gradient(g, g.params[k]);
        for (size_t i = 0; i < got.size(); i++) {
            INFO(g.params[k].spec.name, "[", i, "]");
            REQUIRE(std::fabs(double(got[i] - want[k][i])) < 1e-13 + 1e-10 * std::fabs(double(want[k][i])));
        }
    }
    gpt_free(g);
}
