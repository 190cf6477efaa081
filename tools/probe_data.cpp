// probe-data: made-up sequences that test one ability of a model, as token shards with masks (dataloader/dataloader.h), for
// the ordinary trainer.
//   recall      multi-query associative recall [Arora et al. 2023 (Zoology), arXiv:2312.04927, app. D]: `pairs` key-value pairs, then
//               `queries` keys among them, at distances drawn from their power law (a = 0.01), each followed by its value; these values
//               count as targets. Keys come from the first half of the first `symbols` tokens (default: of all), values from the second
//               half; the tokens between are never keys, so that a key has one value. Two differences: Zoology draws those from all of
//               its 8192 tokens, where a key is rare. And there every key is asked once, the value is the target at the key without
//               being written, while here it is in the text, like any next token: asked once each, the last value would be told by
//               elimination, and of 4 pairs 1/4 (1/4 + 1/3 + 1/2 + 1) = 52% without any recall. So keys are drawn anew for each query.
//   copy        random tokens, a separator, the same tokens again; the second half counts
//   induction   random tokens; a stretch of 8 of them comes again somewhere later; its tokens from the second on count
// A sequence is one sample: it has `context` tokens. Every sequence is a function of (seed, split, its number).
//   build/probe-data recall --out data/recall-64-4 --context 64 --pairs 4 --vocab 8192 --train 20000 --val 1000
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>

#include "dataloader/dataloader.h"
#include "runtime/device/rng.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tokenizer/tokenizer.h"
#include "tools/one_line.h"

struct Probe {
    std::string task, out;
    int context = 64, pairs = 4, queries = 0, vocab = 8192, symbols = 0;
    int64_t train = 20000, val = 1000;
    uint64_t seed = 1;
};

// Numbers of one sequence, in the order in which they are drawn.
struct Draws {
    uint64_t seed, stream, next = 0;
    int below(int n) { return int(philox_below(seed, stream, next++, uint32_t(n))); }
    double uniform() { return philox_uniform(seed, stream, next++); }
};

struct Sequence { std::vector<uint32_t> tokens; std::vector<unsigned char> counts; };

static std::vector<int> distinct(Draws& d, int n, int first, int end) {
    std::set<int> seen;
    std::vector<int> list;
    while (int(list.size()) < n) {
        const int x = first + d.below(end - first);
        if (seen.insert(x).second) list.push_back(x);
    }
    return list;
}

// n different places of [0, places), place i with probability in proportion to (i + 1)^(a - 1), a = 0.01: most queries come early.
static std::vector<int> power_law_places(Draws& d, int n, int places) {
    std::vector<double> weight;
    for (int i = 0; i < places; i++) weight.push_back(0.01 * std::pow(i + 1.0, 0.01 - 1));
    std::vector<int> list;
    while (int(list.size()) < n) {
        double sum = 0;
        for (double w : weight) sum += w;
        double u = d.uniform() * sum;
        int place = 0;
        while (place + 1 < places && (u >= weight[size_t(place)] || weight[size_t(place)] == 0)) u -= weight[size_t(place++)];
        if (weight[size_t(place)] == 0) continue;                // rounding at the far end
        list.push_back(place);
        weight[size_t(place)] = 0;
    }
    return list;
}

static Sequence recall(const Probe& p, Draws& d) {
    Sequence s;
    const int between = p.symbols < p.vocab ? p.symbols : p.vocab / 2;       // those from here on
    for (int i = 0; i < p.context; i++) s.tokens.push_back(uint32_t(between + d.below(p.vocab - between)));
    s.counts.assign(size_t(p.context), 0);
    const std::vector<int> keys = distinct(d, p.pairs, 1, p.symbols / 2), values = distinct(d, p.pairs, p.symbols / 2, p.symbols);
    const std::vector<int> places = power_law_places(d, p.queries, (p.context - 2 * p.pairs) / 2);
    auto write = [&](int pair, size_t at) {
        s.tokens[at] = uint32_t(keys[size_t(pair)]);
        s.tokens[at + 1] = uint32_t(values[size_t(pair)]);
    };
    for (int i = 0; i < p.pairs; i++) write(i, size_t(2 * i));
    for (int place : places) {
        const size_t at = size_t(2 * (p.pairs + place));
        write(d.below(p.pairs), at);
        s.counts[at + 1] = 1;
    }
    return s;
}

static Sequence copy(const Probe& p, Draws& d) {
    const int n = (p.context - 1) / 2;
    Sequence s;
    for (int i = 0; i < n; i++) s.tokens.push_back(uint32_t(1 + d.below(p.vocab - 1)));
    s.tokens.push_back(0);                                       // the separator
    for (int i = 0; i < n; i++) s.tokens.push_back(s.tokens[size_t(i)]);
    s.tokens.resize(size_t(p.context), 0);
    s.counts.assign(size_t(p.context), 0);
    std::fill_n(s.counts.begin() + n + 1, n, 1);
    return s;
}

