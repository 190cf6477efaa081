// Decoding: a GPT that keeps what its variant needs of the past tokens (the cache table) instead of computing it again.
//   prompt       fed in passes of up to `chunk` rows                 then token by token, one row a sequence and pass
//   sequences    several at once, of different lengths; every row of a pass knows its sequence and its position
// Every row has the same numbers as in the trainer's forward pass, up to rounding, and the same bits for every batch,
// chunk (up to FEW_ROWS, layers/linear_rows.h) and number of threads. Memory is planned as in the trainer: names and
// bytes first, then one block.
#pragma once
#include "model/gpt.h"

struct DecoderShape {
    int sequences = 1;
    int capacity = 0;                            // positions a sequence's cache holds; 0: the context that the model was trained with
    int chunk = 0;                               // rows of a pass; 0: default_chunk
    bool keep_weights = false;                   // of the softmax, of every layer's last pass, for attention maps
};
// As many rows as can share one read of the weights while a row's bits depend on that row only; on a GPU enough rows
// for tensor cores.
inline constexpr int default_chunk = FEW_ROWS >= 64 ? int(FEW_ROWS) : 512;

struct Decoder {
    GPT g;                                       // parameter table, weights, position tables, buffers: no activations of training
    DecoderShape shape;
    bool owns_weights = true;
    std::vector<int> length;                     // tokens in the cache, per sequence; lowering it forgets the tokens after it
    std::vector<std::vector<floatX*>> cache;     // per layer, by the variant's cache table
    std::vector<void*> scratch;                  // by its decode table
    std::vector<floatM*> attention_weights;      // per layer (rows, NH, capacity), where they are kept
    std::vector<void*> norm, mlp;                // what their tables save, one set for all layers
    floatX *x = nullptr, *h = nullptr, *normed = nullptr, *branch = nullptr, *logits = nullptr;
    floatM *partial = nullptr, *losses = nullptr;
    int *tokens = nullptr, *targets = nullptr, *sequence = nullptr, *position = nullptr;
};
struct NewToken { int sequence, token; };

// ---------------------------------------------------------------------------------------------- planning and memory

inline void want_decoder(Slices& s, Decoder& d) {
    GPT& g = s.g;
    const ModelConfig& c = g.c;
    const size_t rows = size_t(d.shape.chunk), C = size_t(c.C), capacity = size_t(d.shape.capacity), sequences = size_t(d.shape.sequences);
    if (d.owns_weights) want(s, g.weights, "weights", g.flat_size);
    g.layers.resize(size_t(c.L));
    d.cache.assign(size_t(c.L), {});
    for (int l = 0; l < c.L; l++)
        for (const CacheSpec& spec : g.attention.cache) {
            floatX* slot = nullptr;
            want(s, slot, "h." + std::to_string(l) + " cache " + spec.name, sequences * capacity * size_t(spec.heads) * size_t(spec.width));
            d.cache[size_t(l)].push_back(slot);
        }
    d.attention_weights.assign(size_t(c.L), nullptr);
    for (int l = 0; l < c.L && d.shape.keep_weights; l++)
        want(s, d.attention_weights[size_t(l)], "h." + std::to_string(l) + " attention weights", rows * size_t(c.NH) * capacity);
    want(s, d.x, "residual", rows * C);
    want(s, d.h, "residual after attention", rows * C);
    want(s, d.normed, "norm output", rows * C);
    want(s, d.branch, "branch output", rows * C);
    want_slots(s, d.norm, g.norm.saved, "norm ", rows);
    want_slots(s, d.mlp, g.parts[FEED_FORWARD].spec.saved, "mlp ", rows);
    want_slots(s, d.scratch, g.attention.decode, "attention ", rows);
    want(s, d.partial, "attention pieces",
         decode_partial_size(d.shape.chunk, d.shape.capacity, c.NH, std::max(g.attention.d_v, g.attention.d_v_decode)));
    want(s, d.logits, "logits", rows * size_t(c.Vp()));
    want(s, d.losses, "losses", rows);
    want(s, d.tokens, "tokens", rows);
    want(s, d.targets, "targets", rows);
    want(s, d.sequence, "sequence of each row", rows);
    want(s, d.position, "position of each row", rows);
    if (g.attention.rope_width > 0) want(s, g.rope, "rope table", capacity * size_t(g.attention.rope_width));
    if (c.pos == Position::alibi) want(s, g.alibi, "alibi slopes", size_t(c.NH));
    if (c.pos == Position::sinusoidal) want(s, g.sinusoid, "sinusoidal table", capacity * C);
}

