// Training byte-level BPE [Sennrich et al. 2016, algorithm 1], incrementally: the text is reduced to its distinct words with
// their counts; every pair of adjacent symbols knows its count and where it occurs; joining a pair touches only those places.
// Work is proportional to the joins made, also within one very long word.
#define XXH_INLINE_ALL
#define XXH_VECTOR 0          // words are short; and the AVX-512 path makes GCC 12 warn about its own intrinsics
#include <xxhash.h>

#include <omp.h>

#include <algorithm>
#include <queue>
#include <unordered_map>

#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "runtime/run/error.h"

namespace {

struct WordHash {
    size_t operator()(std::string_view word) const { return XXH3_64bits(word.data(), word.size()); }
};
using WordCounts = std::unordered_map<std::string_view, int64_t, WordHash>;   // the words point into the texts

WordCounts count_words(const std::vector<std::string_view>& texts, const std::vector<std::string>& special_tokens, int threads) {
    std::vector<std::string_view> chunks;
    for (std::string_view text : texts) {
        std::vector<Piece> pieces;
        split_special(text, special_tokens, std::vector<uint32_t>(special_tokens.size()), pieces);
        for (const Piece& piece : pieces)
            for (std::string_view chunk : split_safely(piece.text, 256 << 10)) chunks.push_back(chunk);
    }
    std::vector<WordCounts> counts(size_t(resolve_threads(threads)));
    parallel_for(chunks.size(), threads, [&](size_t i) {
        std::vector<std::string_view> words;
        pretokenize(chunks[i], words);
        for (std::string_view word : words) counts[size_t(omp_get_thread_num())][word]++;
    });
    for (size_t i = 1; i < counts.size(); i++) {
        for (const auto& [word, count] : counts[i]) counts[0][word] += count;
        WordCounts().swap(counts[i]);
    }
    return std::move(counts[0]);
}

// All words, one after the other, as doubly linked lists of symbols. A position is an index here, below 2^32.
constexpr uint32_t END = UINT32_MAX, DEAD = UINT32_MAX;
struct Symbol { uint32_t id, prev, next, word; };

struct Pair {
    int64_t count = 0;                    // occurrences in the text: sum of the counts of the words it is in
    uint32_t left = 0, right = 0;
    bool has_merge = false;
    std::vector<uint32_t> positions;      // of its left symbol; some may be out of date
};

struct Candidate { int64_t count; uint32_t pair; };

struct Trainer {
    std::vector<Symbol> symbols;
    std::vector<int64_t> word_count;
    std::vector<Pair> pairs;
    PairMap pair_index;
    std::vector<uint32_t> grown;          // pairs whose count rose in this merge

    Pair& pair_of(uint32_t left, uint32_t right) {
        const uint32_t i = pair_index.find_or_insert(left, right, uint32_t(pairs.size()));
        if (i == pairs.size()) pairs.push_back({0, left, right, false, {}});
        return pairs[i];
    }
    void add(uint32_t position) {
        const Symbol& s = symbols[position];
        Pair& pair = pair_of(s.id, symbols[s.next].id);
        pair.count += word_count[s.word];
        pair.positions.push_back(position);
        grown.push_back(uint32_t(&pair - pairs.data()));
    }
    void remove(uint32_t position) {
        const Symbol& s = symbols[position];
        pair_of(s.id, symbols[s.next].id).count -= word_count[s.word];
    }
    void add_words(const WordCounts& words);
    void merge(uint32_t pair, uint32_t joined_id);
};

void Trainer::add_words(const WordCounts& words) {
    size_t bytes = 0;
    for (const auto& [word, count] : words) bytes += word.size();
    ensure(bytes < END, "train: the distinct words have %zu bytes together; at most 4 GiB, train on a sample of the text", bytes);
    symbols.reserve(bytes);
    for (const auto& [word, count] : words) {
        const uint32_t first = uint32_t(symbols.size()), last = uint32_t(first + word.size() - 1);
        for (uint32_t i = first; i <= last; i++)
            symbols.push_back({static_cast<unsigned char>(word[i - first]), i > first ? i - 1 : END,
                               i < last ? i + 1 : END, uint32_t(word_count.size())});
        word_count.push_back(count);
    }
    for (uint32_t i = 0; i < symbols.size(); i++)
        if (symbols[i].next != END) add(i);
}

void Trainer::merge(uint32_t pair, uint32_t joined_id) {
    const uint32_t left = pairs[pair].left, right = pairs[pair].right;
    std::vector<uint32_t> positions = std::move(pairs[pair].positions);
    std::sort(positions.begin(), positions.end());        // leftmost first: "aaa" becomes (aa)a
    for (uint32_t i : positions) {
        Symbol& s = symbols[i];
        if (s.id != left || s.next == END || symbols[s.next].id != right) continue;   // out of date
        const uint32_t gone = s.next, prev = s.prev, next = symbols[gone].next;
        if (prev != END) remove(prev);
        if (next != END) remove(gone);
        s.id = joined_id;
        s.next = next;
        symbols[gone].id = DEAD;
        if (next != END) symbols[next].prev = i;
        if (prev != END) add(prev);
        if (next != END) add(i);
    }
    pairs[pair].count = 0;
    pairs[pair].positions = {};
}

}  // namespace

