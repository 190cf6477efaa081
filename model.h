// GPT: parameter table, memory, forward, backward, update. One source for every backend and every attention variant.
// Pre-layernorm blocks as in GPT-2 [Radford et al. 2019], token embedding tied to the head:
//   x_0 = wte[token] (+ position)
//   h = x_l + attention(ln_1(x_l))        x_{l+1} = h + W_proj gelu(W_fc ln_2(h) + b_fc) + b_proj         l = 0 .. L-1
//   logits = ln_f(x_L) wte^T              loss = mean cross-entropy, nats
// Memory is planned first (gpt_plan: names and bytes, nothing allocated), so that --dry-run prints what a run will take.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "layers/adamw.h"
#include "layers/crossentropy.h"
#include "layers/embedding.h"
#include "layers/layernorm.h"
#include "runtime/backend.h"
#include "runtime/rng.h"

// One row of the parameter table: where the tensor lies in the flat buffers of weights, gradients and optimizer state.
struct Param {
    ParamSpec spec;               // spec.name is the full name, "h.0.attn.q.weight"
    size_t offset = 0, size = 0;
};

// A named piece of memory, `bytes` long; `memory` points to it once allocated.
struct Buffer {
    std::string name;
    size_t bytes = 0;
    void* memory = nullptr;
};

struct GPT {
    ModelConfig c;
    AttentionSpec attention;
    int max_B = 0;                               // sequences per forward pass
    std::vector<Param> params;
    size_t flat_size = 0;                        // elements of the flat buffers, alignment gaps included
    std::vector<Buffer> buffers;                 // everything allocated
    // flat buffers
    floatX* weights = nullptr;
    floatM *grads = nullptr, *moment1 = nullptr, *moment2 = nullptr, *master = nullptr;
    // activations
    floatX *x0, *branch, *ln_f, *logits, *dx, *dbranch, *dhidden, *sinusoid;
    floatM *ln_f_mean, *ln_f_rstd, *losses, *rope, *alibi, *grad_norm;
    int *tokens, *targets;
    struct Layer {
        std::vector<const floatX*> w;            // attention's parameters, by the variant's enum
        std::vector<floatM*> dw;
        std::vector<void*> saved;
        const floatX *ln_1_w, *ln_1_b, *ln_2_w, *ln_2_b, *fc_w, *fc_b, *proj_w, *proj_b, *pos_p, *pos_a;
        floatM *d_ln_1_w, *d_ln_1_b, *d_ln_2_w, *d_ln_2_b, *d_fc_w, *d_fc_b, *d_proj_w, *d_proj_b, *d_pos_p, *d_pos_a;
        floatX *ln_1, *h, *ln_2, *fc, *gelu, *out;            // out: x_{l+1}
        floatM *ln_1_mean, *ln_1_rstd, *ln_2_mean, *ln_2_rstd;
    };
    std::vector<Layer> layers;
    std::vector<void*> scratch;                  // attention's gradients, shared by the layers
    std::vector<floatM> host_losses;
};

// ---------------------------------------------------------------------------------------------- the parameter table

inline void add_param(GPT& g, const std::string& prefix, ParamSpec spec) {
    size_t size = 1;
    for (int64_t n : spec.shape) size *= size_t(n);
    if (!spec.adjacent) g.flat_size = round_up(g.flat_size, 64);                // 64 elements: a cache line or more in any type
    spec.name = prefix + spec.name;
    g.params.push_back({spec, g.flat_size, size});
    g.flat_size += size;
}

inline void make_param_table(GPT& g) {
    const ModelConfig& c = g.c;
    Init one = Init::constant(1), zero = Init::constant(0);
    add_param(g, "", {"wte.weight", {c.Vp(), c.C}, init_weight(), true});
    if (c.pos == Position::learned) add_param(g, "", {"wpe.weight", {c.T, c.C}, init_weight(), true});
    for (int l = 0; l < c.L; l++) {
        std::string h = "h." + std::to_string(l) + ".";
        add_param(g, h, {"ln_1.weight", {c.C}, one, false});
        add_param(g, h, {"ln_1.bias", {c.C}, zero, false});
        for (const ParamSpec& p : g.attention.params) add_param(g, h + "attn.", p);
        for (const ParamSpec& p : position_params(c)) add_param(g, h + "attn.", p);
        add_param(g, h, {"ln_2.weight", {c.C}, one, false});
        add_param(g, h, {"ln_2.bias", {c.C}, zero, false});
        add_param(g, h, {"mlp.fc.weight", {c.F, c.C}, init_weight(), true});
        add_param(g, h, {"mlp.fc.bias", {c.F}, zero, false});
        add_param(g, h, {"mlp.proj.weight", {c.C, c.F}, init_residual(c), true});
        add_param(g, h, {"mlp.proj.bias", {c.C}, zero, false});
    }
    add_param(g, "", {"ln_f.weight", {c.C}, one, false});
    add_param(g, "", {"ln_f.bias", {c.C}, zero, false});
    g.flat_size = round_up(g.flat_size, 64);
}

