// Whole models in bf16 on the CPU and on the CUDA kernels (emulated or on a GPU), at head sizes that have
// tensor-core kernels: loss and every gradient against PyTorch's values in double, the gradient against the
// loss itself, and that training allocates nothing. test_model.cpp checks the same code in fp32 to rounding;
// here the question is whether anything is wrong that rounding to 8 bits does not explain.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "model/program.h"
#include "runtime/run/safetensors.h"
#include "test/model/model_common.h"

static_assert(sizeof(floatX) == 2, "build with PRECISION=bf16");

static std::vector<double> golden(const SafetensorsFile& f, const std::string& name) {
    const TensorInfo* t = f.find(name);
    REQUIRE_MESSAGE(t, f.path, ": no tensor ", name);
    if (t->dtype == "F64") {
        std::vector<double> values((t->end - t->begin) / sizeof(double));
        safetensors_read(f, *t, values.data());
        return values;
    }
    REQUIRE(t->dtype == "F32");
    std::vector<float> values((t->end - t->begin) / sizeof(float));
    safetensors_read(f, *t, values.data());
    return std::vector<double>(values.begin(), values.end());
}

static double norm(const std::vector<double>& v) {
    double sum = 0;
    for (double x : v) sum += x * x;
    return std::sqrt(sum);
}

// Twice a plain bf16 implementation's typical error (test/golden/make_golden_bf16.py)
// [the rule of flash-attention's tests], and two roundings of the result. The error of a few numbers is a
// matter of chance (of one: beyond twice its typical size one time in 20), that of many is not: hence the
// share that shrinks with n.
static double bound(double plain_error, double size, size_t n) { return (2 + 2 / std::sqrt(double(n))) * plain_error + 2 * 0x1p-9 * size; }

TEST_CASE("bf16: PyTorch's loss and every gradient, to the rounding of bf16") {
    backend_init(0);
    int cases = 0;
    for (const auto& entry : std::filesystem::directory_iterator("test/golden/bf16")) {
        if (entry.path().extension() != ".safetensors") continue;
        SafetensorsFile f = safetensors_open(entry.path().string());
        if (!golden_is_ours(f.metadata)) continue;
        cases++;
        const std::string name = entry.path().filename().string();
        const ModelConfig c = golden_config(f.metadata);
        const int B = std::stoi(f.metadata.at("B"));
        GPT g = gpt_allocate(c, B);
        for (const Param& p : g.params) {
            if (p.size == 0) continue;
            auto w = golden(f, "param." + p.spec.name);
            set_weights(g, p, std::vector<floatM>(w.begin(), w.end()));
        }
        auto ids = [&](const char* tensor) {
            const TensorInfo* t = f.find(tensor);
            std::vector<int64_t> wide((t->end - t->begin) / sizeof(int64_t));
            safetensors_read(f, *t, wide.data());
            return std::vector<int>(wide.begin(), wide.end());
        };
        TestBatch b{B, c.T, ids("tokens"), ids("targets")};
        const double loss = backward(g, b), want_loss = golden(f, "loss")[0];
        INFO(name, ": loss ", loss, ", PyTorch has ", want_loss);
        CHECK(std::fabs(loss - want_loss) <= bound(golden(f, "plain_error.loss")[0], want_loss, 1));
        double squares = 0, error_squares = 0, plain_squares = 0;
        for (const Param& p : g.params) {
            if (p.size == 0) continue;
            auto want = golden(f, "grad." + p.spec.name);
            auto got = get_gradient(g, p);
            std::vector<double> difference(p.size);
            for (size_t i = 0; i < p.size; i++) difference[i] = double(got[i]) - want[i];
            const double error = norm(difference), typical = golden(f, "plain_error." + p.spec.name)[0];
            squares += std::pow(norm(want), 2), error_squares += error * error, plain_squares += typical * typical;
            // Sums of dS over whole rows, whose terms cancel: of a key bias without rotation all of it. There
            // the rounding of D = rowsum(dO * O), O as stored, common to a row, is what remains, and the
            // plain implementation has no D. test_sdpa.cpp bounds it; fp32 checks the rest.
            bool sum_of_rows = false;
            for (const char* tensor : {"k.bias", "pos_p", "pos_a"}) sum_of_rows |= p.spec.name.find(tensor) != std::string::npos;
            if (sum_of_rows) continue;
            INFO(p.spec.name, ": error ", error, ", a plain implementation's ", typical, ", gradient ", norm(want));
            CHECK(error <= bound(typical, norm(want), p.size));
        }
        if (getenv("SHOW_ERRORS"))
            printf("%s: gradient off by %.4f of its size, a plain implementation by %.4f\n", name.c_str(),
                   std::sqrt(error_squares / squares), std::sqrt(plain_squares / squares));
        CHECK(std::sqrt(error_squares) <= bound(std::sqrt(plain_squares), std::sqrt(squares), g.flat_size));
        gpt_free(g);
    }
    const bool control = std::string(ATTENTION_NAME) == "qk" || std::string(ATTENTION_NAME) == "one";     // they have none in bf16
    if (has_reference() && !control) CHECK(cases >= 2);
    if (this_program().name() == "qv-rmsnorm-swiglu") CHECK(cases >= 1);
}

