// Shared by the tests that build whole models: small awkward sizes, fixed random batches, access by tensor name.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "model/gpt.h"

struct TestBatch { int B, T; std::vector<int> tokens, targets; };

inline TestBatch random_batch(int B, int T, int V, uint64_t seed) {
    TestBatch b{B, T, {}, {}};
    for (int i = 0; i < B * T; i++) {
        b.tokens.push_back(int(philox_below(seed, 1, uint64_t(i), uint32_t(V))));
        b.targets.push_back(int(philox_below(seed, 2, uint64_t(i), uint32_t(V))));
    }
    return b;
}

// Sets the variant's own option of this name; a variant without it ignores the call, so that one line serves all.
inline void set_own(ModelConfig& c, const std::string& name, int value) {
    for (size_t i = 0; i < ATTENTION_OPTIONS.size(); i++)
        if (ATTENTION_OPTIONS[i].name == name) c.own[i] = value;
}
inline int own(const ModelConfig& c, const std::string& name) {
    for (size_t i = 0; i < ATTENTION_OPTIONS.size(); i++)
        if (ATTENTION_OPTIONS[i].name == name) return c.own[i];
    return AUTO;
}

// Sizes at which a wrong stride or transpose shows: NH * HS != C, V not a multiple of 128, T not a multiple of any tile.
inline ModelConfig awkward_config(Position pos) {
    ModelConfig c;
    c.T = 7;
    c.V = 31;
    c.L = 2;
    c.C = 12;
    c.NH = 4;
    c.HS = 6;
    c.F = 20;
    c.pos = pos;
    set_own(c, "mla-dc", 10);
    set_own(c, "mla-dr", 4);
    set_own(c, "mla-dcq", 14);
    return c;
}

// The model of a file in test/golden, by its metadata.
inline ModelConfig golden_config(const std::map<std::string, std::string>& m) {
    ModelConfig c;
    struct { const char* key; int* to; } numbers[] = {{"T", &c.T}, {"V", &c.V}, {"L", &c.L}, {"C", &c.C}, {"NH", &c.NH}, {"NKV", &c.NKV}, {"HS", &c.HS},
        {"F", &c.F}};
    for (auto [key, to] : numbers) *to = std::stoi(m.at(key));
    c.pos = position_from_name(m.at("pos"));
    for (size_t i = 0; i < ATTENTION_OPTIONS.size(); i++) {
        const VariantOption& own = ATTENTION_OPTIONS[i];
        const std::string& value = m.at(json_key(own.name));
        c.own[i] = own.kind != VariantOption::choice ? std::stoi(value) : int(std::find(own.choices.begin(), own.choices.end(), value) - own.choices.begin());
    }
    return c;
}

// The variants that have reference values and a known relation to multi-head attention. A new one is checked by all the rest.
inline bool has_reference() {
    for (const char* name : {"qkv", "mqa", "gqa", "mla", "qv", "qv_ka"})
        if (std::string(name) == ATTENTION_NAME) return true;
    return false;
}

struct NamedConfig { std::string name; ModelConfig c; };

// Every position, and the variant's own options, for the variant this binary is built with.
inline std::vector<NamedConfig> all_configs() {
    std::vector<NamedConfig> list;
    for (Position p : {Position::learned, Position::sinusoidal, Position::rope, Position::alibi, Position::power, Position::none})
        list.push_back({position_name(p), awkward_config(p)});
    std::string attn = ATTENTION_NAME;
    auto add = [&](const std::string& name, Position p, auto change) {
        ModelConfig c = awkward_config(p);
        change(c);
        list.push_back({name, c});
    };
    if (attn == "qv") add("rope vo", Position::rope, [](ModelConfig& c) { set_own(c, "qv-rope", 1); });
    if (attn == "qv") add("rope vo, 2 kv heads", Position::rope, [](ModelConfig& c) { set_own(c, "qv-rope", 1); c.NKV = 2; });
    if (attn == "gqa" || attn == "qv" || attn == "qv_ka")
        for (Position p : {Position::rope, Position::power}) add(std::string("2 kv heads, ") + position_name(p), p, [](ModelConfig& c) { c.NKV = 2; });
    if (attn == "qv_ka") {
        add("tied", Position::alibi, [](ModelConfig& c) { set_own(c, "qvka-tied", 1); });
        add("tied, 2 kv heads", Position::rope, [](ModelConfig& c) { set_own(c, "qvka-tied", 1); c.NKV = 2; });
        add("d_ctx 0", Position::learned, [](ModelConfig& c) { set_own(c, "qvka-dctx", 0); });
        add("d_ctx 5", Position::rope, [](ModelConfig& c) { set_own(c, "qvka-dctx", 5); });
    }
    if (attn == "mla") {
        add("no query compression", Position::rope, [](ModelConfig& c) { set_own(c, "mla-dcq", 0); });
        add("no rotary part", Position::learned, [](ModelConfig& c) { set_own(c, "mla-dr", 0); });
        add("neither", Position::alibi, [](ModelConfig& c) { set_own(c, "mla-dr", 0); set_own(c, "mla-dcq", 0); });
    }
    return list;
}

// Initial weights larger than a real run's, so that no gradient is lost in rounding; gains and biases off their defaults too.
inline void init_for_test(GPT& g, uint64_t seed) {
    gpt_init(g, seed);
    for (const Param& p : g.params) {
        bool positive = p.spec.min_value > 0, gain = p.spec.init.kind == Init::constant_ && p.spec.init.a == 1;
        if (positive) continue;
        std::vector<floatM> w(p.size);
        size_t real = p.spec.name == "wte.weight" ? size_t(g.c.V) * size_t(g.c.C) : p.size;
        for (size_t i = 0; i < real; i++) w[i] = floatM((gain ? 1 : 0) + 0.3 * philox_normal(seed, rng_stream(p.spec.name), i));
        set_weights(g, p, w);
    }
}

inline double mean_loss(GPT& g, const TestBatch& b) { return gpt_loss(g, b.tokens.data(), b.targets.data(), b.B, b.T) / (b.B * b.T); }
inline double backward(GPT& g, const TestBatch& b) {
    return gpt_forward_backward(g, b.tokens.data(), b.targets.data(), b.B, b.T, 1.0 / (b.B * b.T), false) / (b.B * b.T);
}
inline std::vector<floatM> get_gradient(const GPT& g, const Param& p) {
    std::vector<floatM> host(p.size);
    copy_to_host(host.data(), g.grads + p.offset, p.size * sizeof(floatM));
    return host;
}