// weights_of: a model whose weights are used without a copy; null: the decoder has its own.
inline Decoder decoder_plan(ModelConfig c, DecoderShape shape, const GPT* weights_of = nullptr) {
    gpt_resolve(c);
    if (shape.capacity == 0) shape.capacity = c.T;
    if (shape.chunk == 0) shape.chunk = std::min(default_chunk, std::max(shape.capacity, shape.sequences));
    ensure_usage(c.pos != Position::learned || shape.capacity <= c.T,
                 "a context of %d: the model has learned positions for %d and none beyond; rope, "
                 "alibi, power, sinusoidal and none go further",
                 shape.capacity, c.T);
    Decoder d;
    d.shape = shape;
    d.length.assign(size_t(shape.sequences), 0);
    d.owns_weights = weights_of == nullptr;
    d.g.c = c;
    d.g.run = {1, false};
    set_parts(d.g);
    make_param_table(d.g);
    Slices s{d.g, nullptr};
    want_decoder(s, d);
    d.g.arena_bytes = s.used;
    if (size_t scratch = device_fixed_bytes()) d.g.buffers.push_back({"kernels' scratch memory", scratch, nullptr});
    return d;
}

inline Decoder decoder_allocate(const ModelConfig& config, const DecoderShape& shape, const GPT* weights_of = nullptr) {
    Decoder d = decoder_plan(config, shape, weights_of);
    GPT& g = d.g;
    const int capacity = d.shape.capacity;
    device_scratch_reserve(0);
    g.arena = device_alloc(g.arena_bytes);
    g.buffers.clear();
    if (weights_of) g.weights = weights_of->weights;
    Slices s{g, static_cast<char*>(g.arena)};
    want_decoder(s, d);
    point_layers_at_params(g);
    fill_position_tables(g, capacity);
    return d;
}

inline void decoder_free(Decoder& d) {
    device_free(d.g.arena);
    d = Decoder{};
}

inline size_t decoder_cache_bytes(const Decoder& d) {
    size_t bytes = 0;
    for (const Buffer& b : d.g.buffers)
        if (b.name.find(" cache ") != std::string::npos) bytes += b.bytes;
    return bytes;
}

// ---------------------------------------------------------------------------------------------- one pass

inline DecodeLayer decode_layer(Decoder& d, int l, const DecodeBatch& batch) {
    const AttentionLayer a = attention_layer(d.g, l, 1, batch.rows, false);
    return {d.g.c, batch, a.w, d.cache[size_t(l)].data(), d.scratch.data(), d.partial, a.rope, a.bias};
}

// A part of layer l, with the decoder's buffers.
inline Part decode_part(Decoder& d, int l, BlockPart k, int rows) {
    return {d.g.c, 1, rows, d.g.layers[size_t(l)].part[k].w.data(), nullptr, (k == FEED_FORWARD ? d.mlp : d.norm).data(), nullptr, false};
}
inline Part decode_last_norm(Decoder& d, int rows) {
    return {d.g.c, 1, rows, d.g.last_norm.w.data(), nullptr, d.norm.data(), nullptr, false};
}

// Appends `rows` (at most a chunk) tokens to their sequences; leaves the last norm's output in d.normed, row by row.
inline void decoder_pass(Decoder& d, const NewToken* tokens, int rows) {
    GPT& g = d.g;
    const ModelConfig& c = g.c;
    ensure(rows > 0 && rows <= d.shape.chunk, "decoding %d rows in a decoder made for %d", rows, d.shape.chunk);
    std::vector<int> ids, sequences, positions;
    int longest = 0;
    for (int r = 0; r < rows; r++) {
        int& length = d.length[size_t(tokens[r].sequence)];
        ensure(length < d.shape.capacity, "the context is full: %d tokens", d.shape.capacity);
        ids.push_back(tokens[r].token);
        sequences.push_back(tokens[r].sequence);
        positions.push_back(length++);
        longest = std::max(longest, length);
    }
    copy_to_device(d.tokens, ids.data(), size_t(rows) * sizeof(int));
    copy_to_device(d.sequence, sequences.data(), size_t(rows) * sizeof(int));
    copy_to_device(d.position, positions.data(), size_t(rows) * sizeof(int));
    DecodeBatch batch{rows, d.shape.capacity, longest, d.sequence, d.position};
    embedding_forward(d.x, d.tokens, g.weights, position_table(g), 1, rows, c.C, d.position);
    norm_forward(d.normed, d.x, decode_part(d, 0, NORM_1, rows));
    for (int l = 0; l < c.L; l++) {                          // block_forward's steps (model/block.h)
        batch.weights = d.attention_weights[size_t(l)];
        attention_decode(d.branch, d.normed, decode_layer(d, l, batch));
        norm_residual_forward(d.h, d.normed, d.x, d.branch, decode_part(d, l, NORM_2, rows));
        mlp_forward(d.branch, d.normed, decode_part(d, l, FEED_FORWARD, rows));
        norm_residual_forward(d.x, d.normed, d.h, d.branch, l + 1 < c.L ? decode_part(d, l + 1, NORM_1, rows) : decode_last_norm(d, rows));
    }
}

