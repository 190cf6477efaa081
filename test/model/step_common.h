// Training steps of small models whose head sizes have tensor-core kernels, shared by step_reference.cpp (CPU: writes what must come
// out) and test_step.cpp (emulated kernels: compares). Included after model/gpt.h's operations are settled.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "runtime/device/bf16.h"
#include "model/program.h"
#include "test/model/model_common.h"

inline constexpr int STEP_BATCH = 2;
inline constexpr double STEP_LR = 1e-3;
// Ten steps with one position, enough for what the update does; one with the others, to keep the emulation short.
inline int steps_of(const ModelConfig& c) { return c.pos == Position::learned ? 10 : 1; }

inline std::string step_reference_path() { return std::string("build/step-") + this_program().name() + ".safetensors"; }

// HS 32 (MLA: 48 and 32) has a tensor-core kernel; T leaves a tail behind one tile of 64; V is not Vp; NH * HS != C.
inline std::vector<NamedConfig> step_configs() {
    std::vector<NamedConfig> list;
    for (NamedConfig n : all_configs()) {
        n.c.T = 70;
        n.c.V = 61;
        n.c.C = 48;
        n.c.HS = 32;
        n.c.NH = 2;
        n.c.F = 80;
        if (n.c.NKV > 0) n.c.NKV = 1;
        if (n.odd_size || !supported(n.c)) continue;
        list.push_back(n);
    }
    return list;
}

struct StepResult {
    std::vector<double> losses;                              // mean, before each update and after the last
    std::map<std::string, std::vector<floatM>> gradients;    // of the first step
    std::map<std::string, std::vector<floatM>> first;        // the weights after the first update
};

// The weights start as bf16 numbers, so that every precision starts from the same; larger than in training, so that softmax,
// GELU and the norms are far from linear.
inline void init_for_steps(GPT& g) {
    gpt_init(g, 11);
    for (const Param& p : g.params) {
        std::vector<floatM> w = get_weights(g, p);
        bool gain = p.spec.init.kind == Init::constant_ && p.spec.init.a == 1;
        size_t real = p.spec.name == "wte.weight" ? size_t(g.c.V) * size_t(g.c.C) : p.size;
        for (size_t i = 0; i < real && p.spec.min_value <= 0; i++)
            w[i] = floatM((gain ? 1 : 0) + 0.15 * philox_normal(11, rng_stream(p.spec.name), i));
        for (floatM& x : w) x = floatM(float(bf16(x)));
        set_weights(g, p, w);
    }
}

inline StepResult run_steps(const ModelConfig& c) {
    GPT g = gpt_allocate(c, STEP_BATCH);
    init_for_steps(g);
    TestBatch b = random_batch(STEP_BATCH, c.T, c.V, 12);
    StepResult r;
    const int steps = steps_of(c);
    for (int step = 1; step <= steps + 1; step++) {
        r.losses.push_back(backward(g, b));
        if (step == 1) for (const Param& p : g.params) if (p.size) r.gradients[p.spec.name] = get_gradient(g, p);
        if (step > steps) break;
        gpt_update(g, {STEP_LR, 0.9, 0.95, 1e-8, 0.1, 1.0, step, 0});
        if (step == 1) for (const Param& p : g.params) if (p.size) r.first[p.spec.name] = get_weights(g, p);
    }
    gpt_free(g);
    return r;
}