Tokenizer tokenizer_train(std::string_view text, size_t vocab_size, const std::vector<std::string>& special_tokens, int threads) {
    return tokenizer_train(std::vector<std::string_view>{text}, vocab_size, special_tokens, threads);
}

Tokenizer tokenizer_train(const std::vector<std::string_view>& texts, size_t vocab_size,
                          const std::vector<std::string>& special_tokens, int threads) {
    const size_t n_special = special_tokens.size();
    ensure_usage(vocab_size >= 256 + n_special, "train: vocabulary %zu is too small; 256 bytes and %zu special tokens need %zu",
                 vocab_size, n_special, 256 + n_special);
    ensure_usage(vocab_size <= (1u << 30), "train: vocabulary %zu is too large; at most 2^30", vocab_size);
    for (const std::string& special : special_tokens) ensure_usage(!special.empty(), "train: a special token is empty");
    Tokenizer t;
    std::unordered_map<std::string, uint32_t> ids;
    for (int b = 0; b < 256; b++) {
        t.token_bytes.push_back(std::string(1, char(b)));
        ids[t.token_bytes.back()] = uint32_t(b);
    }
    Trainer trainer;
    trainer.add_words(count_words(texts, special_tokens, threads));

    auto bytes_of = [&](uint32_t pair, bool right) -> const std::string& {
        return t.token_bytes[right ? trainer.pairs[pair].right : trainer.pairs[pair].left];
    };
    auto is_worse = [&](const Candidate& a, const Candidate& b) {
        if (a.count != b.count) return a.count < b.count;
        if (int order = bytes_of(a.pair, false).compare(bytes_of(b.pair, false)); order != 0) return order > 0;
        return bytes_of(a.pair, true) > bytes_of(b.pair, true);
    };
    // A pair's count only falls, except in the merge that makes it grow, after which it is queued anew. So a candidate's count
    // is never too low, and one that is too high is corrected when it comes up.
    std::priority_queue<Candidate, std::vector<Candidate>, decltype(is_worse)> queue(is_worse);
    auto queue_grown = [&] {
        std::sort(trainer.grown.begin(), trainer.grown.end());
        trainer.grown.erase(std::unique(trainer.grown.begin(), trainer.grown.end()), trainer.grown.end());
        for (uint32_t pair : trainer.grown)
            if (trainer.pairs[pair].count >= 2 && bytes_of(pair, false).size() + bytes_of(pair, true).size() <= MAX_TOKEN_BYTES)
                queue.push({trainer.pairs[pair].count, pair});
        trainer.grown.clear();
    };
    queue_grown();
    while (t.vocab_size() + n_special < vocab_size && !queue.empty()) {
        const Candidate best = queue.top();
        queue.pop();
        const int64_t count = trainer.pairs[best.pair].count;
        if (count != best.count) {
            if (count >= 2) queue.push({count, best.pair});
            continue;
        }
        // "a"+"bc" and "ab"+"c" make the same token: two merges, one id. For the same reason a pair can come back after its merge.
        const auto [entry, is_new] = ids.try_emplace(bytes_of(best.pair, false) + bytes_of(best.pair, true), uint32_t(t.vocab_size()));
        if (is_new) t.token_bytes.push_back(entry->first);
        if (!trainer.pairs[best.pair].has_merge) t.merges.push_back({trainer.pairs[best.pair].left, trainer.pairs[best.pair].right});
        trainer.pairs[best.pair].has_merge = true;
        trainer.merge(best.pair, entry->second);
        queue_grown();
    }
    for (const std::string& special : special_tokens) {
        t.special_ids.push_back(uint32_t(t.vocab_size()));
        t.special_tokens.push_back(special);
        t.token_bytes.push_back(special);
    }
    tokenizer_finish(t, "train");
    return t;
}
