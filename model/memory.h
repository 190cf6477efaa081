// What a GPT holds: parameter table, the flat buffers and how ranks share them, the memory plan, initial values, counts.
// model/gpt.h computes with it. One source for every backend and every attention variant.
// Memory is planned first (gpt_plan: names and bytes, nothing allocated), so that --dry-run prints what a run will take; then it is
// allocated as one block, of which every buffer is a slice.
//
// Flat buffers: all weights lie in one array, so do gradients, moments and master weights, at the same offsets. The array is cut into
// buckets: the embeddings, each layer, the last layernorm. With several ranks every bucket is divided evenly among them, whatever the
// tensors' borders, and a rank updates its piece of each [ZeRO: Rajbhandari et al. 2020]. Per rank, of N, in elements of the flat size P:
//   zero 0   gradients P, moments and master P       gradients summed everywhere, every rank updates everything
//   zero 1   gradients P, moments and master P / N   gradients reduce-scattered once a step, weights gathered
//   zero 2   gradients P / N + the embeddings' + two layers', moments and master P / N   reduce-scattered every micro-batch
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "layers/adamw.h"
#include "layers/linear.h"
#include "runtime/device/backend.h"
#include "runtime/comm/comm.h"
#include "runtime/device/rng.h"

// One row of the parameter table: where the tensor lies in the flat buffers of weights, gradients and optimizer state.
struct Param {
    ParamSpec spec;               // spec.name is the full name, "h.0.attn.q.weight"
    size_t offset = 0, size = 0;
    size_t bucket = 0;
};
// Consecutive parameters whose gradients are ready at the same time: 0 the embeddings, l + 1 layer l, L + 1 ln_f.
struct Bucket {
    std::string name;
    size_t offset = 0, size = 0;
};

// A named piece of memory, `bytes` long; `memory` points to it once allocated.
struct Buffer {
    std::string name;
    size_t bytes = 0;
    void* memory = nullptr;
};

// How the model is run, besides what it is.
struct RunShape {
    int max_B = 1;                // sequences per forward pass
    bool train = true;
    int micro_batches = 1;        // of this rank in one step
    int rank = 0, ranks = 1;
    int zero = 0;                 // see above; 0 with one rank
    int stashes = 0;              // gradient sums kept for --deterministic-ranks: log2 of the parts that this rank adds itself
    int recompute = 0;            // 1: GELU's output is computed again in the backward instead of kept; 2: the layernorms' too
};

struct GPT {
    ModelConfig c;
    AttentionSpec attention;
    RunShape run;
    int max_B = 0;                               // run.max_B
    std::vector<Param> params;
    std::vector<Bucket> buckets;
    size_t flat_size = 0;                        // elements of the flat buffers, alignment gaps included
    std::vector<Buffer> buffers;                 // everything allocated: slices of `arena`, and the kernels' scratch memory
    void* arena = nullptr;
    size_t arena_bytes = 0;
    // flat buffers; zero 2: `grads` holds the embeddings' and ln_f's buckets and two layers' in turn, `grads_own` this rank's pieces
    floatX* weights = nullptr;
    floatM *grads = nullptr, *grads_own = nullptr, *moment1 = nullptr, *moment2 = nullptr, *master = nullptr;
    std::vector<floatM*> stash;
    std::vector<CommRequest> reducing, gathering;            // per bucket: gradients on their way, weights on their way
    // activations
    floatX *x0, *branch, *ln_f, *logits, *dx, *dbranch, *dhidden, *sinusoid, *one_ln_1, *one_ln_2, *one_gelu;
    floatM *ln_f_mean, *ln_f_rstd, *losses, *rope, *alibi, *grad_norm;
    double* norm_sums;                           // per block of the flat gradients
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
    g.params.push_back({spec, g.flat_size, size, g.buckets.size()});
    g.flat_size += size;
}

// Ends the bucket that the last parameters are in: padded so that it divides among the ranks, in pieces of whole blocks of the norm.
inline void end_bucket(GPT& g, const std::string& name) {
    size_t begin = g.buckets.empty() ? 0 : g.buckets.back().offset + g.buckets.back().size;
    g.flat_size = round_up(g.flat_size, NORM_BLOCK * size_t(g.run.ranks));
    g.buckets.push_back({name, begin, g.flat_size - begin});
}

