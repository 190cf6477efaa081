// Text from a model during training: the last T tokens are the context, and everything is computed again for every new
// token, in the buffers that training has anyway. (Decoding with a cache: decode.h.)
#pragma once
#include <string>
#include <vector>

#include "model/gpt.h"
#include "model/sample.h"
#include "runtime/run/signals.h"
#include "tokenizer/tokenizer.h"

struct TextRequest {
    std::string prompt;
    int tokens = 200;
    Sampling sampling;
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
        ids.push_back(uint32_t(choose_token(logits.data(), int(logits.size()), r.sampling, u)));
    }
    return tokenizer_decode(tokenizer, ids.data(), ids.size());
}