inline const Param* find_param(const GPT& g, const std::string& name) {
    for (const Param& p : g.params) if (p.spec.name == name) return &p;
    return nullptr;
}

// ---------------------------------------------------------------------------------------------- planning and memory

inline void gpt_resolve(ModelConfig& c) {
    if (c.HS == 0) {
        ensure_usage(c.C % c.NH == 0, "--width %d is not a multiple of --heads %d; change one, or give --head-dim", c.C, c.NH);
        c.HS = c.C / c.NH;
    }
    if (c.F == 0) c.F = 4 * c.C;
    attention_defaults(c);
    ensure_usage(c.pos != Position::rope || c.HS % 2 == 0, "--head-dim %d is odd; --pos rope turns pairs", c.HS);
}

// One list serves planning (names and bytes) and allocation (pointers): every buffer is asked for here, in this order.
template <class T> void want(GPT& g, T*& pointer, const std::string& name, size_t count, bool allocate) {
    if (allocate) {
        pointer = device_alloc_array<T>(count);
        g.buffers.push_back({name, count * sizeof(T), pointer});
    } else {
        g.buffers.push_back({name, count * sizeof(T), nullptr});
    }
}

inline void want_slots(GPT& g, std::vector<void*>& slots, const std::vector<BufferSpec>& specs, const std::string& prefix, size_t rows, bool allocate) {
    for (const BufferSpec& s : specs) {
        void* slot = nullptr;
        floatX* x = nullptr;
        floatM* m = nullptr;
        if (s.per_token > 0 && s.master) want(g, m, prefix + s.name, rows * s.per_token, allocate), slot = m;
        else if (s.per_token > 0) want(g, x, prefix + s.name, rows * s.per_token, allocate), slot = x;
        slots.push_back(slot);
    }
}

inline void want_all(GPT& g, bool train, bool allocate) {
    const ModelConfig& c = g.c;
    size_t rows = size_t(g.max_B) * c.T, C = size_t(c.C), F = size_t(c.F);
    want(g, g.weights, "weights", g.flat_size, allocate);
    if (train) {
        want(g, g.grads, "gradients", g.flat_size, allocate);
        want(g, g.moment1, "AdamW first moment", g.flat_size, allocate);
        want(g, g.moment2, "AdamW second moment", g.flat_size, allocate);
        if (sizeof(floatX) != sizeof(floatM)) want(g, g.master, "master weights", g.flat_size, allocate);
    }
    want(g, g.x0, "embedding output", rows * C, allocate);
    g.layers.resize(size_t(c.L));
    for (int l = 0; l < c.L; l++) {
        GPT::Layer& a = g.layers[size_t(l)];
        std::string h = "h." + std::to_string(l) + " ";
        want(g, a.ln_1, h + "ln_1", rows * C, allocate);
        want(g, a.ln_1_mean, h + "ln_1 mean", rows, allocate);
        want(g, a.ln_1_rstd, h + "ln_1 rstd", rows, allocate);
        a.saved.clear();
        want_slots(g, a.saved, g.attention.saved, h + "attention ", rows, allocate);
        want(g, a.h, h + "residual after attention", rows * C, allocate);
        want(g, a.ln_2, h + "ln_2", rows * C, allocate);
        want(g, a.ln_2_mean, h + "ln_2 mean", rows, allocate);
        want(g, a.ln_2_rstd, h + "ln_2 rstd", rows, allocate);
        want(g, a.fc, h + "mlp before gelu", rows * F, allocate);
        want(g, a.gelu, h + "mlp after gelu", rows * F, allocate);
        want(g, a.out, h + "residual after mlp", rows * C, allocate);
    }
    want(g, g.branch, "branch output", rows * C, allocate);
    want(g, g.ln_f, "ln_f", rows * C, allocate);
    want(g, g.ln_f_mean, "ln_f mean", rows, allocate);
    want(g, g.ln_f_rstd, "ln_f rstd", rows, allocate);
    want(g, g.logits, "logits", rows * size_t(c.Vp()), allocate);
    want(g, g.losses, "losses", rows, allocate);
    want(g, g.tokens, "tokens", rows, allocate);
    want(g, g.targets, "targets", rows, allocate);
    want(g, g.grad_norm, "gradient norm", 1, allocate);
    if (g.attention.rope_width > 0) want(g, g.rope, "rope table", size_t(c.T) * size_t(g.attention.rope_width), allocate);
    if (c.pos == Position::alibi) want(g, g.alibi, "alibi slopes", size_t(c.NH), allocate);
    if (c.pos == Position::sinusoidal) want(g, g.sinusoid, "sinusoidal table", size_t(c.T) * C, allocate);
    if (!train) return;
    want(g, g.dx, "residual gradient", rows * C, allocate);
    want(g, g.dbranch, "branch gradient", rows * C, allocate);
    want(g, g.dhidden, "mlp gradient", rows * F, allocate);
    g.scratch.clear();
    want_slots(g, g.scratch, g.attention.scratch, "attention gradient ", rows, allocate);
}

