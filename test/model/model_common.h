// Shared by the tests that build whole models: small awkward sizes, fixed random batches, access by tensor name.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "model/gpt.h"
#include "runtime/run/error.h"

inline constexpr bool DOUBLE = sizeof(floatM) == 8;

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

// Does the variant support these sizes? Its attention_defaults refuses those it does not. (Which sizes the backend has
// kernels for is another matter: where that counts, a test picks its own.)
inline bool supported(ModelConfig c) {
    try {
        gpt_resolve(c);
        return true;
    } catch (const Error&) {
        return false;
    }
}

// Sizes at which a wrong stride or transpose shows: NH * HS != C, V not a multiple of 128, T not a multiple of any tile; the head size is
// the first of some awkward ones that the variant supports (half of 6 is odd, half of 10 too, half of 12 is not).
inline ModelConfig awkward_config(Position pos) {
    ModelConfig c;
    c.T = 7;
    c.V = 31;
    c.L = 2;
    c.C = 12;
    c.NH = 4;
    c.F = 20;
    c.pos = pos;
    for (int head_size : {6, 10, 12, 8, 16}) {
        c.HS = head_size;
        if (supported(c)) return c;
    }
    fail("no head size for the tests: attention %s refuses 4 heads of 6, 10, 12, 8 and 16 with --pos %s",
         ATTENTION_NAME, position_name(pos));
}

// The model of a file in test/golden, by its metadata.
inline ModelConfig golden_config(const std::map<std::string, std::string>& m) {
    ModelConfig c;
    struct { const char* key; int* to; } numbers[] = {{"T", &c.T}, {"V", &c.V}, {"L", &c.L}, {"C", &c.C}, {"NH", &c.NH},
                                                      {"NKV", &c.NKV}, {"HS", &c.HS}, {"F", &c.F}};
    for (auto [key, to] : numbers) *to = std::stoi(m.at(key));
    c.pos = position_from_name(m.at("pos"));
    for (size_t i = 0; i < ATTENTION_OPTIONS.size(); i++) {
        const VariantOption& own = ATTENTION_OPTIONS[i];
        const std::string& value = m.at(json_key(own.name));
        ModelConfig with = c;
        with.own[i] = own.kind != VariantOption::choice
                          ? std::stoi(value)
                          : int(std::find(own.choices.begin(), own.choices.end(), value) - own.choices.begin());
        // the file lists options without effect too, which a user may not give (a rotation without rope)
        if (supported(with)) c = with;
    }
    return c;
}
// Is the file's model this program's? (The defaults are not written.)
inline bool golden_is_ours(const std::map<std::string, std::string>& m) {
    auto value = [&](const char* key, const char* if_missing) { return m.count(key) ? m.at(key) : std::string(if_missing); };
    const Program plain;
    return value("attn", "") == ATTENTION_NAME && value("norm", plain.norm) == NORM_NAME && value("mlp", plain.mlp) == MLP_NAME;
}

inline bool default_norm_and_mlp() { return std::string(NORM_NAME) == Program().norm && std::string(MLP_NAME) == Program().mlp; }

// The variants that have reference values and a known relation to multi-head attention. A new one is checked by everything
// else.
inline bool has_reference() {
    for (const char* name : {"qkv", "mqa", "gqa", "mla", "qv", "qv_ka", "gta", "qk", "one"})
        if (std::string(name) == ATTENTION_NAME) return default_norm_and_mlp();
    return false;
}

struct NamedConfig {
    std::string name;
    ModelConfig c;
    // one of the variant's own widths is awkward: for the tests that take no long time
    bool odd_size = false;
};

inline constexpr int AWKWARD = 10;                           // for a variant's own number: not a multiple of 4
// Every position; the variant's own options, by its table: numbers at 0 and at an awkward size, flags on, every choice; all at once;
// each of them with grouped heads too. Left out are those that the variant refuses, or that equal an earlier configuration.
inline std::vector<NamedConfig> all_configs() {
    std::vector<NamedConfig> list;
    for (Position p : {Position::learned, Position::sinusoidal, Position::rope, Position::alibi, Position::power, Position::none})
        list.push_back({position_name(p), awkward_config(p)});
    // With the first of these positions that the variant takes it with.
    auto add = [&](const std::string& name, std::initializer_list<Position> positions, auto change) {
        for (Position p : positions) {
            ModelConfig c = awkward_config(p);
            change(c);
            if (!supported(c)) continue;
            ModelConfig sizes = c;
            gpt_resolve(sizes);
            for (const NamedConfig& n : list) {
                ModelConfig theirs = n.c;
                gpt_resolve(theirs);
                if (theirs.pos == p && theirs.NKV == sizes.NKV && std::equal(sizes.own, sizes.own + MAX_OWN, theirs.own)) return;
            }
            const bool odd = std::find(c.own, c.own + MAX_OWN, AWKWARD) != c.own + MAX_OWN;
            list.push_back({name + ", " + position_name(p), c, odd});
            return;
        }
    };
    const auto rope = Position::rope, power = Position::power, alibi = Position::alibi, learned = Position::learned;
    add("2 kv heads", {rope}, [](ModelConfig& c) { c.NKV = 2; });
    add("2 kv heads", {power}, [](ModelConfig& c) { c.NKV = 2; });
    for (size_t i = 0; i < ATTENTION_OPTIONS.size(); i++) {
        const VariantOption& own = ATTENTION_OPTIONS[i];
        std::vector<int> values = own.kind == VariantOption::number ? std::vector{0, AWKWARD} : std::vector{1};
        for (size_t k = 2; k < own.choices.size(); k++) values.push_back(int(k));
        for (int value : values) {
            const std::string name = std::string(own.name) + " " + std::to_string(value);
            add(name, {rope, learned}, [&](ModelConfig& c) { c.own[i] = value; });
            if (own.kind != VariantOption::number)
                add(name + ", 2 kv heads", {rope, alibi}, [&](ModelConfig& c) { c.own[i] = value, c.NKV = 2; });
        }
    }
    if (ATTENTION_OPTIONS.size() > 1)
        add("all own numbers 0", {alibi}, [](ModelConfig& c) { for (size_t i = 0; i < ATTENTION_OPTIONS.size(); i++) c.own[i] = 0; });
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
