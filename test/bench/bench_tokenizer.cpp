// Training time and encoding speed of the tokenizer on a text file: seconds, and processor seconds, which
// other work on the machine changes less. Medians of several runs; peer_tokenizer.py runs this beside other
// tokenizers on the same file. A text made by repeating a smaller one flatters every tokenizer: words come
// from the cache.
//   build/bench-tokenizer TEXT [TOKENIZER]      TOKENIZER: encode with this one only (tokenizer.json, or GPT-2's folder), no training
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <set>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"

struct Time { double seconds, cpu; };

template <class F> static Time median_time(int repeats, F f) {
    std::vector<Time> times;
    for (int i = 0; i < repeats; i++) {
        const auto start = std::chrono::steady_clock::now();
        const clock_t cpu = clock();             // of all threads
        f();
        times.push_back({std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                         double(clock() - cpu) / CLOCKS_PER_SEC});
    }
    auto middle = [&](auto member) {
        std::sort(times.begin(), times.end(), [&](const Time& a, const Time& b) { return a.*member < b.*member; });
        return times[times.size() / 2].*member;
    };
    return {middle(&Time::seconds), middle(&Time::cpu)};
}

static std::set<int> thread_counts() { return {1, omp_get_max_threads()}; }

static void bench_encode(const char* name, const Tokenizer& t, const std::string& text) {
    const double mb = double(text.size()) / 1e6;
    for (int threads : thread_counts()) {
        size_t tokens = 0;
        const Time time = median_time(3, [&] { tokens = tokenizer_encode(t, text, false, threads).size(); });
        printf("encode_%s threads %d: %.3f s, %.3f cpu s, %.1f MB/s, %.1f MB/cpu s, %zu tokens\n", name, threads,
               time.seconds, time.cpu, mb / time.seconds, mb / time.cpu, tokens);
    }
}

int main(int argc, char** argv) {
    try {
        ensure_usage(argc == 2 || argc == 3, "usage: bench-tokenizer TEXT [TOKENIZER]");
        const std::string text = file_read(argv[1], SIZE_MAX);
        const double mb = double(text.size()) / 1e6;
        printf("%s: %.1f MB\n", argv[1], mb);
        std::vector<std::string_view> words;
        const Time split = median_time(3, [&] {
            for (std::string_view chunk : split_safely(text, 256 << 10)) {
                words.clear();
                pretokenize(chunk, words);
            }
        });
        printf("pretokenize threads 1: %.3f s, %.3f cpu s, %.1f MB/s\n", split.seconds, split.cpu, mb / split.seconds);
        if (argc == 3) {
            bench_encode("given", tokenizer_load(argv[2]), text);
            return EXIT_DONE;
        }
        for (size_t vocab_size : {4096, 32000}) {
            Tokenizer t;
            for (int threads : thread_counts()) {
                const Time time = median_time(3, [&] { t = tokenizer_train(text, vocab_size, {END_OF_TEXT}, threads); });
                printf("train_%zu threads %d: %.2f s, %.2f cpu s\n", vocab_size, threads, time.seconds, time.cpu);
            }
            bench_encode(std::to_string(vocab_size).c_str(), t, text);
        }
        return EXIT_DONE;
    } catch (const Error& e) {
        fprintf(stderr, "bench_tokenizer: %s\n", e.what());
        return e.exit_code;
    }
}