inline void make_param_table(GPT& g) {
    const ModelConfig& c = g.c;
    Init one = Init::constant(1), zero = Init::constant(0);
    add_param(g, "", {"wte.weight", {c.Vp(), c.C}, init_weight(), true});
    if (c.pos == Position::learned) add_param(g, "", {"wpe.weight", {c.T, c.C}, init_weight(), true});
    end_bucket(g, "the embeddings");
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
        end_bucket(g, "layer " + std::to_string(l));
    }
    add_param(g, "", {"ln_f.weight", {c.C}, one, false});
    add_param(g, "", {"ln_f.bias", {c.C}, zero, false});
    end_bucket(g, "ln_f");
}

inline const Param* find_param(const GPT& g, const std::string& name) {
    for (const Param& p : g.params) if (p.spec.name == name) return &p;
    return nullptr;
}

// ---------------------------------------------------------------------------------------------- who owns what

inline bool sharded(const GPT& g) { return g.run.ranks > 1 && g.run.zero > 0; }       // optimizer state is divided among the ranks
inline size_t piece_size(const GPT& g, const Bucket& b) { return b.size / size_t(g.run.ranks); }
inline size_t state_size(const GPT& g) { return sharded(g) ? g.flat_size / size_t(g.run.ranks) : g.flat_size; }

// Elements [begin, end) of the flat buffers that rank `owner` updates, all in one bucket; their optimizer state begins at element
// `state` of that rank's state buffers.
struct Owned { int owner; size_t bucket, begin, end, state; };

// [begin, end) of the flat buffers, cut at the borders of buckets and of the ranks' pieces. Without shards: one owner, this rank.
inline std::vector<Owned> owned_ranges(const GPT& g, size_t begin, size_t end) {
    std::vector<Owned> list;
    for (size_t k = 0; k < g.buckets.size(); k++) {
        const Bucket& b = g.buckets[k];
        if (b.offset >= end || b.offset + b.size <= begin) continue;
        size_t parts = sharded(g) ? size_t(g.run.ranks) : 1, piece = b.size / parts;
        for (size_t r = (std::max(begin, b.offset) - b.offset) / piece; r < parts; r++) {
            size_t first = b.offset + r * piece, lo = std::max(begin, first), hi = std::min(end, first + piece);
            if (lo >= hi) break;
            list.push_back({sharded(g) ? int(r) : g.run.rank, k, lo, hi, b.offset / parts + lo - first});
        }
    }
    return list;
}
// What this rank updates.
inline std::vector<Owned> own_ranges(const GPT& g) {
    std::vector<Owned> mine;
    for (const Owned& o : owned_ranges(g, 0, g.flat_size)) if (o.owner == g.run.rank) mine.push_back(o);
    return mine;
}

// Where bucket k's gradients are computed, as an index into `grads`.
inline size_t gradient_base(const GPT& g, size_t k) {
    if (!sharded(g) || g.run.zero < 2) return g.buckets[k].offset;
    size_t first = g.buckets[0].size, layer = g.buckets[1].size, L = size_t(g.c.L);
    return k == 0 ? 0 : k <= L ? first + (k - 1) % 2 * layer : first + 2 * layer;      // all layers have the same size
}
inline size_t gradients_size(const GPT& g) {
    size_t last = g.buckets.size() - 1;
    return gradient_base(g, last) + g.buckets[last].size;
}
// The summed gradient of a range that this rank updates.
inline floatM* own_gradient(const GPT& g, const Owned& o) { return g.grads_own ? g.grads_own + o.state : g.grads + o.begin; }
inline floatM* gradient_of(const GPT& g, const Param& p) { return g.grads + gradient_base(g, p.bucket) + (p.offset - g.buckets[p.bucket].offset); }

// ---------------------------------------------------------------------------------------------- planning and memory

inline void gpt_resolve(ModelConfig& c) {
    if (c.HS == 0) {
        ensure_usage(c.C % c.NH == 0, "--width %d is not a multiple of --heads %d; change one, or give --head-dim", c.C, c.NH);
        c.HS = c.C / c.NH;
    }
    if (c.F == 0) c.F = 4 * c.C;
    own_defaults(c, ATTENTION_OPTIONS);
    attention_defaults(c);
    ensure_usage(c.pos != Position::rope || c.HS % 2 == 0, "--head-dim %d is odd; --pos rope turns pairs", c.HS);
}

