// A GPT's memory and initial values. Memory is planned first (gpt_plan: names and bytes, nothing allocated), so that
// --dry-run can print what a run will take; then it is allocated as one block, and every buffer is a slice of it. Also
// the counts that follow from the tables.
#pragma once
#include <cmath>

#include "layers/embedding.h"
#include "model/model.h"
#include "model/shards.h"
#include "runtime/device/rng.h"

// ---------------------------------------------------------------------------------------------- planning and memory

inline void gpt_resolve(ModelConfig& c) {
    if (c.HS == 0) {
        ensure_usage(c.C % c.NH == 0, "--width %d is not a multiple of --heads %d; change one, or give --head-dim", c.C, c.NH);
        c.HS = c.C / c.NH;
    }
    if (c.F == 0) c.F = mlp_default_width(c);
    own_defaults(c, ATTENTION_OPTIONS);
    attention_defaults(c);
    ensure_usage(c.pos != Position::rope || c.HS % 2 == 0, "--head-dim %d is odd; --pos rope rotates pairs", c.HS);
}

// One list serves planning (names and bytes) and allocation (slices of the arena): every buffer is asked for here, in this order.
struct Slices { GPT& g; char* arena; size_t used = 0; };     // arena null: planning
template <class T> void want(Slices& s, T*& pointer, const std::string& name, size_t count) {
    if (s.arena) pointer = reinterpret_cast<T*>(s.arena + s.used);
    s.used += round_up(count * sizeof(T), 256);
    s.g.buffers.push_back({name, count * sizeof(T), pointer});
}

inline void* want_slot(Slices& s, const BufferSpec& b, const std::string& name, size_t rows) {
    floatX* x = nullptr;
    floatM* m = nullptr;
    if (b.per_token == 0) return nullptr;
    if (b.master) want(s, m, name, rows * b.per_token);
    else want(s, x, name, rows * b.per_token);
    return b.master ? static_cast<void*>(m) : x;
}
inline void want_slots(Slices& s, std::vector<void*>& slots, const std::vector<BufferSpec>& specs, const std::string& prefix, size_t rows) {
    slots.clear();
    for (const BufferSpec& b : specs) slots.push_back(want_slot(s, b, prefix + b.name, rows));
}
// The same for layer l. Buffers that --recompute keeps for one layer only are the first layer's.
inline void want_saved(Slices& s, std::vector<void*>& slots, const std::vector<void*>& first_layers, const std::vector<BufferSpec>& specs,
                       const std::string& label, int l, size_t rows) {
    slots.clear();
    for (size_t i = 0; i < specs.size(); i++) {
        const bool one = s.g.run.train && specs[i].recompute > 0 && s.g.run.recompute >= specs[i].recompute;
        const std::string name = label + specs[i].name;
        slots.push_back(!one ? want_slot(s, specs[i], "h." + std::to_string(l) + " " + name, rows)
                        : l == 0 ? want_slot(s, specs[i], name + ", of one layer", rows) : first_layers[i]);
    }
}

inline void want_flat(Slices& s) {
    GPT& g = s.g;
    want(s, g.weights, "weights", g.flat_size);
    if (!g.run.train) return;
    want(s, g.grads, "gradients", gradients_size(g));
    if (sharded(g) && g.run.zero >= 2) want(s, g.grads_own, "gradients, this rank's part", state_size(g));
    want(s, g.moment1, "AdamW first moment", state_size(g));
    want(s, g.moment2, "AdamW second moment", state_size(g));
    if (sizeof(floatX) != sizeof(floatM)) want(s, g.master, "master weights", state_size(g));
    g.stash.resize(size_t(g.run.stashes));
    for (floatM*& stash : g.stash) want(s, stash, "gradient sums of --deterministic-ranks", g.flat_size);
    want(s, g.norm_sums, "gradient norm, sums of blocks", g.flat_size / NORM_BLOCK);
}