// The table and the list of buffers, nothing allocated.
inline GPT gpt_plan(ModelConfig c, int max_B, bool train = true) {
    gpt_resolve(c);
    GPT g{};
    g.c = c;
    g.max_B = max_B;
    g.attention = attention_spec(c);
    make_param_table(g);
    want_all(g, train, false);
    return g;
}

inline void point_layers_at_params(GPT& g) {
    auto weight = [&](const std::string& name) -> const floatX* {
        const Param* p = find_param(g, name);
        return p ? g.weights + p->offset : nullptr;
    };
    auto grad = [&](const std::string& name) -> floatM* {
        const Param* p = find_param(g, name);
        return p && g.grads ? g.grads + p->offset : nullptr;
    };
    for (int l = 0; l < g.c.L; l++) {
        GPT::Layer& a = g.layers[size_t(l)];
        std::string h = "h." + std::to_string(l) + ".";
        a.w.clear();
        a.dw.clear();
        for (const ParamSpec& p : g.attention.params) {
            a.w.push_back(weight(h + "attn." + p.name));
            a.dw.push_back(grad(h + "attn." + p.name));
        }
        struct { const char* name; const floatX** w; floatM** d; } rest[] = {
            {"ln_1.weight", &a.ln_1_w, &a.d_ln_1_w}, {"ln_1.bias", &a.ln_1_b, &a.d_ln_1_b}, {"ln_2.weight", &a.ln_2_w, &a.d_ln_2_w},
            {"ln_2.bias", &a.ln_2_b, &a.d_ln_2_b}, {"mlp.fc.weight", &a.fc_w, &a.d_fc_w}, {"mlp.fc.bias", &a.fc_b, &a.d_fc_b},
            {"mlp.proj.weight", &a.proj_w, &a.d_proj_w}, {"mlp.proj.bias", &a.proj_b, &a.d_proj_b}, {"attn.pos_p", &a.pos_p, &a.d_pos_p},
            {"attn.pos_a", &a.pos_a, &a.d_pos_a}};
        for (auto& r : rest) {
            *r.w = weight(h + r.name);
            *r.d = grad(h + r.name);
        }
    }
}

inline GPT gpt_allocate(const ModelConfig& config, int max_B, bool train = true) {
    GPT g = gpt_plan(config, max_B, train);
    g.buffers.clear();
    want_all(g, train, true);
    point_layers_at_params(g);
    const ModelConfig& c = g.c;
    if (g.attention.rope_width > 0) {
        std::vector<floatM> table(size_t(c.T) * size_t(g.attention.rope_width));
        rope_table(table.data(), c.T, g.attention.rope_width, c.rope_theta);
        copy_to_device(g.rope, table.data(), table.size() * sizeof(floatM));
    }
    if (c.pos == Position::alibi) {
        std::vector<double> slopes = alibi_slopes(c.NH);
        std::vector<floatM> s(slopes.begin(), slopes.end());
        copy_to_device(g.alibi, s.data(), s.size() * sizeof(floatM));
    }
    if (c.pos == Position::sinusoidal) {
        std::vector<floatX> table(size_t(c.T) * size_t(c.C));
        sinusoidal_table(table.data(), c.T, c.C);
        copy_to_device(g.sinusoid, table.data(), table.size() * sizeof(floatX));
    }
    g.host_losses.resize(size_t(max_B) * c.T);
    return g;
}

