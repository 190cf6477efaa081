// What a GPT holds: its parameter table, its flat buffers, its activations. One source for all backends and all parts.
// Allocation, initial values and counts: model/memory.h. What ranks share: model/shards.h. Computing: model/gpt.h.
//
// Flat buffers: all weights lie in one array, and so do the gradients, moments and master weights, at the same offsets.
// The array is divided into buckets: the embeddings, each layer, the last norm.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "layers/adamw.h"
#include "model/block.h"
#include "runtime/comm/comm.h"
#include "runtime/device/backend.h"

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
    int zero = 0;                 // shards.h; 0 with one rank
    int stashes = 0;              // gradient sums kept for --deterministic-ranks: log2 of the parts that this rank adds itself
    int recompute = 0;            // computed again in the backward: 1, the output of the MLP's nonlinearity; 2, the norms' too
};

struct GPT {
    ModelConfig c;
    AttentionSpec attention;
    std::vector<NamedPart> parts;                // of every block, by BlockPart
    PartSpec norm;                               // of the last norm
    RunShape run;
    int max_B = 0;                               // run.max_B
    std::vector<Param> params;
    std::vector<Bucket> buckets;
    size_t flat_size = 0;                        // elements of the flat buffers, alignment gaps included
    std::vector<Buffer> buffers;                 // everything allocated: slices of `arena`, and the kernels' scratch memory
    void* arena = nullptr;
    size_t arena_bytes = 0;
    // flat buffers; zero 2: `grads` holds the buckets of the embeddings and ln_f, and of two layers at a time; `grads_own`
    // holds this rank's pieces
    floatX* weights = nullptr;
    floatM *grads = nullptr, *grads_own = nullptr, *moment1 = nullptr, *moment2 = nullptr, *master = nullptr;
    std::vector<floatM*> stash;
    std::vector<CommRequest> reducing, gathering;            // per bucket: gradients on their way, weights on their way
    // activations
    floatX *x0, *branch, *ln_f, *logits, *dx, *dbranch, *sinusoid;
    floatM *losses, *rope, *alibi, *grad_norm;
    double* norm_sums;                           // per block of the flat gradients
    int *tokens, *targets;
    struct Tensors {                             // of one part, by its tables
        std::vector<const floatX*> w;
        std::vector<floatM*> dw;
        std::vector<void*> saved;
    };
    struct Layer {
        Tensors part[BLOCK_PARTS];
        std::vector<void*> saved;                // the block's own, by BlockSaved
    };
    std::vector<Layer> layers;
    Tensors last_norm;
    std::vector<void*> scratch[BLOCK_PARTS];     // the parts' gradients, shared by the layers
    // what --recompute keeps for one layer only, by the parts' and the block's tables of what is saved
    std::vector<void*> shared[BLOCK_PARTS + 1];
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

// Ends the bucket of the last parameters. It is padded so that it divides evenly among the ranks, in pieces that are
// whole blocks of the norm.
inline void end_bucket(GPT& g, const std::string& name) {
    size_t begin = g.buckets.empty() ? 0 : g.buckets.back().offset + g.buckets.back().size;
    g.flat_size = round_up(g.flat_size, NORM_BLOCK * size_t(g.run.ranks));
    g.buckets.push_back({name, begin, g.flat_size - begin});
}

inline void make_param_table(GPT& g) {
    const ModelConfig& c = g.c;
    add_param(g, "", {"wte.weight", {c.Vp(), c.C}, init_weight(), true});
    if (c.pos == Position::learned) add_param(g, "", {"wpe.weight", {c.T, c.C}, init_weight(), true});
    end_bucket(g, "the embeddings");
    for (int l = 0; l < c.L; l++) {
        for (const NamedPart& part : g.parts)
            for (const ParamSpec& p : part.spec.params) add_param(g, "h." + std::to_string(l) + "." + part.prefix, p);
        end_bucket(g, "layer " + std::to_string(l));
    }
    for (const ParamSpec& p : g.norm.params) add_param(g, "ln_f.", p);
    end_bucket(g, "ln_f");
}

inline const Param* find_param(const GPT& g, const std::string& name) {
    for (const Param& p : g.params) if (p.spec.name == name) return &p;
    return nullptr;
}