inline void want_all(Slices& s) {
    GPT& g = s.g;
    const ModelConfig& c = g.c;
    const size_t rows = size_t(g.max_B) * c.T, C = size_t(c.C);
    want_flat(s);
    want(s, g.x0, "embedding output", rows * C);
    g.layers.resize(size_t(c.L));
    for (int l = 0; l < c.L; l++) {
        GPT::Layer &layer = g.layers[size_t(l)], &first = g.layers[0];
        want_saved(s, layer.saved, first.saved, block_saved(c), "", l, rows);
        for (size_t k = 0; k < BLOCK_PARTS; k++)
            want_saved(s, layer.part[k].saved, first.part[k].saved, g.parts[k].spec.saved, g.parts[k].label + std::string(" "), l, rows);
    }
    want(s, g.branch, "branch output", rows * C);
    want(s, g.ln_f, "ln_f", rows * C);
    want_slots(s, g.last_norm.saved, g.norm.saved, "ln_f ", rows);
    want(s, g.logits, "logits", rows * size_t(c.Vp()));
    // The losses of a whole step and, after them, the gradient's norm: one copy brings them all to the host.
    size_t losses = rows * size_t(g.run.micro_batches);
    want(s, g.losses, "losses", losses + 1);
    if (s.arena) g.grad_norm = g.losses + losses;
    want(s, g.tokens, "tokens", rows);
    want(s, g.targets, "targets", rows);
    if (g.attention.rope_width > 0) want(s, g.rope, "rope table", size_t(c.T) * size_t(g.attention.rope_width));
    if (c.pos == Position::alibi) want(s, g.alibi, "alibi slopes", size_t(c.NH));
    if (c.pos == Position::sinusoidal) want(s, g.sinusoid, "sinusoidal table", size_t(c.T) * C);
    if (!g.run.train) return;
    want(s, g.dx, "residual gradient", rows * C);
    want(s, g.dbranch, "branch gradient", rows * C);
    for (size_t k = 0; k < BLOCK_PARTS; k++)
        want_slots(s, g.scratch[k], g.parts[k].spec.scratch, g.parts[k].label + std::string(" gradient "), rows);
}

// What sdpa_backward takes of the kernels' scratch memory.
inline size_t attention_scratch_bytes(const GPT& g) {
    SdpaShape shape{g.max_B, g.c.T, g.c.NH, g.c.NKV, g.attention.d_qk, g.attention.d_v, 0, 0, 0, 0};
    return sdpa_scratch_bytes(shape, g.c.pos == Position::power   ? BiasKind::power
                                     : g.c.pos == Position::alibi ? BiasKind::alibi
                                                                  : BiasKind::none);
}

// The parts' tables, for these sizes.
inline void set_parts(GPT& g) {
    g.attention = attention_spec(g.c);
    g.parts = block_parts(g.c);
    g.norm = norm_spec(g.c);
}

// The parameter table and the list of buffers; nothing is allocated.
inline GPT gpt_plan(ModelConfig c, const RunShape& run) {
    gpt_resolve(c);
    GPT g{};
    g.c = c;
    g.run = run;
    g.max_B = run.max_B;
    set_parts(g);
    std::string refusal = sdpa_refusal(g.attention.d_qk, g.attention.d_v);
    ensure_usage(refusal.empty(), "%s; choose --heads or --head-dim accordingly", refusal.c_str());
    make_param_table(g);
    Slices s{g, nullptr};
    want_all(s);
    g.arena_bytes = s.used;
    g.buffers.push_back({"losses, the host's copy", (size_t(g.max_B) * g.c.T * size_t(run.micro_batches) + 1) * sizeof(floatM), nullptr});
    if (size_t scratch = device_fixed_bytes() + attention_scratch_bytes(g))
        g.buffers.push_back({"kernels' scratch memory", scratch, nullptr});
    return g;
}
inline GPT gpt_plan(const ModelConfig& c, int max_B, bool train = true) { return gpt_plan(c, RunShape{max_B, train}); }
inline size_t planned_bytes(const GPT& g) {
    size_t n = 0;
    for (const Buffer& b : g.buffers) n += b.bytes;
    return n;
}

inline void point_at_params(GPT& g, GPT::Tensors& part, const std::string& prefix, const std::vector<ParamSpec>& specs) {
    part.w.clear();
    part.dw.clear();
    for (const ParamSpec& spec : specs) {
        const Param& p = *find_param(g, prefix + spec.name);
        part.w.push_back(g.weights + p.offset);
        part.dw.push_back(g.grads ? gradient_of(g, p) : nullptr);
    }
}
inline void point_layers_at_params(GPT& g) {
    for (int l = 0; l < g.c.L; l++)
        for (size_t k = 0; k < BLOCK_PARTS; k++)
            point_at_params(g, g.layers[size_t(l)].part[k], "h." + std::to_string(l) + "." + g.parts[k].prefix, g.parts[k].spec.params);
    point_at_params(g, g.last_norm, "ln_f.", g.norm.params);
}