// The loss along a tensor's own gradient: L(w + d) - L(w - d) = 2 <gradient, d> + O(d^3), with d what is left of a step after rounding
// w + d and w - d to bf16. Sizes that have tensor-core kernels (head size 32; MLA's 48 and 32), T beyond one tile.
TEST_CASE("bf16: the gradient predicts the loss at the tensor cores' head sizes") {
    backend_init(0);
    for (Position pos : {Position::rope, Position::power}) {
        ModelConfig c;
        c.T = 72;
        c.V = 200;
        c.L = 1;
        c.C = 64;
        c.NH = 2;
        c.HS = 32;
        c.F = 128;
        c.pos = pos;
        
        GPT g = gpt_allocate(c, 2);
        CHECK(sdpa_refusal(g.attention.d_qk, g.attention.d_v) == "");
        init_for_test(g, 7);
        TestBatch b = random_batch(2, c.T, c.V, 11);
        backward(g, b);
        for (const Param& p : g.params) {
            if (p.size < 16 || (p.spec.name.find("attn.") == std::string::npos && p.spec.name != "wte.weight")) continue;
            std::vector<floatM> w = get_weights(g, p), grad = get_gradient(g, p);
            double squares = 0;
            for (floatM x : grad) squares += double(x) * double(x);
            // A step that changes the loss by 0.05 each way: ten times what rounding does to it, little enough for the cubic term.
            const double step = 0.05 / std::max(squares, 1e-30);
            std::vector<floatM> up(p.size), down(p.size);
            double predicted = 0, moved = 0, size = 0;
            for (size_t i = 0; i < p.size; i++) {
                up[i] = floatM(floatX(float(double(w[i]) + step * double(grad[i]))));
                down[i] = floatM(floatX(float(double(w[i]) - step * double(grad[i]))));
                predicted += double(grad[i]) * (double(up[i]) - double(down[i]));
                moved += std::pow(step * double(grad[i]), 2), size += std::pow(double(w[i]), 2);
            }
            if (moved > 0.09 * size) continue;               // the loss hardly depends on this tensor: so long a step is no longer small
            set_weights(g, p, up);
            double loss_up = mean_loss(g, b);
            set_weights(g, p, down);
            double difference = loss_up - mean_loss(g, b);
            set_weights(g, p, w);
            INFO(std::string(ATTENTION_NAME), ", ", position_name(pos), ": ", p.spec.name, ": the loss changes by ",
                 difference, ", its gradient predicts ", predicted);
            if (getenv("SHOW_ERRORS"))
                printf("%s %s %s: %.4f, predicted %.4f\n", ATTENTION_NAME, position_name(pos), p.spec.name.c_str(),
                       difference, predicted);
            CHECK(std::fabs(difference - predicted) <= 0.15 * predicted);
        }
        gpt_free(g);
    }
}

TEST_CASE("bf16: a training step allocates no device memory, the first one neither") {
    if (std::string(backend_name()) == "cpu") return;           // the process's peak there, with the threads' panels of the first step
    backend_init(0);
    ModelConfig c = awkward_config(Position::power);
    c.T = 150;
    c.HS = 32;
    GPT g = gpt_allocate(c, 3);
    init_for_test(g, 7);
    TestBatch b = random_batch(3, c.T, c.V, 11);
    // fills what earlier tests have freed: from now on every allocation is a new peak
    std::vector<void*> ballast;
    for (size_t before = peak_memory_bytes(); peak_memory_bytes() == before;) ballast.push_back(device_alloc(size_t(1) << 20));
    const size_t peak = peak_memory_bytes();
    for (int step = 1; step <= 2; step++) {
        backward(g, b);
        gpt_update(g, {1e-3, 0.9, 0.95, 1e-8, 0.1, 1, step, 0});
        CHECK(peak_memory_bytes() == peak);
    }
    for (void* p : ballast) device_free(p);
    gpt_free(g);
}