// One list serves planning (names and bytes) and allocation (slices of the arena): every buffer is asked for here, in this order.
struct Slices { GPT& g; char* arena; size_t used = 0; };     // arena null: planning
template <class T> void want(Slices& s, T*& pointer, const std::string& name, size_t count) {
    if (s.arena) pointer = reinterpret_cast<T*>(s.arena + s.used);
    s.used += round_up(count * sizeof(T), 256);
    s.g.buffers.push_back({name, count * sizeof(T), pointer});
}

inline void want_slots(Slices& s, std::vector<void*>& slots, const std::vector<BufferSpec>& specs, const std::string& prefix, size_t rows) {
    slots.clear();
    for (const BufferSpec& b : specs) {
        void* slot = nullptr;
        floatX* x = nullptr;
        floatM* m = nullptr;
        if (b.per_token > 0 && b.master) want(s, m, prefix + b.name, rows * b.per_token), slot = m;
        else if (b.per_token > 0) want(s, x, prefix + b.name, rows * b.per_token), slot = x;
        slots.push_back(slot);
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
    const bool train = g.run.train;
    const int recompute = train ? g.run.recompute : 0;
    size_t rows = size_t(g.max_B) * c.T, C = size_t(c.C), F = size_t(c.F);
    want_flat(s);
    want(s, g.x0, "embedding output", rows * C);
    if (recompute >= 1) want(s, g.one_gelu, "mlp after gelu, of one layer", rows * F);
    if (recompute >= 2) want(s, g.one_ln_1, "ln_1, of one layer", rows * C), want(s, g.one_ln_2, "ln_2, of one layer", rows * C);
    g.layers.resize(size_t(c.L));
    for (int l = 0; l < c.L; l++) {
        GPT::Layer& a = g.layers[size_t(l)];
        std::string h = "h." + std::to_string(l) + " ";
        a.gelu = g.one_gelu, a.ln_1 = g.one_ln_1, a.ln_2 = g.one_ln_2;
        if (recompute < 2) want(s, a.ln_1, h + "ln_1", rows * C);
        want(s, a.ln_1_mean, h + "ln_1 mean", rows);
        want(s, a.ln_1_rstd, h + "ln_1 rstd", rows);
        want_slots(s, a.saved, g.attention.saved, h + "attention ", rows);
        want(s, a.h, h + "residual after attention", rows * C);
        if (recompute < 2) want(s, a.ln_2, h + "ln_2", rows * C);
        want(s, a.ln_2_mean, h + "ln_2 mean", rows);
        want(s, a.ln_2_rstd, h + "ln_2 rstd", rows);
        want(s, a.fc, h + "mlp before gelu", rows * F);
        if (recompute < 1) want(s, a.gelu, h + "mlp after gelu", rows * F);
        want(s, a.out, h + "residual after mlp", rows * C);
    }
    want(s, g.branch, "branch output", rows * C);
    want(s, g.ln_f, "ln_f", rows * C);
    want(s, g.ln_f_mean, "ln_f mean", rows);
    want(s, g.ln_f_rstd, "ln_f rstd", rows);
    want(s, g.logits, "logits", rows * size_t(c.Vp()));
    // The losses of a whole step and, behind them, the gradient's norm: one copy brings all to the host.
    size_t losses = rows * size_t(g.run.micro_batches);
    want(s, g.losses, "losses", losses + 1);
    if (s.arena) g.grad_norm = g.losses + losses;
    want(s, g.tokens, "tokens", rows);
    want(s, g.targets, "targets", rows);
    if (g.attention.rope_width > 0) want(s, g.rope, "rope table", size_t(c.T) * size_t(g.attention.rope_width));
    if (c.pos == Position::alibi) want(s, g.alibi, "alibi slopes", size_t(c.NH));
    if (c.pos == Position::sinusoidal) want(s, g.sinusoid, "sinusoidal table", size_t(c.T) * C);
    if (!train) return;
    want(s, g.dx, "residual gradient", rows * C);
    want(s, g.dbranch, "branch gradient", rows * C);
    want(s, g.dhidden, "mlp gradient", rows * F);
    want_slots(s, g.scratch, g.attention.scratch, "attention gradient ", rows);
}

// What sdpa_backward takes of the kernels' scratch memory.
inline size_t attention_scratch_bytes(const GPT& g) {
    SdpaShape shape{g.max_B, g.c.T, g.c.NH, g.c.NKV, g.attention.d_qk, g.attention.d_v, 0, 0, 0, 0};
    return sdpa_scratch_bytes(shape, g.c.pos == Position::power ? BiasKind::power : g.c.pos == Position::alibi ? BiasKind::alibi : BiasKind::none);
}

// The table and the list of buffers, nothing allocated.
inline GPT gpt_plan(ModelConfig c, const RunShape& run) {
    gpt_resolve(c);
    GPT g{};
    g.c = c;
    g.run = run;
    g.max_B = run.max_B;
    g.attention = attention_spec(c);
    std::string refusal = sdpa_refusal(g.attention.d_qk, g.attention.d_v);
    ensure_usage(refusal.empty(), "%s; choose --heads or --head-dim accordingly", refusal.c_str());
    make_param_table(g);
    Slices s{g, nullptr};
    want_all(s);
    g.arena_bytes = s.used;
    if (size_t scratch = device_fixed_bytes() + attention_scratch_bytes(g)) g.buffers.push_back({"kernels' scratch memory", scratch, nullptr});
    return g;
}
inline GPT gpt_plan(const ModelConfig& c, int max_B, bool train = true) { return gpt_plan(c, RunShape{max_B, train}); }
inline size_t planned_bytes(const GPT& g) {
    size_t n = 0;
    for (const Buffer& b : g.buffers) n += b.bytes;
    return n;
}

inline void point_layers_at_params(GPT& g) {
    auto weight = [&](const std::string& name) -> const floatX* {
        const Param* p = find_param(g, name);
        return p ? g.weights + p->offset : nullptr;
    };
    auto grad = [&](const std::string& name) -> floatM* {
        const Param* p = find_param(g, name);
        return p && g.grads ? gradient_of(g, *p) : nullptr;
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
    if (g.attention.rope_width > 0) {
        std::vector<floatM> table(size_t(c.T) * size_t(g.attention.rope_width));
        rope_table(table.data(), c.T, g.attention.rope_width, c.rope_theta);
        copy_to_device(g.rope, table.data(), table.size() * sizeof(floatM));
    }
    if (c.pos == Position::alibi) {
        std::vector<double> slopes = alibi_slopes(c.NH);
        std::vector<floatM> m(slopes.begin(), slopes.end());
        copy_to_device(g.alibi, m.data(), m.size() * sizeof(floatM));
    }
    if (c.pos == Position::sinusoidal) {
        std::vector<floatX> table(size_t(c.T) * size_t(c.C));
        sinusoidal_table(table.data(), c.T, c.C);
        copy_to_device(g.sinusoid, table.data(), table.size() * sizeof(floatX));
    }
    g.host_losses.resize(size_t(g.max_B) * c.T * size_t(run.micro_batches) + 1);
    return g;
}
inline GPT gpt_allocate(const ModelConfig& c, int max_B, bool train = true) { return gpt_allocate(c, RunShape{max_B, train}); }

inline void gpt_free(GPT& g) {
    for (CommRequest& r : g.gathering) comm_wait(r);         // weights that still travel would arrive in freed memory
    device_free(g.arena);
    g = GPT{};
}

// One tensor's weights, from and to the host; set_weights also fills this rank's part of the master copy.
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
inline void set_weights(GPT& g, const Param& p, const std::vector<floatM>& host) {
    std::vector<floatX> narrow(p.size);
    for (size_t i = 0; i < p.size; i++) narrow[i] = floatX(host[i]);
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
inline size_t cache_bytes_per_token(const GPT& g) { return g.attention.cache_elements * sizeof(floatX) * size_t(g.c.L); }
// Forward and backward: 6 per multiply-add of the projections and the head, plus attention's two products over T keys
// ("full": 12 L C T of PaLM's appendix B; the causal half counts what is really needed).
inline double flops_per_token(const GPT& g, bool causal_half = false) {
    const ModelConfig& c = g.c;
    double projections = double(c.L) * (double(g.attention.macs_per_token) + 2.0 * c.C * c.F) + double(c.V) * c.C;
    double scores = double(c.L) * c.NH * (g.attention.d_qk + g.attention.d_v) * c.T;
    return 6 * (projections + scores * (causal_half ? 0.5 : 1.0));
}
