// Whole-model finite differences in double precision, driven by the parameter table: every tensor of every configuration of
// the model that this binary is built with. Also checks that planted faults (planted_faults.h) are found and named.
#include "test/model/planted_faults.h"

#include <doctest/doctest.h>

#include "model/program.h"
#include "test/model/gradient_check.h"

static_assert(sizeof(floatX) == 8, "build with PRECISION=fp64");

TEST_CASE("finite differences, every tensor, every position") {
    backend_init(0);
    size_t failed = 0;
    for (const NamedConfig& config : all_configs()) {
        GPT g = gpt_allocate(config.c, 3);
        init_for_test(g, 7);
        TestBatch b = random_batch(3, config.c.T, config.c.V, 11);
        backward(g, b);
        const std::vector<TensorCheck> tensors = check_gradients(g, finite_differences(g, b));
        size_t elements = 0;
        for (const TensorCheck& t : tensors) elements += t.checked;
        CHECK(elements > 50);
        const GradientFault fault = find_fault(tensors);
        // The first configuration that fails is reported in full, the others in a line: they mostly have the same fault.
        CHECK_MESSAGE(fault.wrong == 0, this_program().name(), ", ", config.name, ": ",
                      failed == 0 ? fault.report
                                  : format("%zu of %zu tensors wrong, nearest to the fault: %s", fault.wrong, fault.of,
                                           fault.nearest.c_str()));
        failed += fault.wrong > 0;
        gpt_free(g);
    }
}

TEST_CASE("a planted fault is found, and the tensor nearest to it named") {
    backend_init(0);
    const ModelConfig c = awkward_config(Position::rope);
    GPT g = gpt_allocate(c, 2);
    init_for_test(g, 7);
    TestBatch b = random_batch(2, c.T, c.V, 11);
    const std::vector<Sample> samples = finite_differences(g, b);
    auto with = [&](planted::Fault fault) {
        planted::fault = fault;
        backward(g, b);
        planted::fault = planted::none;
        return find_fault(check_gradients(g, samples));
    };
    CHECK(with(planted::none).wrong == 0);
    // The attention product's dQ, in every layer: what comes after it in the last layer is right, what comes before is spoilt.
    GradientFault f = with(planted::dq_of_sdpa);
    INFO(f.report);
    CHECK(f.nearest.rfind("h.1.attn.", 0) == 0);
    CHECK(f.nearest.rfind("h.1.attn.o.", 0) != 0);
    CHECK(f.wrong > f.of / 3);
    CHECK(f.report.find("h.1.mlp") == std::string::npos);
    CHECK(f.report.find("h.0.mlp") != std::string::npos);
    CHECK(size_t(std::count(f.report.begin(), f.report.end(), '\n')) <= f.wrong + 2);    // one line each
    // One weight gradient: nothing else is wrong.
    planted::target = find_param(g, "h.0.attn.o.weight")->offset + g.grads;
    f = with(planted::one_weight_gradient);
    CHECK(f.wrong == 1);
    CHECK(f.nearest == "h.0.attn.o.weight");
    // The embedding's: the last step of the backward.
    f = with(planted::embedding);
    CHECK(f.wrong == 1);
    CHECK(f.nearest == "wte.weight");
    // A gradient of zeros, of a tensor that is used.
    f = with(planted::forgotten_weight_gradient);
    CHECK(f.wrong == 1);
    CHECK(f.report.find("h.0.attn.o.weight: zero everywhere") != std::string::npos);
    gpt_free(g);
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
