// Decoding with the cache against the full forward pass, for the variant that this binary is built with: every position and option,
// chunks of any size, sequences of different lengths, and the promise that the numbers of a sequence depend on nothing but its tokens.
#include <doctest/doctest.h>

#include "model/decode.h"
#include "test/check_tensor.h"
#include "test/model/model_common.h"

namespace {
// A decoder with g's weights.
Decoder decoder_of(const GPT& g, DecoderShape shape) { return decoder_allocate(g.c, shape, &g); }

std::vector<NewToken> of_sequence(int sequence, const int* tokens, int n) {
    std::vector<NewToken> list;
    for (int i = 0; i < n; i++) list.push_back({sequence, tokens[i]});
    return list;
}

// Logits (T, V) of the full forward pass of one sequence.
std::vector<floatX> full_logits(GPT& g, const int* tokens, int T) {
    gpt_forward(g, tokens, 1, T);
    linear_forward(g.logits, g.ln_f, g.weights, nullptr, head_shape(g, size_t(T)));
    std::vector<floatX> padded(size_t(T) * size_t(g.c.Vp())), logits;
    copy_to_host(padded.data(), g.logits, padded.size() * sizeof(floatX));
    for (int t = 0; t < T; t++) logits.insert(logits.end(), padded.begin() + t * g.c.Vp(), padded.begin() + t * g.c.Vp() + g.c.V);
    return logits;
}

void check_same_bits(const std::string& what, const std::vector<floatX>& got, const std::vector<floatX>& want) {
    REQUIRE(got.size() == want.size());
    size_t differ = 0;
    for (size_t i = 0; i < got.size(); i++) differ += double(got[i]) != double(want[i]);
    INFO(what, ": ", differ, " of ", got.size(), " logits have other bits");
    CHECK(differ == 0);
}
}  // namespace

TEST_CASE("logits from the cache are the full forward's, for every position and chunk") {
    backend_init(0);
    // Sums of at most 62 terms, 12 deep: 1e-12 and 1e-5 of the largest logit leave an order of magnitude; a wrong position, head or
    // scale changes the first digits. bf16 storage rounds at 2^-8 in every layer, and differently where K is never stored (absorbed).
    const double tolerance = DOUBLE ? 1e-12 : sizeof(floatX) == 2 ? 0.04 : 1e-5;
    for (const NamedConfig& config : all_configs()) {
        GPT g = gpt_allocate(config.c, 1, false);
        init_for_test(g, 3);
        const int T = g.c.T;
        TestBatch b = random_batch(1, T, g.c.V, 5);
        std::vector<floatX> want = full_logits(g, b.tokens.data(), T), first;
        for (int chunk : {T, 1, 3}) {
            Decoder d = decoder_of(g, {1, T, chunk});
            std::vector<floatX> got = decoder_logits(d, of_sequence(0, b.tokens.data(), T));
            std::string what = config.name + ", chunks of " + std::to_string(chunk);
            check_tensor(what, got, want, tolerance, "the full forward pass");
            if (chunk == T) first = got;
            else check_same_bits(what, got, first);
            decoder_free(d);
        }
        backend_init(3);                                     // more threads than the first had, or fewer
        Decoder d = decoder_of(g, {1, T, T});
        check_same_bits(config.name + ", 3 threads", decoder_logits(d, of_sequence(0, b.tokens.data(), T)), first);
        decoder_free(d);
        backend_init(0);
        gpt_free(g);
    }
}