inline void gpt_free(GPT& g) {
    for (Buffer& b : g.buffers) device_free(b.memory);
    g = GPT{};
}

// Host copies of one tensor's weights (from the master copy where there is one), and back.
inline std::vector<floatM> get_weights(const GPT& g, const Param& p) {
    std::vector<floatM> host(p.size);
    if (g.master) {
        copy_to_host(host.data(), g.master + p.offset, p.size * sizeof(floatM));
    } else {
        std::vector<floatX> narrow(p.size);
        copy_to_host(narrow.data(), g.weights + p.offset, p.size * sizeof(floatX));
        for (size_t i = 0; i < p.size; i++) host[i] = floatM(narrow[i]);
    }
    return host;
}
inline void set_weights(GPT& g, const Param& p, const std::vector<floatM>& host) {
    std::vector<floatX> narrow(p.size);
    for (size_t i = 0; i < p.size; i++) narrow[i] = floatX(host[i]);
    copy_to_device(g.weights + p.offset, narrow.data(), p.size * sizeof(floatX));
    if (g.master) copy_to_device(g.master + p.offset, host.data(), p.size * sizeof(floatM));
}

// Every number is a function of (seed, tensor name, index): tensors that two variants share start equal.
inline void gpt_init(GPT& g, uint64_t seed) {
    for (const Param& p : g.params) {
        std::vector<floatM> host(p.size);
        uint64_t stream = rng_stream(p.spec.name);
        Init init = p.spec.init;
        size_t real = p.spec.name == "wte.weight" ? size_t(g.c.V) * size_t(g.c.C) : p.size;    // padded rows stay zero
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < real; i++)
            host[i] = floatM(init.kind == Init::normal_    ? init.a * philox_normal(seed, stream, i)
                             : init.kind == Init::uniform_ ? init.a + (init.b - init.a) * philox_uniform(seed, stream, i)
                                                           : init.a);
        set_weights(g, p, host);
    }
}

// ---------------------------------------------------------------------------------------------- counts

inline size_t count_params(const GPT& g, bool embeddings) {
    size_t n = 0;
    for (const Param& p : g.params) {
        bool wte = p.spec.name == "wte.weight", wpe = p.spec.name == "wpe.weight";
        if (!wte && !wpe) n += p.size;
        else if (embeddings) n += wte ? size_t(g.c.V) * size_t(g.c.C) : p.size;
    }
    return n;
}
inline size_t cache_bytes_per_token(const GPT& g) { return g.attention.cache_elements * sizeof(floatX) * size_t(g.c.L); }
// Forward and backward: 6 per multiply-add of the projections and the head, plus attention's two products over T keys
// ("full": 12 L C T of PaLM's appendix B; the causal half counts what is really needed).
inline double flops_per_token(const GPT& g, bool causal_half = false) {
    const ModelConfig& c = g.c;
    double projections = double(c.L) * (double(g.attention.macs_per_token) + 2.0 * c.C * c.F) + double(c.V) * c.C;
    double scores = double(c.L) * c.NH * (g.attention.d_qk + g.attention.d_v) * c.T;
    return 6 * (projections + scores * (causal_half ? 0.5 : 1.0));
}
inline size_t planned_bytes(const GPT& g) {
    size_t n = 0;
    for (const Buffer& b : g.buffers) n += b.bytes;
    return n;
}

// ---------------------------------------------------------------------------------------------- forward

