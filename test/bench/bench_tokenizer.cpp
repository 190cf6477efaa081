// Training time and encoding speed of the tokenizer on a text file. Medians of several runs; compare with peer_tokenizer.py on
// the same file. A text made by repeating a smaller one flatters every tokenizer: words come from the cache.
//   build/bench-tokenizer TEXT [TOKENIZER]      TOKENIZER: also encode with this one (tokenizer.json, or GPT-2's folder)
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "runtime/run/files.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "runtime/run/error.h"

template <class F> static double median_seconds(int repeats, F f) {
    std::vector<double> seconds;
    for (int i = 0; i < repeats; i++) {
        const auto start = std::chrono::steady_clock::now();
        f();
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
}

static void bench_encode(const char* name, const Tokenizer& t, const std::string& text) {
    size_t tokens = 0;
    double one = 0;
    for (int threads : {1, 2}) {
        const double seconds = median_seconds(3, [&] { tokens = tokenizer_encode(t, text, false, threads).size(); });
        if (threads == 1) one = seconds;
        printf("encode_%s threads %d: %.3f s, %.1f MB/s, %.1f MB/s per core, %.2f Mtok/s, %.3f bytes/token, speedup %.2f\n", name, threads, seconds,
               double(text.size()) / 1e6 / seconds, double(text.size()) / 1e6 / seconds / threads, double(tokens) / 1e6 / seconds,
               double(text.size()) / double(tokens), one / seconds);
    }
}

int main(int argc, char** argv) {
    try {
        ensure_usage(argc == 2 || argc == 3, "usage: bench-tokenizer TEXT [TOKENIZER]");
        const std::string text = file_read(argv[1], SIZE_MAX);
        printf("%s: %.1f MB\n", argv[1], double(text.size()) / 1e6);
        std::vector<std::string_view> words;
        const double split = median_seconds(3, [&] {
            for (std::string_view chunk : split_safely(text, 256 << 10)) words.clear(), pretokenize(chunk, words);
        });
        printf("pretokenize threads 1: %.3f s, %.1f MB/s\n", split, double(text.size()) / 1e6 / split);
        for (size_t vocab_size : {4096, 32000}) {
            Tokenizer t;
            for (int threads : {1, 2}) {
                const double seconds = median_seconds(3, [&] { t = tokenizer_train(text, vocab_size, {END_OF_TEXT}, threads); });
                printf("train_%zu threads %d: %.2f s\n", vocab_size, threads, seconds);
            }
            bench_encode(std::to_string(vocab_size).c_str(), t, text);
        }
        if (argc == 3) bench_encode("given", tokenizer_load(argv[2]), text);
        return EXIT_DONE;
    } catch (const Error& e) {
        fprintf(stderr, "bench_tokenizer: %s\n", e.what());
        return e.exit_code;
    }
}