TEST_CASE("sequences of different lengths in one batch are what they are alone") {
    backend_init(0);
    for (const NamedConfig& config : all_configs()) {
        GPT g = gpt_allocate(config.c, 1, false);
        init_for_test(g, 4);
        TestBatch b = random_batch(3, 7, g.c.V, 6);
        const int prompt[] = {5, 1, 3}, steps = 2;           // then two tokens each, all sequences in one pass
        std::vector<std::vector<floatX>> alone;
        for (int s = 0; s < 3; s++) {
            Decoder d = decoder_of(g, {1, 7, 7});
            alone.push_back(decoder_logits(d, of_sequence(0, &b.tokens[size_t(s) * 7], prompt[s] + steps)));
            decoder_free(d);
        }
        Decoder d = decoder_of(g, {3, 7, 4});                // the prompts are cut in the middle of a sequence
        std::vector<NewToken> tokens;
        for (int s = 0; s < 3; s++)
            for (const NewToken& t : of_sequence(s, &b.tokens[size_t(s) * 7], prompt[s])) tokens.push_back(t);
        std::vector<floatX> logits;
        const size_t V = size_t(g.c.V);
        for (int step = 0; step <= steps; step++) {
            decoder_next_logits(d, tokens, logits);
            tokens.clear();
            for (int s = 0; s < 3; s++) {
                const size_t at = size_t(prompt[s] + step - 1);
                check_same_bits(config.name + ", sequence " + std::to_string(s) + ", step " + std::to_string(step),
                                std::vector<floatX>(logits.begin() + int64_t(size_t(s) * V),
                                                    logits.begin() + int64_t(size_t(s + 1) * V)),
                                std::vector<floatX>(alone[size_t(s)].begin() + int64_t(at * V),
                                                    alone[size_t(s)].begin() + int64_t((at + 1) * V)));
                tokens.push_back({s, b.tokens[size_t(s) * 7 + at + 1]});
            }
        }
        decoder_free(d);
        gpt_free(g);
    }
}

TEST_CASE("a copied sequence and a sequence set back go on as the original") {
    backend_init(0);
    for (Position pos : {Position::rope, Position::power}) {
        GPT g = gpt_allocate(awkward_config(pos), 1, false);
        init_for_test(g, 5);
        TestBatch b = random_batch(1, 7, g.c.V, 7);
        Decoder d = decoder_of(g, {2, 7, 7});
        decoder_logits(d, of_sequence(0, b.tokens.data(), 4));
        decoder_copy(d, 0, 1);
        std::vector<floatX> original = decoder_logits(d, of_sequence(0, &b.tokens[4], 3));
        check_same_bits("copied", decoder_logits(d, of_sequence(1, &b.tokens[4], 3)), original);
        d.length[0] = 4;
        check_same_bits("set back", decoder_logits(d, of_sequence(0, &b.tokens[4], 3)), original);
        CHECK_THROWS(decoder_logits(d, of_sequence(0, b.tokens.data(), 1)));     // the cache holds 7
        decoder_free(d);
        gpt_free(g);
    }
}

TEST_CASE("losses of the decoder are the trainer's; contexts beyond the trained one, except for learned positions") {
    backend_init(0);
    for (Position pos : {Position::learned, Position::sinusoidal, Position::rope, Position::alibi, Position::power, Position::none}) {
        ModelConfig c = awkward_config(pos);
        GPT g = gpt_allocate(c, 1, false);
        init_for_test(g, 6);
        ModelConfig longer = c;
        longer.T = 3 * c.T;
        if (pos == Position::learned) {
            CHECK_THROWS_WITH(decoder_plan(c, {1, longer.T, 0}), doctest::Contains("learned positions for 7"));
            gpt_free(g);
            continue;
        }
        GPT far = gpt_allocate(longer, 1, false);
        init_for_test(far, 6);
        TestBatch b = random_batch(1, longer.T, c.V, 8);
        double want = gpt_loss(far, b.tokens.data(), b.targets.data(), 1, longer.T), got = 0;
        Decoder d = decoder_of(g, {1, longer.T, 0});
        for (double loss : decoder_losses(d, of_sequence(0, b.tokens.data(), longer.T), b.targets)) got += loss;
        INFO(position_name(pos), ": ", got, " of ", want);
        CHECK(std::fabs(got - want) <= (DOUBLE ? 1e-11 : sizeof(floatX) == 2 ? 0.02 : 1e-4) * want);
        decoder_free(d);
        gpt_free(g);
        gpt_free(far);
    }
}

TEST_CASE("what the plan says is what is allocated, and the cache column is the decoder's cache") {
    backend_init(0);
    for (const NamedConfig& config : all_configs()) {
        Decoder planned = decoder_plan(config.c, {3, 7, 2}), d = decoder_allocate(config.c, {3, 7, 2});
        CHECK(decoder_cache_bytes(planned) == decoder_cache_bytes(d));
        CHECK(decoder_cache_bytes(d) == cache_bytes_per_token(d.g) * 3 * 7);
        size_t bytes = 0;
        for (const Buffer& b : d.g.buffers) bytes += b.bytes;
        CHECK(bytes + device_fixed_bytes() == planned_bytes(planned.g));
        decoder_free(d);
    }
}
