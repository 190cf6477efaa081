// Text from a model during training: the last T tokens are the context, and everything is computed again for every new
// token. (Decoding with a cache: decode.h.)
#pragma once
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "model/gpt.h"
#include "runtime/run/signals.h"
#include "tokenizer/tokenizer.h"

// One token from softmax(logits / temperature) over the top_k largest (0: all); u uniform in [0, 1). temperature 0: the largest.
inline int sample_token(const std::vector<floatX>& logits, double temperature, int top_k, double u) {
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return float(logits[size_t(a)]) > float(logits[size_t(b)]); });
    if (temperature == 0) return order[0];
    if (top_k > 0 && size_t(top_k) < order.size()) order.resize(size_t(top_k));
    std::vector<double> weight;
    double sum = 0, top = double(logits[size_t(order[0])]);
    for (int id : order) {
        weight.push_back(std::exp((double(logits[size_t(id)]) - top) / temperature));
        sum += weight.back();
    }
    for (size_t i = 0; i < order.size(); i++) {
        u -= weight[i] / sum;
        if (u < 0) return order[i];
    }
    return order.back();
}

struct TextRequest {
    std::string prompt;
    int tokens = 200;
    double temperature = 0.8;            // 0: greedy
    int top_k = 0;                       // 0: all
    uint64_t seed = 1;
    int64_t step = 0;                    // the random numbers depend on (seed, step) only
};

// The prompt and its continuation; shorter after a request to stop.
inline std::string generate_text(GPT& g, const Tokenizer& tokenizer, const TextRequest& r) {
    std::vector<uint32_t> ids = tokenizer_encode(tokenizer, r.prompt, true);
    if (ids.empty()) ids.push_back(0);
    std::vector<floatX> logits;
    for (int i = 0; i < r.tokens && !stop_requested(); i++) {
        const size_t n = std::min(ids.size(), size_t(g.c.T));
        const std::vector<int> context(ids.end() - int64_t(n), ids.end());
        gpt_next_logits(g, context.data(), int(n), logits);
        const double u = philox_uniform(r.seed, rng_stream("sample"), uint64_t(r.step) << 20 | uint64_t(i));
        ids.push_back(uint32_t(sample_token(logits, r.temperature, r.top_k, u)));
    }
    return tokenizer_decode(tokenizer, ids.data(), ids.size());
}
