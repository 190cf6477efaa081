// Decoding against its limit, the memory's bandwidth:  build/bench-decode-VARIANT [options]
// Random weights and tokens (speed does not depend on them). For every batch and context: a prompt of that length is read in chunks, then
// tokens are decoded one by one. What a token must read is the weights and its sequence's cache; `plain read` sums the weights with the
// same threads in the same run, between the measurements. Columns as in other tools: PP tokens of the prompt, TG tokens written, N_KV
// tokens in the cache, T seconds, S tokens per second. One JSON line at the end. The table of all variants: bench_decode.sh.
#include <sstream>

#include "model/decode.h"
#include "runtime/run/rundir.h"
#include "tools/arguments.h"
#include "tools/tool_main.h"

namespace {
// Seconds for one read of all weights: the best of three.
double plain_read_s(const Decoder& d) {
    const size_t words = d.g.flat_size * sizeof(floatX) / sizeof(uint64_t);
    const uint64_t* memory = reinterpret_cast<const uint64_t*>(d.g.weights);
    double best = 1e30;
    volatile uint64_t sink = 0;                              // keeps the reading loop from being left out
    for (int i = 0; i < 3; i++) {
        const double start = now_s();
        uint64_t sum = 0;
#pragma omp parallel for simd reduction(+ : sum) schedule(static)
        for (size_t k = 0; k < words; k++) sum += memory[k];
        sink = sink + sum;
        best = std::min(best, now_s() - start);
    }
    return best;
}

std::vector<int> numbers(const std::string& text, const char* option) {
    std::vector<int> list;
    std::istringstream words(text);
    for (std::string word; words >> word;) {
        ensure_usage(
            word.find_first_not_of("0123456789") == std::string::npos && word.size() < 8 && atoi(word.c_str()) > 0,
            "--%s: '%s' is not a whole number above 0", option, word.c_str());
        list.push_back(atoi(word.c_str()));
    }
    ensure_usage(!list.empty(), "--%s: the value is empty", option);
    return list;
}

int bench(int argc, char** argv) {
    ModelConfig c;
    c.L = 12, c.C = 768, c.NH = 12, c.V = 50257;
    std::string contexts = "128 512 1024", batches = "1 4", pos = "rope";
    int tokens = 16, threads = 0;
    std::vector<std::string> words;
    std::vector<Argument> table = {{"layers", "L", "blocks", &c.L, 1, 1000},
                                   {"width", "C", "channels", &c.C, 1, 1 << 17},
                                   {"heads", "N", "query heads", &c.NH, 1, 4096},
                                   {"vocab", "N", "vocabulary", &c.V, 1, 1 << 24}, {"pos", "NAME", "positions", &pos},
                                   {"contexts", "LIST", "tokens in the cache", &contexts},
                                   {"batches", "LIST", "sequences at once", &batches},
                                   {"tokens", "N", "tokens to decode", &tokens, 1, 1e6},
                                   {"threads", "N", "0: all", &threads, 0, 4096}};
    if (!arguments_parse(
            table,
            format("bench-decode-%s [options]    speed of decoding against the memory's bandwidth", ATTENTION_NAME),
            argc, argv, words))
        return EXIT_DONE;
    ensure_usage(words.empty(), "'%s': unexpected argument; options begin with --", words.empty() ? "" : words[0].c_str());
    c.pos = position_from_name(pos);
    const std::vector<int> lengths = numbers(contexts, "contexts"), sequences = numbers(batches, "batches");
    const int longest = *std::max_element(lengths.begin(), lengths.end());
    c.T = longest + tokens + 1;
    backend_init(threads);
    GPT weights = [&] {                                      // weights alone, shared by the decoders of all batches
        Decoder d = decoder_allocate(c, {1, 1, 1});
        gpt_init(d.g, 1);
        return d.g;
    }();
    std::string json, header = format("%-6s %3s %5s %5s %6s | %8s %9s | %8s %9s %8s | %9s %10s %7s %7s\n", "attn", "B",
                                      "PP", "TG", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "ms/step",
                                      "cache MB", "MB/step", "GB/s", "% read");
    write_out(format("%s, positions %s: %s parameters; %s, %s, %d threads\n", ATTENTION_NAME, pos.c_str(),
                     human_count(double(count_params(weights, true))).c_str(), backend_name(), PRECISION_NAME,
                     device_facts().threads) +
              header);
    for (int B : sequences) {
        Decoder d = decoder_allocate(c, {B, c.T, 0}, &weights);
        std::vector<floatX> logits;
        for (int length : lengths) {
            if (stop_requested()) return EXIT_INTERRUPTED;
            std::vector<NewToken> prompt, step;
            for (int b = 0; b < B; b++)
                for (int i = 0; i < length; i++) prompt.push_back({b, int(philox_below(1, uint64_t(b), uint64_t(i), uint32_t(c.V)))});
            std::fill(d.length.begin(), d.length.end(), 0);
            double start = now_s();
            decoder_next_logits(d, prompt, logits);
            const double prefill_s = now_s() - start;
            const double read_before_s = plain_read_s(d);
            start = now_s();
            for (int i = 0; i < tokens; i++) {
                step.clear();
                for (int b = 0; b < B; b++) step.push_back({b, (i * 31 + b) % c.V});
                decoder_next_logits(d, step, logits);
            }
            const double decode_s = now_s() - start, step_s = decode_s / tokens, read_s = std::min(read_before_s, plain_read_s(d));
            const double weights_bytes = double(d.g.flat_size) * sizeof(floatX),
                         cached = double(B) * (length + tokens / 2.0) * double(cache_bytes_per_token(d.g));
            const double rate = (weights_bytes + cached) / step_s, plain = weights_bytes / read_s;
            write_out(format("%-6s %3d %5d %5d %6d | %8.3f %9.1f | %8.3f %9.1f %8.2f | %9.2f %10.1f %7.2f %6.1f%%\n",
                             ATTENTION_NAME, B, length, tokens, B * length, prefill_s, B * length / prefill_s, decode_s,
                             B * tokens / decode_s, step_s * 1e3,
                             double(B) * length * double(cache_bytes_per_token(d.g)) / 1e6,
                             (weights_bytes + cached) / 1e6, rate / 1e9, 100 * rate / plain));
            json += format(
                "%s{\"attn\":\"%s\",\"batch\":%d,\"context\":%d,"
                "\"prefill_tokens_per_s\":%.1f,\"decode_tokens_per_s\":%.2f,"
                "\"ms_per_step\":%.3f,\"cache_bytes_per_token\":%zu,"
                "\"cache_bytes\":%zu,\"bytes_per_step\":%.0f,\"bytes_per_s\":%.4g,"
                "\"plain_read_bytes_per_s\":%.4g,\"of_plain_read\":%.4f}",
                json.empty() ? "" : ",", ATTENTION_NAME, B, length, B * length / prefill_s, B * tokens / decode_s,
                step_s * 1e3, cache_bytes_per_token(d.g), decoder_cache_bytes(d), weights_bytes + cached, rate, plain,
                rate / plain);
        }
        decoder_free(d);
    }
    write_out("[" + json + "]\n");
    return EXIT_DONE;
}
}  // namespace

int main(int argc, char** argv) { return tool_main(argc, argv, bench); }