// The fixed tables of positions 0 .. positions - 1.
inline void fill_position_tables(GPT& g, int positions) {
    const ModelConfig& c = g.c;
    if (g.attention.rope_width > 0) {
        std::vector<floatM> table(size_t(positions) * size_t(g.attention.rope_width));
        rope_table(table.data(), positions, g.attention.rope_width, c.rope_theta);
        copy_to_device(g.rope, table.data(), table.size() * sizeof(floatM));
    }
    if (c.pos == Position::alibi) {
        std::vector<double> slopes = alibi_slopes(c.NH);
        std::vector<floatM> m(slopes.begin(), slopes.end());
        copy_to_device(g.alibi, m.data(), m.size() * sizeof(floatM));
    }
    if (c.pos == Position::sinusoidal) {
        std::vector<floatX> table(size_t(positions) * size_t(c.C));
        sinusoidal_table(table.data(), positions, c.C);
        copy_to_device(g.sinusoid, table.data(), table.size() * sizeof(floatX));
    }
}

inline GPT gpt_allocate(const ModelConfig& config, const RunShape& run) {
    GPT g = gpt_plan(config, run);
    const ModelConfig& c = g.c;
    device_scratch_reserve(attention_scratch_bytes(g));
    g.arena = device_alloc(g.arena_bytes);
    g.buffers.clear();
    Slices s{g, static_cast<char*>(g.arena)};
    want_all(s);
    point_layers_at_params(g);
    g.reducing.assign(g.buckets.size(), -1);
    g.gathering.assign(g.buckets.size(), -1);
    fill_position_tables(g, c.T);
    g.host_losses.resize(size_t(g.max_B) * c.T * size_t(run.micro_batches) + 1);
    return g;
}
inline GPT gpt_allocate(const ModelConfig& c, int max_B, bool train = true) { return gpt_allocate(c, RunShape{max_B, train}); }

inline void gpt_free(GPT& g) {
    for (CommRequest& r : g.gathering) comm_wait(r);         // weights still on their way would arrive in freed memory
    device_free(g.arena);
    g = GPT{};
}

// Copies one tensor's weights from and to the host; set_weights also fills this rank's part of the master copy.
inline std::vector<floatM> get_weights(const GPT& g, const Param& p) {
    std::vector<floatX> stored(p.size);
    copy_to_host(stored.data(), g.weights + p.offset, p.size * sizeof(floatX));
    std::vector<floatM> host(p.size);
    for (size_t i = 0; i < p.size; i++) host[i] = floatM(stored[i]);
    if (!g.master) return host;
    for (const Owned& o : owned_ranges(g, p.offset, p.offset + p.size))          // more digits, where this rank has them
        if (o.owner == g.run.rank) copy_to_host(&host[o.begin - p.offset], g.master + o.state, (o.end - o.begin) * sizeof(floatM));
    return host;
}
inline void set_weights(GPT& g, const Param& p, const std::vector<floatM>& host, const Rounding& rounding = {}) {
    std::vector<floatX> narrow(p.size);
    for (size_t i = 0; i < p.size; i++) narrow[i] = stored_weight(host[i], rounding, i);
    copy_to_device(g.weights + p.offset, narrow.data(), p.size * sizeof(floatX));
    if (!g.master) return;
    for (const Owned& o : owned_ranges(g, p.offset, p.offset + p.size))
        if (o.owner == g.run.rank) copy_to_device(g.master + o.state, &host[o.begin - p.offset], (o.end - o.begin) * sizeof(floatM));
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
inline size_t cache_bytes_per_token(const GPT& g) { return cache_elements(g.attention) * sizeof(floatX) * size_t(g.c.L); }
// Forward and backward: 6 per multiply-add of the parts' products and the head, plus attention's two products over T keys
// ("full": 12 L C T of PaLM's appendix B; the causal half counts what is really needed).
inline double flops_per_token(const GPT& g, bool causal_half = false) {
    const ModelConfig& c = g.c;
    double products = double(c.V) * c.C, scores = double(c.L) * c.NH * (g.attention.d_qk + g.attention.d_v) * c.T;
    for (const NamedPart& part : g.parts) products += double(c.L) * double(part.spec.macs_per_token);
    return 6 * (products + scores * (causal_half ? 0.5 : 1.0));
}