inline AttentionLayer attention_layer(GPT& g, int l, int B, int T, bool accumulate) {
    GPT::Layer& a = g.layers[size_t(l)];
    PositionBias bias;
    if (g.c.pos == Position::alibi) bias = {BiasKind::alibi, g.alibi, nullptr, nullptr};
    if (g.c.pos == Position::power) bias = {BiasKind::power, nullptr, a.pos_p, a.pos_a};
    return {g.c, B, T, a.w.data(), a.dw.data(), a.saved.data(), g.scratch.data(), g.attention.rope_width > 0 ? g.rope : nullptr, bias,
            a.d_pos_p, a.d_pos_a, accumulate};
}

inline const floatX* position_table(const GPT& g) {
    const Param* wpe = find_param(g, "wpe.weight");
    return wpe ? g.weights + wpe->offset : g.c.pos == Position::sinusoidal ? g.sinusoid : nullptr;
}

// tokens (B, T) on the host -> ln_f (B, T, C) on the device. T may be shorter than the context.
inline void gpt_forward(GPT& g, const int* tokens, int B, int T) {
    const ModelConfig& c = g.c;
    ensure(B <= g.max_B && T <= c.T, "forward of %d x %d tokens in a model made for %d x %d", B, T, g.max_B, c.T);
    size_t rows = size_t(B) * T;
    copy_to_device(g.tokens, tokens, rows * sizeof(int));
    embedding_forward(g.x0, g.tokens, g.weights, position_table(g), B, T, c.C);                              // wte is tensor 0
    const floatX* x = g.x0;
    layernorm_forward(g.layers[0].ln_1, g.layers[0].ln_1_mean, g.layers[0].ln_1_rstd, x, g.layers[0].ln_1_w, g.layers[0].ln_1_b, rows, c.C);
    for (int l = 0; l < c.L; l++) {
        GPT::Layer& a = g.layers[size_t(l)];
        attention_forward(g.branch, a.ln_1, attention_layer(g, l, B, T, false));
        residual_layernorm_forward(a.h, a.ln_2, a.ln_2_mean, a.ln_2_rstd, x, g.branch, a.ln_2_w, a.ln_2_b, rows, c.C);
        linear_forward(a.fc, a.ln_2, a.fc_w, a.fc_b, linear_shape(rows, c.C, c.F), false, a.gelu);
        linear_forward(g.branch, a.gelu, a.proj_w, a.proj_b, linear_shape(rows, c.F, c.C));
        if (l + 1 < c.L) {                                                                                    // the next block's ln_1
            GPT::Layer& n = g.layers[size_t(l) + 1];
            residual_layernorm_forward(a.out, n.ln_1, n.ln_1_mean, n.ln_1_rstd, a.h, g.branch, n.ln_1_w, n.ln_1_b, rows, c.C);
        } else {
            const floatX *w = g.weights + find_param(g, "ln_f.weight")->offset, *b = g.weights + find_param(g, "ln_f.bias")->offset;
            residual_layernorm_forward(a.out, g.ln_f, g.ln_f_mean, g.ln_f_rstd, a.h, g.branch, w, b, rows, c.C);
        }
        x = a.out;
    }
}

inline LinearShape head_shape(const GPT& g, size_t rows) { return linear_shape(rows, g.c.C, g.c.Vp()); }

inline double sum_of_losses(GPT& g, size_t rows) {
    copy_to_host(g.host_losses.data(), g.losses, rows * sizeof(floatM));
    double sum = 0;
    for (size_t i = 0; i < rows; i++) sum += double(g.host_losses[i]);
    return sum;
}

// Sum of the losses of B sequences (targets -1 do not count); no gradients.
inline double gpt_loss(GPT& g, const int* tokens, const int* targets, int B, int T) {
    size_t rows = size_t(B) * T;
    gpt_forward(g, tokens, B, T);
    copy_to_device(g.targets, targets, rows * sizeof(int));
    linear_forward(g.logits, g.ln_f, g.weights, nullptr, head_shape(g, rows));
    crossentropy_forward(g.losses, g.logits, g.targets, rows, g.c.V, g.c.Vp());
    return sum_of_losses(g, rows);
}

// Logits (V) of the token after `tokens` (1, T), on the host, for sampling.
inline void gpt_next_logits(GPT& g, const int* tokens, int T, std::vector<floatX>& logits) {
    gpt_forward(g, tokens, 1, T);
    linear_forward(g.logits, g.ln_f + size_t(T - 1) * g.c.C, g.weights, nullptr, head_shape(g, 1));
    logits.resize(size_t(g.c.V));
    copy_to_host(logits.data(), g.logits, logits.size() * sizeof(floatX));
}

