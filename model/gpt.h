// GPT: forward, the backward right below it, update. One source for all backends and all choices of attention, norm, MLP.
//   x_0 = wte[token] (+ position)        x_{l+1} = block_l(x_l), l = 0 .. L-1 (model/block.h)
//   logits = norm(x_L) wte^T             loss = mean cross-entropy, nats             (the head shares the token embedding's matrix)
// What it holds: model/model.h. What several processes do at the borders of buckets: model/shards.h.
// The host only queues work: nothing waits for the device before gpt_results at the end of a step.
#pragma once
#include "layers/crossentropy.h"
#include "layers/embedding.h"
#include "model/memory.h"
#include "model/shards.h"

// ---------------------------------------------------------------------------------------------- pointers, for the functions below

inline Part part_of(GPT& g, int l, BlockPart k, int B, int T, bool accumulate) {
    GPT::Tensors& t = g.layers[size_t(l)].part[k];
    return {g.c, B, T, t.w.data(), t.dw.data(), t.saved.data(), g.scratch[k].data(), accumulate, g.run.recompute};
}
inline Part last_norm(GPT& g, int B, int T, bool accumulate) {
    GPT::Tensors& t = g.last_norm;
    return {g.c, B, T, t.w.data(), t.dw.data(), t.saved.data(), nullptr, accumulate, g.run.recompute};
}

inline AttentionLayer attention_layer(GPT& g, int l, int B, int T, bool accumulate) {
    GPT::Tensors& t = g.layers[size_t(l)].part[ATTENTION];
    const size_t p = g.attention.params.size(), a = p + 1;                   // power's own come after the variant's
    PositionBias bias;
    if (g.c.pos == Position::alibi) bias = {BiasKind::alibi, g.alibi, nullptr, nullptr};
    if (g.c.pos == Position::power) bias = {BiasKind::power, nullptr, t.w[p], t.w[a]};
    const bool power = g.c.pos == Position::power;
    return {part_of(g, l, ATTENTION, B, T, accumulate), g.attention.rope_width > 0 ? g.rope : nullptr, bias, power ? t.dw[p] : nullptr,
            power ? t.dw[a] : nullptr};
}

inline Block block_of(GPT& g, int l, int B, int T, bool accumulate) {
    return {part_of(g, l, NORM_1, B, T, accumulate), attention_layer(g, l, B, T, accumulate), part_of(g, l, NORM_2, B, T, accumulate),
            part_of(g, l, FEED_FORWARD, B, T, accumulate), g.layers[size_t(l)].saved.data(), g.branch, g.dbranch, g.run.recompute};
}

inline const floatX* position_table(const GPT& g) {
    const Param* wpe = find_param(g, "wpe.weight");
    return wpe ? g.weights + wpe->offset : g.c.pos == Position::sinusoidal ? g.sinusoid : nullptr;
}

inline LinearShape head_shape(const GPT& g, size_t rows) { return linear_shape(rows, g.c.C, g.c.Vp()); }

// ---------------------------------------------------------------------------------------------- forward

// tokens (B, T) on the host -> ln_f (B, T, C) on the device. T may be shorter than the context.
inline void gpt_forward(GPT& g, const int* tokens, int B, int T) {
    const ModelConfig& c = g.c;
    ensure(B <= g.max_B && T <= c.T, "forward of %d x %d tokens in a model made for %d x %d", B, T, g.max_B, c.T);
    copy_to_device(g.tokens, tokens, size_t(B) * T * sizeof(int));
    wait_for_weights(g, EMBEDDINGS);
    embedding_forward(g.x0, g.tokens, g.weights, position_table(g), B, T, c.C);                              // wte is tensor 0
    wait_for_weights(g, layer_bucket(0));
    const floatX* x = g.x0;
    const Block first = block_of(g, 0, B, T, false);
    norm_forward(first.save(NORMED_1), x, first.norm_1);
    for (int l = 0; l < c.L; l++) {
        const Block b = block_of(g, l, B, T, false);
        block_forward(b, x);
        wait_for_weights(g, layer_bucket(l + 1));            // after the last layer: the last norm's
        // x_{l+1} = h + branch, and in the same pass the norm that reads it: the next block's first, or the last
        if (l + 1 < c.L) {
            const Block next = block_of(g, l + 1, B, T, false);
            norm_residual_forward(b.save(OUT), next.save(NORMED_1), b.save(H), g.branch, next.norm_1);
        } else {
            norm_residual_forward(b.save(OUT), g.ln_f, b.save(H), g.branch, last_norm(g, B, T, false));
        }
        x = b.save(OUT);
    }
}