static Sequence induction(const Probe& p, Draws& d) {
    const int length = 8, first = d.below(p.context / 2 - length), again = p.context / 2 + d.below(p.context / 2 - length);
    Sequence s;
    for (int i = 0; i < p.context; i++) s.tokens.push_back(uint32_t(d.below(p.vocab)));
    s.counts.assign(size_t(p.context), 0);
    for (int i = 0; i < length; i++) {
        s.tokens[size_t(again + i)] = s.tokens[size_t(first + i)];
        s.counts[size_t(again + i)] = i > 0;
    }
    return s;
}

static void write_split(const Probe& p, const std::string& split, int64_t sequences) {
    std::vector<uint32_t> tokens;
    std::string counts;
    for (int64_t i = 0; i < sequences; i++) {
        Draws d{p.seed, rng_stream("probe " + p.task + " " + split) + uint64_t(i)};
        const Sequence s = p.task == "recall" ? recall(p, d) : p.task == "copy" ? copy(p, d) : induction(p, d);
        tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
        counts.append(s.counts.begin(), s.counts.end());
    }
    tokens.push_back(0);                                         // the last sample's last target
    counts += '\0';
    const std::string path = p.out + "/" + split + "_000000";
    file_replace(path + ".mask", counts);
    shard_write(path + ".bin", tokens.data(), tokens.size(), size_t(p.vocab));
}

// The trainer takes its vocabulary's size from a tokenizer: bytes, then strings of two bytes, as a real one could have learned them.
static void write_tokenizer(const Probe& p) {
    Tokenizer t;
    for (int b = 0; b < 256; b++) t.token_bytes.push_back(std::string(1, char(b)));
    for (int i = 0; i < p.vocab - 256; i++) {
        const uint32_t left = uint32_t(i / 256), right = uint32_t(i % 256);
        t.merges.push_back({left, right});
        t.token_bytes.push_back(t.token_bytes[left] + t.token_bytes[right]);
    }
    tokenizer_save(t, p.out + "/tokenizer.json");
}

static void check(const Probe& p) {
    ensure_usage(p.vocab >= 256 && p.vocab <= 65536, "--vocab %d: 256 to 65536", p.vocab);
    ensure_usage(p.train > 0 && p.val > 0 && p.train < 100000000 && p.val < 100000000, "--train, --val: 1 to 100 million sequences");
    ensure_usage(p.context >= 32 && p.context <= 65536, "--context %d: 32 to 65536", p.context);
    ensure_usage(p.symbols >= 8 && p.symbols <= p.vocab, "--symbols %d: 8 to the %d of --vocab", p.symbols, p.vocab);
    ensure_usage(p.task != "recall" || (p.pairs >= 1 && p.queries >= 1 && 2 * (p.pairs + p.queries) <= p.context),
                 "--pairs %d, --queries %d: two tokens each, more than a --context of %d", p.pairs, p.queries, p.context);
    ensure_usage(p.task != "recall" || 2 * p.pairs < p.symbols / 2,
                 "--pairs %d: keys are half of the %d --symbols, at least twice as many as pairs; give --symbols %d or more", p.pairs,
                 p.symbols, 4 * p.pairs + 2);
}

int main(int argc, char** argv) {
    return errors_in_one_line("probe-data", [&]() -> int {
        Probe p;
        CLI::App app("Sequences that test one ability of a model, as token shards with masks");
        app.add_option("TASK", p.task, "recall, copy, induction")->required()->check(CLI::IsMember({"recall", "copy", "induction"}));
        app.add_option("--out", p.out, "folder to write")->required();
        app.add_option("--context", p.context, "tokens of a sequence")->capture_default_str();
        app.add_option("--pairs", p.pairs, "recall: key-value pairs")->capture_default_str();
        app.add_option("--queries", p.queries, "recall: how often a value is asked for; 0: as often as there are pairs");
        app.add_option("--vocab", p.vocab, "tokens there are")->capture_default_str();
        app.add_option("--symbols", p.symbols, "recall: tokens that can be keys or values (default: all)");
        app.add_option("--train", p.train, "sequences for training")->capture_default_str();
        app.add_option("--val", p.val, "for validation")->capture_default_str();
        app.add_option("--seed", p.seed, "of all that is drawn")->capture_default_str();
        try {
            app.parse(argc, argv);
        } catch (const CLI::ParseError& e) {
            if (e.get_exit_code() == 0) return app.exit(e);
            fail_usage("%s; see --help", e.what());
        }
        if (p.symbols == 0) p.symbols = p.vocab;
        if (p.queries == 0) p.queries = p.pairs;
        check(p);
        std::filesystem::create_directories(p.out);
        write_split(p, "train", p.train);
        write_split(p, "val", p.val);
        write_tokenizer(p);
        file_replace(p.out + "/source.txt",
                     format("source: probe %s\ncontext: %d\npairs: %d\nqueries: %d\nvocabulary: %d\nsymbols: %d\nseed: %llu\n",
                            p.task.c_str(), p.context, p.pairs, p.queries, p.vocab, p.symbols, (unsigned long long)p.seed));
        printf("%s: %s, %lld + %lld sequences of %d tokens, vocabulary %d\n", p.out.c_str(), p.task.c_str(),
               (long long)p.train, (long long)p.val, p.context, p.vocab);
        return EXIT_DONE;
    });
}