// ---------------------------------------------------------------------------------------------- backward and update

// Forward and backward of one micro-batch. scale: what the mean over the optimizer's whole batch divides by, 1 / its tokens.
// accumulate: false for the first micro-batch of a step (gradients =), true for the others (+=). Returns the sum of the losses.
inline double gpt_forward_backward(GPT& g, const int* tokens, const int* targets, int B, int T, double scale, bool accumulate) {
    const ModelConfig& c = g.c;
    size_t rows = size_t(B) * T;
    gpt_forward(g, tokens, B, T);
    copy_to_device(g.targets, targets, rows * sizeof(int));
    floatM* dwte = g.grads;
    // 1. head and loss: logits become dlogits in place
    linear_forward(g.logits, g.ln_f, g.weights, nullptr, head_shape(g, rows));
    crossentropy_forward_backward(g.losses, g.logits, g.targets, rows, c.V, c.Vp(), floatM(scale));
    linear_backward_weight(dwte, nullptr, g.logits, g.ln_f, head_shape(g, rows), accumulate);
    linear_backward_input(g.dbranch, g.logits, g.weights, head_shape(g, rows));
    // 2. final layernorm starts the residual stream's gradient
    const Param &ln_w = *find_param(g, "ln_f.weight"), &ln_b = *find_param(g, "ln_f.bias");
    layernorm_backward(g.dx, g.grads + ln_w.offset, g.grads + ln_b.offset, g.dbranch, g.layers.back().out, g.weights + ln_w.offset, g.ln_f_mean,
                       g.ln_f_rstd, rows, c.C, false, accumulate);
    // 3. blocks, last to first: dx passes through both residual branches
    for (int l = c.L - 1; l >= 0; l--) {
        GPT::Layer& a = g.layers[size_t(l)];
        const floatX* x = l > 0 ? g.layers[size_t(l) - 1].out : g.x0;
        linear_backward_weight(a.d_proj_w, a.d_proj_b, g.dx, a.gelu, linear_shape(rows, c.F, c.C), accumulate);
        linear_backward_input(g.dhidden, g.dx, a.proj_w, linear_shape(rows, c.F, c.C), false, a.fc);
        linear_backward_weight(a.d_fc_w, a.d_fc_b, g.dhidden, a.ln_2, linear_shape(rows, c.C, c.F), accumulate);
        linear_backward_input(g.dbranch, g.dhidden, a.fc_w, linear_shape(rows, c.C, c.F));
        layernorm_backward(g.dx, a.d_ln_2_w, a.d_ln_2_b, g.dbranch, a.h, a.ln_2_w, a.ln_2_mean, a.ln_2_rstd, rows, c.C, true, accumulate);
        attention_backward(g.dbranch, g.dx, a.ln_1, attention_layer(g, l, B, T, accumulate));
        layernorm_backward(g.dx, a.d_ln_1_w, a.d_ln_1_b, g.dbranch, x, a.ln_1_w, a.ln_1_mean, a.ln_1_rstd, rows, c.C, true, accumulate);
    }
    // 4. embeddings: wte's gradient already holds the head's part
    const Param* wpe = find_param(g, "wpe.weight");
    embedding_backward(dwte, wpe ? g.grads + wpe->offset : nullptr, g.dx, g.tokens, B, T, c.C, accumulate);
    return sum_of_losses(g, rows);
}

// Norm, clipping and AdamW. step counts from 1. Returns the gradient's norm before clipping. Not finite: nothing is updated.
inline double gpt_update(GPT& g, const AdamW& hyper) {
    global_norm(g.grad_norm, g.grads, g.flat_size);
    floatM norm;
    copy_to_host(&norm, g.grad_norm, sizeof norm);
    if (!std::isfinite(norm)) return double(norm);
    for (const Param& p : g.params) {
        AdamW a = hyper;
        if (!p.spec.decay) a.weight_decay = 0;
        a.min_value = p.spec.min_value;
        adamw_update(g.weights + p.offset, g.master ? g.master + p.offset : nullptr, g.moment1 + p.offset, g.moment2 + p.offset,
                     g.grads + p.offset, p.size, g.grad_norm, a);
    }
    return double(norm);
}
