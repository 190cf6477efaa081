// GPT: forward, backward, update. One source for every backend and every attention variant. What it holds: model/memory.h.
// Pre-layernorm blocks as in GPT-2 [Radford et al. 2019], token embedding tied to the head:
//   x_0 = wte[token] (+ position)
//   h = x_l + attention(ln_1(x_l))        x_{l+1} = h + W_proj gelu(W_fc ln_2(h) + b_fc) + b_proj         l = 0 .. L-1
//   logits = ln_f(x_L) wte^T              loss = mean cross-entropy, nats
// The host only queues work: nothing waits for the device before gpt_results at the end of a step.
#pragma once
#include "layers/crossentropy.h"
#include "layers/embedding.h"
#include "layers/layernorm.h"
#include "model/memory.h"

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

// Weights of bucket k that other ranks updated are here from now on.
inline void wait_for_weights(GPT& g, size_t k) { comm_wait(g.gathering[k]); }
inline void gpt_wait_for_weights(GPT& g) {
    for (CommRequest& r : g.gathering) comm_wait(r);
}

// tokens (B, T) on the host -> ln_f (B, T, C) on the device. T may be shorter than the context.
inline void gpt_forward(GPT& g, const int* tokens, int B, int T) {
    const ModelConfig& c = g.c;
    ensure(B <= g.max_B && T <= c.T, "forward of %d x %d tokens in a model made for %d x %d", B, T, g.max_B, c.T);
    size_t rows = size_t(B) * T;
    copy_to_device(g.tokens, tokens, rows * sizeof(int));
    wait_for_weights(g, 0);
    embedding_forward(g.x0, g.tokens, g.weights, position_table(g), B, T, c.C);                              // wte is tensor 0
    const floatX* x = g.x0;
    wait_for_weights(g, 1);
    layernorm_forward(g.layers[0].ln_1, g.layers[0].ln_1_mean, g.layers[0].ln_1_rstd, x, g.layers[0].ln_1_w, g.layers[0].ln_1_b, rows, c.C);
    for (int l = 0; l < c.L; l++) {
        GPT::Layer& a = g.layers[size_t(l)];
        attention_forward(g.branch, a.ln_1, attention_layer(g, l, B, T, false));
        residual_layernorm_forward(a.h, a.ln_2, a.ln_2_mean, a.ln_2_rstd, x, g.branch, a.ln_2_w, a.ln_2_b, rows, c.C);
        linear_forward(a.fc, a.ln_2, a.fc_w, a.fc_b, linear_shape(rows, c.C, c.F), false, a.gelu);
        linear_forward(g.branch, a.gelu, a.proj_w, a.proj_b, linear_shape(rows, c.F, c.C));
        wait_for_weights(g, size_t(l) + 2);
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

// Sum of the losses of B sequences (targets -1 do not count); no gradients. Waits for it.
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

// ---------------------------------------------------------------------------------------------- gradients of all ranks

// Bucket k's gradients are complete on this rank: they set off to their owners.
inline void start_reducing(GPT& g, size_t k) {
    if (g.run.ranks == 1) return;
    const Bucket& b = g.buckets[k];
    g.reducing[k] = comm_reduce_scatter(g.grads + gradient_base(g, k), piece_size(g, b), number_of<floatM>(), b.name.c_str());
}

// Waits for bucket k's sums. zero 2: adds this rank's piece to its part of the step's gradient, and the bucket's memory is free again.
inline void finish_reducing(GPT& g, size_t k, bool accumulate) {
    if (g.reducing[k] < 0) return;                           // not under way
    comm_wait(g.reducing[k]);
    size_t piece = piece_size(g, g.buckets[k]), mine = size_t(g.run.rank) * piece;
    if (g.grads_own) add_gradient(g.grads_own + g.buckets[k].offset / size_t(g.run.ranks), g.grads + gradient_base(g, k) + mine, piece, accumulate);
}

// --deterministic-ranks: a step's micro-batches form 2^j parts, of which this rank adds up parts 0, 1, ... of its own, in the order of a
// balanced binary tree: like a binary counter, a sum waits in stash[d] until its neighbour of 2^d parts is complete. The ranks' sums are
// then added as the upper part of the same tree (comm.h), so the number of ranks decides no bit.
inline void add_part(GPT& g, int part) {
    size_t d = 0;
    for (; part >> d & 1; d++) add_gradient(g.grads, g.stash[d], g.flat_size, true);
    if (d < g.stash.size()) add_gradient(g.stash[d], g.grads, g.flat_size, false);
}

// ---------------------------------------------------------------------------------------------- backward and update

// What one forward and backward does besides computing: where its losses go (rows floatM); gradients = or += (accumulate); whether they
// set off to their owners as the backward leaves each bucket (reduce); zero 2: whether they begin a step's sum (first).
struct Pass { floatM* losses; bool accumulate, reduce, first; };

// tokens, targets (B, T) on the host -> losses and gradients. scale: what the mean over the optimizer's whole batch divides by, 1 / its tokens.
inline void gpt_pass(GPT& g, const int* tokens, const int* targets, int B, int T, double scale, const Pass& pass) {
    const ModelConfig& c = g.c;
    const auto [losses, accumulate, reduce, first] = pass;
    const bool zero2 = g.grads_own != nullptr;
    const size_t rows = size_t(B) * T, last_bucket = g.buckets.size() - 1;
    gpt_forward(g, tokens, B, T);
    copy_to_device(g.targets, targets, rows * sizeof(int));
    floatM* dwte = gradient_of(g, g.params[0]);
    // 1. head and loss: logits become dlogits in place
    linear_forward(g.logits, g.ln_f, g.weights, nullptr, head_shape(g, rows));
    crossentropy_forward_backward(losses, g.logits, g.targets, rows, c.V, c.Vp(), floatM(scale));
    linear_backward_weight(dwte, nullptr, g.logits, g.ln_f, head_shape(g, rows), accumulate);
    linear_backward_input(g.dbranch, g.logits, g.weights, head_shape(g, rows));
    // 2. final layernorm starts the residual stream's gradient
    const Param &ln_w = *find_param(g, "ln_f.weight"), &ln_b = *find_param(g, "ln_f.bias");
    layernorm_backward(g.dx, gradient_of(g, ln_w), gradient_of(g, ln_b), g.dbranch, g.layers.back().out, g.weights + ln_w.offset, g.ln_f_mean,
                       g.ln_f_rstd, rows, c.C, false, accumulate);
    if (reduce) start_reducing(g, last_bucket);
    // 3. blocks, last to first: dx passes through both residual branches
    for (int l = c.L - 1; l >= 0; l--) {
        GPT::Layer& a = g.layers[size_t(l)];
        const floatX* x = l > 0 ? g.layers[size_t(l) - 1].out : g.x0;
        if (zero2 && reduce && l + 2 < c.L) finish_reducing(g, size_t(l) + 3, !first);                                 // it used the same memory
        if (g.run.recompute >= 1) gelu_forward(a.gelu, a.fc, rows * size_t(c.F));
        linear_backward_weight(a.d_proj_w, a.d_proj_b, g.dx, a.gelu, linear_shape(rows, c.F, c.C), accumulate);
        linear_backward_input(g.dhidden, g.dx, a.proj_w, linear_shape(rows, c.F, c.C), false, a.fc);
        if (g.run.recompute >= 2) layernorm_forward(a.ln_2, a.ln_2_mean, a.ln_2_rstd, a.h, a.ln_2_w, a.ln_2_b, rows, c.C);
        linear_backward_weight(a.d_fc_w, a.d_fc_b, g.dhidden, a.ln_2, linear_shape(rows, c.C, c.F), accumulate);
        linear_backward_input(g.dbranch, g.dhidden, a.fc_w, linear_shape(rows, c.C, c.F));
        layernorm_backward(g.dx, a.d_ln_2_w, a.d_ln_2_b, g.dbranch, a.h, a.ln_2_w, a.ln_2_mean, a.ln_2_rstd, rows, c.C, true, accumulate);
        comm_poll();
        if (g.run.recompute >= 2) layernorm_forward(a.ln_1, a.ln_1_mean, a.ln_1_rstd, x, a.ln_1_w, a.ln_1_b, rows, c.C);
        attention_backward(g.dbranch, g.dx, a.ln_1, attention_layer(g, l, B, T, accumulate));
        layernorm_backward(g.dx, a.d_ln_1_w, a.d_ln_1_b, g.dbranch, x, a.ln_1_w, a.ln_1_mean, a.ln_1_rstd, rows, c.C, true, accumulate);
        if (reduce) start_reducing(g, size_t(l) + 1);
    }
    // 4. embeddings: wte's gradient already holds the head's part
    const Param* wpe = find_param(g, "wpe.weight");
    embedding_backward(dwte, wpe ? gradient_of(g, *wpe) : nullptr, g.dx, g.tokens, B, T, c.C, accumulate);
    if (reduce) start_reducing(g, 0);
    if (zero2)
        for (size_t k = last_bucket + 1; k-- > 0;) finish_reducing(g, k, !first);
}

// This rank's micro-batch `index` of g.run.micro_batches of a step. The gradients' sum is sent to its owners with the last one (zero 2:
// with every one). The losses stay on the device, for gpt_results.
inline void gpt_micro_batch(GPT& g, const int* tokens, const int* targets, int B, int T, double scale, int index) {
    const bool zero2 = g.grads_own != nullptr, last = index + 1 == g.run.micro_batches;
    const int per_part = g.run.micro_batches >> g.stash.size();
    gpt_pass(g, tokens, targets, B, T, scale, {g.losses + size_t(index) * B * T, !zero2 && index % per_part > 0, zero2 || (last && g.stash.empty()), index == 0});
    if (!g.stash.empty() && (index + 1) % per_part == 0) add_part(g, index / per_part);
}

// A pass alone, for one process: gradients = (+= when accumulate). Waits, and returns the sum of the losses.
inline double gpt_forward_backward(GPT& g, const int* tokens, const int* targets, int B, int T, double scale, bool accumulate) {
    gpt_pass(g, tokens, targets, B, T, scale, {g.losses, accumulate, false, false});
    return sum_of_losses(g, size_t(B) * T);
}

// After the step's last micro-batch: the sums over all ranks, and their global norm.
inline void gpt_gradient_norm(GPT& g) {
    if (g.run.ranks > 1 && !g.stash.empty())
        for (size_t k = g.buckets.size(); k-- > 0;) start_reducing(g, k);
    if (!g.grads_own)
        for (size_t k = g.buckets.size(); k-- > 0;) finish_reducing(g, k, false);
    if (g.run.ranks > 1 && g.run.zero == 0) {
        for (size_t k = g.buckets.size(); k-- > 0;)
            g.reducing[k] = comm_all_gather(g.grads + g.buckets[k].offset, piece_size(g, g.buckets[k]), number_of<floatM>(), g.buckets[k].name.c_str());
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

// Clipping and AdamW, by the norm that gpt_gradient_norm found; not finite: nothing is updated. hyper.step counts from 1.
// Every rank updates what it owns; then the weights travel, and the next forward waits for each bucket when it comes to it.
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
    if (!sharded(g)) return;
    for (size_t k = 0; k < g.buckets.size(); k++)
        g.gathering[k] = comm_all_gather(g.weights + g.buckets[k].offset, piece_size(g, g.buckets[k]), number_of<floatX>(), g.buckets[k].name.c_str());
}

// Waits for the step's queued work and brings its numbers to the host: the sum of the losses of each of this rank's micro-batches of
// `rows` tokens, and the gradient's norm before clipping (as gpt_gradient_norm left it).
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

// The three of a step's end in one, for one process: norm, update, the norm's value.
inline double gpt_update(GPT& g, const AdamW& hyper) {
    gpt_gradient_norm(g);
    gpt_adamw(g, hyper);
    floatM norm;
    copy_to_host(&norm, g.grad_norm, sizeof norm);
    return double(norm);
}