// Feeds all tokens, a chunk at a time; after each pass done(first, rows) says which of them d.normed now belongs to.
template <class Done> void decoder_feed(Decoder& d, const std::vector<NewToken>& tokens, Done done) {
    for (size_t first = 0; first < tokens.size(); first += size_t(d.shape.chunk)) {
        int rows = int(std::min(tokens.size() - first, size_t(d.shape.chunk)));
        decoder_pass(d, tokens.data() + first, rows);
        done(first, rows);
    }
}

// Logits of rows first .. first + rows - 1 of the last pass, on the host: out (rows, V).
inline void decoder_read_logits(Decoder& d, int first, int rows, floatX* out) {
    const ModelConfig& c = d.g.c;
    linear_forward(d.logits, d.normed + size_t(first) * c.C, d.g.weights, nullptr, linear_shape(size_t(rows), c.C, c.Vp()));
    for (int r = 0; r < rows; r++) copy_to_host(out + size_t(r) * c.V, d.logits + size_t(r) * c.Vp(), size_t(c.V) * sizeof(floatX));
}

// Feeds tokens; logits (tokens, V) of every one of them.
inline std::vector<floatX> decoder_logits(Decoder& d, const std::vector<NewToken>& tokens) {
    std::vector<floatX> logits(tokens.size() * size_t(d.g.c.V));
    decoder_feed(d, tokens, [&](size_t first, int rows) { decoder_read_logits(d, 0, rows, logits.data() + first * size_t(d.g.c.V)); });
    return logits;
}

// Feeds tokens; logits (sequences, V) of what follows the last token of every sequence that got one. The other
// sequences' rows do not change.
inline void decoder_next_logits(Decoder& d, const std::vector<NewToken>& tokens, std::vector<floatX>& logits) {
    const size_t V = size_t(d.g.c.V);
    logits.resize(size_t(d.shape.sequences) * V);
    std::vector<size_t> last(size_t(d.shape.sequences), SIZE_MAX);
    for (size_t i = 0; i < tokens.size(); i++) last[size_t(tokens[i].sequence)] = i;
    decoder_feed(d, tokens, [&](size_t first, int rows) {
        auto wanted = [&](int r) { return last[size_t(tokens[first + size_t(r)].sequence)] == first + size_t(r); };
        std::vector<floatX> run;
        for (int r = 0; r < rows;) {                         // runs of wanted rows: in a step of one token a sequence, one run
            int end = r;
            while (end < rows && wanted(end)) end++;
            if (end == r) { r++; continue; }
            run.resize(size_t(end - r) * V);
            decoder_read_logits(d, r, end - r, run.data());
            for (int k = r; k < end; k++)
                std::copy_n(run.begin() + int64_t(size_t(k - r) * V), V,
                            logits.begin() + int64_t(size_t(tokens[first + size_t(k)].sequence) * V));
            r = end;
        }
    });
}

// Feeds tokens; the loss (nats) of targets[i] after tokens[i]; target -1: 0.
inline std::vector<double> decoder_losses(Decoder& d, const std::vector<NewToken>& tokens, const std::vector<int>& targets) {
    const ModelConfig& c = d.g.c;
    std::vector<double> losses;
    std::vector<floatM> host;
    decoder_feed(d, tokens, [&](size_t first, int rows) {
        copy_to_device(d.targets, targets.data() + first, size_t(rows) * sizeof(int));
        linear_forward(d.logits, d.normed, d.g.weights, nullptr, linear_shape(size_t(rows), c.C, c.Vp()));
        crossentropy_forward(d.losses, d.logits, d.targets, size_t(rows), c.V, c.Vp());
        host.resize(size_t(rows));
        copy_to_host(host.data(), d.losses, host.size() * sizeof(floatM));
        losses.insert(losses.end(), host.begin(), host.end());
    });
    return losses;
}

// Copies the state of sequence `from` to sequence `to`: one prompt, several continuations.
inline void decoder_copy(Decoder& d, int from, int to) {
    const size_t used = size_t(d.length[size_t(from)]), capacity = size_t(d.shape.capacity);
    std::vector<floatX> host;
    for (size_t l = 0; l < d.cache.size(); l++)
        for (size_t i = 0; i < d.g.attention.cache.size(); i++) {
            const size_t width = size_t(d.g.attention.cache[i].width), heads = size_t(d.g.attention.cache[i].heads);
            host.resize(used * width);
            for (size_t h = 0; h < heads && width > 0; h++) {
                copy_to_host(host.data(), d.cache[l][i] + (size_t(from) * heads + h) * capacity * width, host.size() * sizeof(floatX));
                copy_to_device(d.cache[l][i] + (size_t(to) * heads + h) * capacity * width, host.data(), host.size() * sizeof(floatX));
            }
        }
    d.length[size_t(to)] = d.length[size_t(from)];
}
