// A whole training step in every position, and ten in one, of the variant that this binary is built with: the
// emulated CUDA kernels against the CPU backend, whose results step_reference.cpp has written. fp32: every
// gradient, every updated weight, every loss. bf16: the rule of flash-attention's tests, for whole models:
// the error against the fp32 truth is at most twice the error of a plain bf16 implementation (rounded_ops.h).
#include <doctest/doctest.h>

#include "runtime/run/safetensors.h"
#include "test/check_tensor.h"
#include "test/model/step_common.h"

namespace {
template <class T> std::vector<T> reference(const SafetensorsFile& f, const std::string& name) {
    const TensorInfo* t = f.find(name);
    REQUIRE_MESSAGE(t, f.path, ": no tensor ", name, "; remove the file, `make test` writes it anew");
    std::vector<T> values((t->end - t->begin) / sizeof(T));
    safetensors_read(f, *t, values.data());
    return values;
}
// "h.1.attn.q.weight" -> "h.attn.q.weight": the layers of a model are taken together.
[[maybe_unused]] std::string without_layer(const std::string& name) { return name[0] == 'h' ? "h" + name.substr(name.find('.', 2)) : name; }

// AdamW's first step is lr g / (|g| + eps): a gradient that is wrong by d moves it by at most lr d / |g|, and
// by 2 lr if the sign flips (a gradient that is 0 but for rounding, as a key bias's without rotation).
// In addition, a few roundings of the weight.
constexpr double GRADIENT_TOLERANCE = 2e-5;
[[maybe_unused]] void check_update(const std::string& what, const std::vector<float>& got,
                                   const std::vector<float>& want, const std::vector<float>& gradient) {
    REQUIRE(got.size() == want.size());
    double largest = 1e-3, excess = 0;
    size_t worst = 0, turned = 0;
    for (float g : gradient) largest = std::max(largest, std::fabs(double(g)));
    for (size_t i = 0; i < got.size(); i++) {
        const double d = GRADIENT_TOLERANCE * largest, g = std::fabs(double(gradient[i]));
        const double allowed = 1e-6 * std::max(1.0, std::fabs(double(want[i]))) + STEP_LR * (d < 2 * g ? d / g : 2.0);
        double e = std::fabs(double(got[i]) - double(want[i])) / allowed;
        turned += d >= 2 * g && gradient[i] != 0;
        if (!(e <= excess)) excess = e, worst = i;
    }
    INFO(what, "[", worst, "]: ", double(got[worst]), ", the CPU has ", double(want[worst]), "; gradient ",
         double(gradient[worst]), ", error over allowed ", excess);
    CHECK(excess <= 1);
    if (what.find("k.bias") == std::string::npos) CHECK(turned * 20 <= got.size());      // the wide allowance is for single elements
}

// Sums of squared errors: of the kernels, of the plain bf16 implementation; and of the true values.
struct Errors { double got = 0, naive = 0, truth = 0; size_t n = 0; };
[[maybe_unused]] double ratio(const Errors& e) { return std::sqrt(e.got / e.naive); }
template <class T> void add_errors(Errors& e, const std::vector<T>& got, const std::vector<T>& naive, const std::vector<T>& truth) {
    REQUIRE(got.size() == truth.size());
    for (size_t i = 0; i < got.size(); i++) {
        e.got += std::pow(double(got[i]) - double(truth[i]), 2);
        e.naive += std::pow(double(naive[i]) - double(truth[i]), 2);
        e.truth += std::pow(double(truth[i]), 2);
    }
    e.n += got.size();
}
}  // namespace

#if defined(PRECISION_fp32)
TEST_CASE("training steps in fp32: the CPU's gradients, weights and losses") {
    backend_init(0);
    SafetensorsFile f = safetensors_open(step_reference_path());
    for (const NamedConfig& n : step_configs()) {
        StepResult r = run_steps(n.c);
        const std::string attn = ATTENTION_NAME, prefix = n.name + "/truth/";
        check_tensor(attn + ", " + n.name + ": losses", r.losses, reference<double>(f, prefix + "losses"), 1e-6, "the CPU");
        for (auto& [name, values] : r.gradients) {
            // power's parameters: a sum over all pairs of tokens, of both signs, that both sides round, each in an order of its own
            const bool sum_of_pairs = name.find("attn.pos_") != std::string::npos;
            const double tolerance = (sum_of_pairs ? 5 : 1) * GRADIENT_TOLERANCE;
            check_tensor(attn + ", " + n.name + ": gradient of " + name, values,
                         reference<float>(f, prefix + "gradient/" + name), tolerance, "the CPU");
        }
        for (auto& [name, values] : r.first)
            check_update(attn + ", " + n.name + ": after a step " + name, values, reference<float>(f, prefix + "first/" + name),
                         reference<float>(f, prefix + "gradient/" + name));
    }
}
#endif

#if defined(PRECISION_bf16)
// Two implementations make different random errors, and the fewer independent ones a tensor's error is made of, the more their sizes
// differ by chance: the ratio of two sums of four squared normal numbers exceeds 36 in 0.2% of cases (F distribution). So one model's
// tensor is held to 6 times, which every wrong kernel still fails by far, and a tensor's errors over all models together to twice.
// pos_p and pos_a have two numbers a layer, sums of signed terms that cancel, where the plain one may be right by luck: 4 EPS of
// their size more, as in test_sdpa.cpp, which holds these two against the size of the terms.
constexpr size_t FEW = 32;
TEST_CASE("training steps in bf16: not more than twice the error of a plain implementation") {
    backend_init(0);
    SafetensorsFile f = safetensors_open(step_reference_path());
    std::map<std::string, Errors> all;
    for (const NamedConfig& n : step_configs()) {
        StepResult r = run_steps(n.c);
        const std::string truth = n.name + "/truth/", naive = n.name + "/naive/";
        std::map<std::string, Errors> here;
        if (r.losses.size() > 2)
            add_errors(here["losses"], r.losses, reference<double>(f, naive + "losses"),
                       reference<double>(f, truth + "losses"));
        for (auto& [name, values] : r.gradients)
            add_errors(here[without_layer(name)], values, reference<float>(f, naive + "gradient/" + name),
                       reference<float>(f, truth + "gradient/" + name));
        for (auto& [name, e] : here) {
            INFO(std::string(ATTENTION_NAME), ", ", n.name, ", ", name, ": error ", std::sqrt(e.got / double(e.n)),
                 ", plain ", std::sqrt(e.naive / double(e.n)), " (root mean squares)");
            CHECK(std::sqrt(e.got) <= 6 * std::sqrt(e.naive) + (e.n < FEW && name != "losses" ? 4 * 0x1p-8 * std::sqrt(e.truth) : 0));
            Errors& sum = all[name];
            sum.got += e.got, sum.naive += e.naive;
            sum.n += e.n < FEW && name != "losses" ? 0 : e.n;
        }
    }
    for (auto& [name, e] : all) {
        INFO(std::string(ATTENTION_NAME), ", all positions, ", name, ": ", ratio(e), " times the plain implementation's error");
        if (e.n > 0) CHECK(e.got <= 4 * e.naive);            // 0: only few
    }
}
#endif
