// What the ranks of a run share: who owns what, gradients on their way to their owners, weights on their way back. With one rank every
// function here does nothing. The passes (model/gpt.h) call it at the borders of buckets and know no more of it.
//
// Every bucket is divided evenly among the ranks, regardless of where tensors begin, and a rank updates its piece of each
// [ZeRO: Rajbhandari et al. 2020]. Per rank of N, in elements, with P the flat size:
//   zero 0   gradients P, moments and master P       gradients summed everywhere, every rank updates everything
//   zero 1   gradients P, moments and master P / N   gradients reduce-scattered once a step, weights gathered
//   zero 2   gradients P / N + the embeddings' + two layers', moments and master P / N   reduce-scattered every micro-batch
#pragma once
#include "layers/adamw.h"
#include "model/model.h"

// The buckets, in the order of the table; the backward completes them from the last to the first.
inline constexpr size_t EMBEDDINGS = 0;
inline size_t layer_bucket(int l) { return size_t(l) + 1; }
inline size_t last_norm_bucket(const GPT& g) { return size_t(g.c.L) + 1; }

// ---------------------------------------------------------------------------------------------- who owns what

inline bool sharded(const GPT& g) { return g.run.ranks > 1 && g.run.zero > 0; }       // optimizer state is divided among the ranks
inline size_t piece_size(const GPT& g, const Bucket& b) { return b.size / size_t(g.run.ranks); }
inline size_t state_size(const GPT& g) { return sharded(g) ? g.flat_size / size_t(g.run.ranks) : g.flat_size; }

// Elements [begin, end) of the flat buffers that rank `owner` updates, all in one bucket; their optimizer state begins at element
// `state` of that rank's state buffers.
struct Owned { int owner; size_t bucket, begin, end, state; };

// [begin, end) of the flat buffers, cut where a bucket or a rank's piece ends. Without shards: one owner, this rank.
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
inline floatM* gradient_of(const GPT& g, const Param& p) {
    return g.grads + gradient_base(g, p.bucket) + (p.offset - g.buckets[p.bucket].offset);
}

// ---------------------------------------------------------------------------------------------- weights, for the forward

// Waits until the weights of bucket k that other ranks updated have arrived.
inline void wait_for_weights(GPT& g, size_t k) { comm_wait(g.gathering[k]); }
inline void gpt_wait_for_weights(GPT& g) {
    for (CommRequest& r : g.gathering) comm_wait(r);
}
// After an update: every rank sends what it owns to all others. The next forward waits for each bucket when it needs it.
inline void start_gathering_weights(GPT& g) {
    if (!sharded(g)) return;
    for (size_t k = 0; k < g.buckets.size(); k++)
        g.gathering[k] = comm_all_gather(g.weights + g.buckets[k].offset, piece_size(g, g.buckets[k]),
                                         number_of<floatX>(), g.buckets[k].name.c_str());
}

// ---------------------------------------------------------------------------------------------- gradients, for the backward

// What a backward does besides computing: whether gradients are = or += (accumulate); whether it starts reduce-scattering
// a bucket's gradients to their owners when they are complete (reduce); zero 2: whether they begin a step's sum (first).
struct Reduction { bool accumulate, reduce, first; };

// Bucket k's gradients are complete on this rank: start reduce-scattering them to their owners.
inline void start_reducing(GPT& g, size_t k) {
    if (g.run.ranks == 1) return;
    const Bucket& b = g.buckets[k];
    g.reducing[k] = comm_reduce_scatter(g.grads + gradient_base(g, k), piece_size(g, b), number_of<floatM>(), b.name.c_str());
}

// Waits for bucket k's sums. zero 2: adds this rank's piece to the step's gradient; then the bucket's memory is free again.
inline void finish_reducing(GPT& g, size_t k, bool accumulate) {
    if (g.reducing[k] < 0) return;                           // not under way
    comm_wait(g.reducing[k]);
    size_t piece = piece_size(g, g.buckets[k]), mine = size_t(g.run.rank) * piece;
    if (g.grads_own)
        add_gradient(g.grads_own + g.buckets[k].offset / size_t(g.run.ranks), g.grads + gradient_base(g, k) + mine,
                     piece, accumulate);
}

// The backward is about to write bucket k's gradients. zero 2: layer l + 2 used the same memory.
inline void begin_gradients(GPT& g, size_t k, const Reduction& r) {
    if (g.grads_own && r.reduce && k >= layer_bucket(0) && k + 2 < last_norm_bucket(g)) finish_reducing(g, k + 2, !r.first);
}
// The backward has written all of bucket k's gradients.
inline void end_gradients(GPT& g, size_t k, const Reduction& r) {
    if (r.reduce) start_reducing(g, k);
}
// The backward is done. zero 2: every bucket's memory is free again.
inline void end_backward(GPT& g, const Reduction& r) {
    if (!g.grads_own) return;
    for (size_t k = g.buckets.size(); k-- > 0;) finish_reducing(g, k, !r.first);
}

// --deterministic-ranks: a step's micro-batches form 2^j parts. Each rank adds up its own parts in the order of a balanced
// binary tree: as in a binary counter, a sum of 2^d parts waits in stash[d] until its neighbour is complete. The ranks'
// sums are then added as the upper part of the same tree (comm.h), so the number of ranks does not change a bit.
inline void add_part(GPT& g, int part) {
    size_t d = 0;
    for (; part >> d & 1; d++) add_gradient(g.grads, g.stash[d], g.flat_size, true);
    if (d < g.stash.size()) add_gradient(g.stash[d], g.grads, g.flat_size, false);
}

// After the step's last micro-batch: the gradients' sums over all ranks, and their global norm.
inline void gpt_gradient_norm(GPT& g) {
    if (g.run.ranks > 1 && !g.stash.empty())
        for (size_t k = g.buckets.size(); k-- > 0;) start_reducing(g, k);
    if (!g.grads_own)
        for (size_t k = g.buckets.size(); k-- > 0;) finish_reducing(g, k, false);
    if (g.run.ranks > 1 && g.run.zero == 0) {
        for (size_t k = g.buckets.size(); k-- > 0;)
            g.reducing[k] = comm_all_gather(g.grads + g.buckets[k].offset, piece_size(g, g.buckets[k]),
                                            number_of<floatM>(), g.buckets[k].name.c_str());
        for (CommRequest& r : g.reducing) comm_wait(r);
    }
    const size_t blocks = g.flat_size / NORM_BLOCK;
    if (sharded(g)) device_zero(g.norm_sums, blocks * sizeof(double));
    for (const Owned& o : own_ranges(g)) sum_squares(g.norm_sums + o.begin / NORM_BLOCK, own_gradient(g, o), o.end - o.begin);
    if (sharded(g)) {                                        // the other ranks' blocks are 0 here
        CommRequest r = comm_all_reduce(g.norm_sums, blocks, Number::f64, "the gradient's norm");
        comm_wait(r);
    }
    norm_of_sums(g.grad_norm, g.norm_sums, blocks);
}