// The logits' gradient -> all gradients. g.logits holds dloss / dlogits (crossentropy_forward_backward), everything else
// what gpt_forward left. tokens: in host memory, as gpt_forward had them.
inline void gpt_backward(GPT& g, const int* tokens, int B, int T, const Reduction& r) {
    const ModelConfig& c = g.c;
    const size_t rows = size_t(B) * T;
    floatM* dwte = gradient_of(g, g.params[0]);
    // 1. head: logits = ln_f wte^T
    linear_backward_weight(dwte, nullptr, g.logits, g.ln_f, head_shape(g, rows), r.accumulate);
    linear_backward_input(g.dbranch, g.logits, g.weights, head_shape(g, rows));
    // 2. the last norm starts the residual stream's gradient
    const floatX* x_L = static_cast<floatX*>(g.layers.back().saved[OUT]);
    norm_backward(g.dx, g.dbranch, x_L, last_norm(g, B, T, r.accumulate), Write::set);
    end_gradients(g, last_norm_bucket(g), r);
    // 3. blocks, last to first: dx passes through both residual branches of each
    for (int l = c.L - 1; l >= 0; l--) {
        const floatX* x = l > 0 ? static_cast<floatX*>(g.layers[size_t(l) - 1].saved[OUT]) : g.x0;
        begin_gradients(g, layer_bucket(l), r);
        block_backward(block_of(g, l, B, T, r.accumulate), g.dx, x, comm_poll);
        end_gradients(g, layer_bucket(l), r);
    }
    // 4. embeddings: wte's gradient already holds the head's part
    const Param* wpe = find_param(g, "wpe.weight");
    embedding_backward(dwte, wpe ? gradient_of(g, *wpe) : nullptr, g.dx, tokens, B, T, c.C, r.accumulate);
    end_gradients(g, EMBEDDINGS, r);
    end_backward(g, r);
}

// ---------------------------------------------------------------------------------------------- loss

inline double sum_of_losses(GPT& g, size_t rows) {
    copy_to_host(g.host_losses.data(), g.losses, rows * sizeof(floatM));
    double sum = 0;
    for (size_t i = 0; i < rows; i++) sum += double(g.host_losses[i]);
    return sum;
}

// The sum of the losses of B sequences (targets of -1 do not count), without gradients. Waits for the result.
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

// tokens, targets (B, T) on the host -> losses (rows floatM, on the device) and gradients. scale: 1 / the tokens of the
// optimizer's whole batch, which makes the gradient that of the mean.
inline void gpt_pass(GPT& g, const int* tokens, const int* targets, int B, int T, double scale, floatM* losses, const Reduction& r) {
    const size_t rows = size_t(B) * T;
    gpt_forward(g, tokens, B, T);
    copy_to_device(g.targets, targets, rows * sizeof(int));
    linear_forward(g.logits, g.ln_f, g.weights, nullptr, head_shape(g, rows));
    // the logits become their own gradient, in place
    crossentropy_forward_backward(losses, g.logits, g.targets, rows, g.c.V, g.c.Vp(), floatM(scale));
    gpt_backward(g, tokens, B, T, r);
}

// One pass, for a single process: gradients = (+= when accumulate). Waits, and returns the sum of the losses.
inline double gpt_forward_backward(GPT& g, const int* tokens, const int* targets, int B, int T, double scale, bool accumulate) {
    gpt_pass(g, tokens, targets, B, T, scale, g.losses, {accumulate, false, false});
    return sum_of_losses(g, size_t(B) * T);
}

// ---------------------------------------------------------------------------------------------- a step

// This rank's micro-batch number `index`, of g.run.micro_batches in a step. The last one starts sending the summed
// gradients to their owners (zero 2: every one does). The losses stay on the device, for gpt_results.
inline void gpt_micro_batch(GPT& g, const int* tokens, const int* targets, int B, int T, double scale, int index) {
    const bool zero2 = g.grads_own != nullptr, last = index + 1 == g.run.micro_batches;
    const int per_part = g.run.micro_batches >> g.stash.size();
    const Reduction r = {!zero2 && index % per_part > 0, zero2 || (last && g.stash.empty()), index == 0};
    gpt_pass(g, tokens, targets, B, T, scale, g.losses + size_t(index) * B * T, r);
    if (!g.stash.empty() && (index + 1) % per_part == 0) add_part(g, index / per_part);
}

// Clipping and AdamW, with the norm that gpt_gradient_norm (shards.h) found; if it is not finite, nothing is updated.
// hyper.step counts from 1. Every rank updates what it owns; then the weights are gathered.
inline void gpt_adamw(GPT& g, const AdamW& hyper) {
    for (const Param& p : g.params) {
        AdamW a = hyper;
        if (!p.spec.decay) a.weight_decay = 0;
        a.min_value = p.spec.min_value;
        a.rounding.stream = rng_stream(p.spec.name) + uint64_t(hyper.step);
        for (const Owned& o : owned_ranges(g, p.offset, p.offset + p.size)) {
            a.rounding.first = o.begin - p.offset;
            if (o.owner == g.run.rank)
                adamw_update(g.weights + o.begin, g.master ? g.master + o.state : nullptr, g.moment1 + o.state, g.moment2 + o.state,
                             own_gradient(g, o), o.end - o.begin, g.grad_norm, a);
        }
    }
    start_gathering_weights(g);
}

// Waits for the step's queued work and brings its numbers to the host: for each of this rank's micro-batches (`rows`
// tokens) the sum of its losses, and the gradient's norm before clipping (as gpt_gradient_norm left it).
struct StepResults { std::vector<double> losses; double norm; };
inline StepResults gpt_results(GPT& g, size_t rows) {
    StepResults r;
    copy_to_host(g.host_losses.data(), g.losses, g.host_losses.size() * sizeof(floatM));
    for (int i = 0; i < g.run.micro_batches; i++) {
        double sum = 0;
        for (size_t k = 0; k < rows; k++) sum += double(g.host_losses[size_t(i) * rows + k]);
        r.losses.push_back(sum);
    }
    r.norm = double(g.host_losses.back());
    return r;
}

// The end of a step in one call, for a single process: norm, update; returns the norm.
inline double gpt_update(GPT& g, const AdamW& hyper) {
    gpt_gradient_norm(g);
    gpt_adamw(g, hyper);
    floatM norm;
    copy_to_host(&norm, g.grad_norm, sizeof norm);
    return double(norm);
}
