// Encoding and decoding [Radford et al. 2019, encoder.py]: in every word, repeatedly join the adjacent pair whose merge has the
// lowest rank, the leftmost first. That is also what Hugging Face's `tokenizers` and tiktoken do.
// The ids do not depend on threads: chunks are cut where no word is changed (pretokenize.h), and words are independent.
#include <omp.h>
#define XXH_INLINE_ALL
#define XXH_VECTOR 0          // words are short; and the AVX-512 path makes GCC 12 warn about its own intrinsics
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <queue>

#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "runtime/run/error.h"

int resolve_threads(int threads) { return threads > 0 ? threads : omp_get_max_threads(); }

// Up to this many bytes the whole word is searched for the lowest rank, n^2 steps on two small arrays; a heap would allocate.
static constexpr size_t SHORT_WORD_BYTES = 64;

static void encode_short(const Tokenizer::Index& index, std::string_view word, std::vector<uint32_t>& out) {
    uint32_t id[SHORT_WORD_BYTES], rank[SHORT_WORD_BYTES];   // rank[i]: of the pair (i, i+1); NONE is the largest number
    size_t n = word.size();
    for (size_t i = 0; i < n; i++) id[i] = index.byte_id[static_cast<unsigned char>(word[i])];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = index.rank.find(id[i], id[i + 1]);
    while (n > 1) {
        size_t best = size_t(std::min_element(rank, rank + n - 1) - rank);   // the first of equals
        if (rank[best] == PairMap::NONE) break;
        id[best] = index.product[rank[best]];
        n--;
        std::copy(id + best + 2, id + n + 1, id + best + 1);
        if (best + 1 < n) {
            std::copy(rank + best + 2, rank + n, rank + best + 1);
            rank[best] = index.rank.find(id[best], id[best + 1]);
        }
        if (best > 0) rank[best - 1] = index.rank.find(id[best - 1], id[best]);
    }
    out.insert(out.end(), id, id + n);
}

// Long words (a megabyte without a space): a linked list of symbols and a heap of (rank, position), n log n.
// Entries are not removed from the heap; one whose pair is gone or has changed is recognised by its rank.
static void encode_long(const Tokenizer::Index& index, std::string_view word, std::vector<uint32_t>& out) {
    constexpr uint32_t END = UINT32_MAX, DEAD = UINT32_MAX;
    ensure(word.size() < END, "tokenizer: a word of %zu bytes; at most 4 GiB without white space", word.size());
    struct Symbol { uint32_t id, prev, next; };
    const uint32_t n = uint32_t(word.size());
    std::vector<Symbol> symbols(n);
    for (uint32_t i = 0; i < n; i++)
        symbols[i] = {index.byte_id[static_cast<unsigned char>(word[i])], i > 0 ? i - 1 : END, i + 1 < n ? i + 1 : END};

    std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> heap;   // rank << 32 | position: lowest rank, then leftmost
    auto rank_at = [&](uint32_t i) {
        if (symbols[i].id == DEAD || symbols[i].next == END) return PairMap::NONE;
        return index.rank.find(symbols[i].id, symbols[symbols[i].next].id);
    };
    auto push = [&](uint32_t i) {
        if (uint32_t rank = rank_at(i); rank != PairMap::NONE) heap.push(uint64_t(rank) << 32 | i);
    };
    for (uint32_t i = 0; i < n; i++) push(i);
    while (!heap.empty()) {
        const uint32_t rank = uint32_t(heap.top() >> 32), i = uint32_t(heap.top());
        heap.pop();
        if (rank_at(i) != rank) continue;
        const uint32_t joined = symbols[i].next;
        symbols[i].id = index.product[rank];
        symbols[i].next = symbols[joined].next;
        symbols[joined].id = DEAD;
        if (symbols[i].next != END) symbols[symbols[i].next].prev = i;
        push(i);
        if (symbols[i].prev != END) push(symbols[i].prev);
    }
    for (uint32_t i = 0; i != END; i = symbols[i].next) out.push_back(symbols[i].id);
}

// A recently seen word and its ids; one cache line. A slot holds the last word that hashed to it, so memory is bounded and
// nothing is allocated. Longer words and words of more ids are encoded afresh.
namespace {
struct alignas(64) CachedWord {
    uint8_t bytes = 0, count = 0;
    char word[30];
    uint32_t ids[8];
};
static_assert(sizeof(CachedWord) == 64);
}  // namespace

static void encode_chunk(const Tokenizer::Index& index, std::string_view text, std::vector<CachedWord>& cache, std::vector<uint32_t>& out) {
    const char* const end = text.data() + text.size();
    for (const char *p = text.data(), *next; p < end; p = next) {
        next = word_end(p, end);
        const std::string_view word(p, size_t(next - p));
        if (word.size() > sizeof(CachedWord::word)) {
            word.size() <= SHORT_WORD_BYTES ? encode_short(index, word, out) : encode_long(index, word, out);
            continue;
        }
        CachedWord& slot = cache[XXH3_64bits(word.data(), word.size()) & (cache.size() - 1)];
        if (slot.bytes == word.size() && memcmp(slot.word, word.data(), word.size()) == 0) {
            out.insert(out.end(), slot.ids, slot.ids + slot.count);
            continue;
        }
        const size_t start = out.size();
        encode_short(index, word, out);
        if (const size_t count = out.size() - start; count <= std::size(slot.ids)) {
            slot.bytes = uint8_t(word.size());
            slot.count = uint8_t(count);
            memcpy(slot.word, word.data(), word.size());
            std::copy(out.begin() + ptrdiff_t(start), out.end(), slot.ids);
        }
    }
}

std::vector<uint32_t> encode_pieces(const Tokenizer& t, const std::vector<Piece>& pieces, int threads) {
    ensure(t.index != nullptr, "tokenizer: not finished (load it or train it first)");
    constexpr size_t CHUNK_BYTES = 256 << 10;      // large enough to forget the start of a job, small enough to balance
    std::vector<Piece> chunks;
    size_t bytes = 0;
    for (const Piece& piece : pieces) {
        bytes += piece.text.size();
        if (piece.special_id >= 0) chunks.push_back(piece);
        else for (std::string_view chunk : split_safely(piece.text, CHUNK_BYTES)) chunks.push_back({chunk});
    }
    struct Job { size_t first, last; std::vector<uint32_t> ids; };   // consecutive chunks: documents may be tiny
    std::vector<Job> jobs;
    for (size_t first = 0, last = 0; first < chunks.size(); first = last) {
        for (size_t job_bytes = 0; last < chunks.size() && job_bytes < CHUNK_BYTES; last++) job_bytes += chunks[last].text.size() + 1;
        jobs.push_back({first, last, {}});
    }
    // 65536 slots (4 MB) a thread at most; a short text needs no large cache.
    const size_t slots = std::bit_ceil(std::clamp<size_t>(bytes / 16, 64, 65536));
    std::vector<std::vector<CachedWord>> caches(size_t(resolve_threads(threads)));
    parallel_for(jobs.size(), threads, [&](size_t j) {
        std::vector<CachedWord>& cache = caches[size_t(omp_get_thread_num())];
        if (cache.empty()) cache.resize(slots);
        for (size_t c = jobs[j].first; c < jobs[j].last; c++) {
            if (chunks[c].special_id >= 0) jobs[j].ids.push_back(uint32_t(chunks[c].special_id));
            else encode_chunk(*t.index, chunks[c].text, cache, jobs[j].ids);
        }
    });
    if (jobs.size() == 1) return std::move(jobs[0].ids);
    size_t total = 0;
    for (const Job& job : jobs) total += job.ids.size();
    std::vector<uint32_t> ids;
    ids.reserve(total);
    for (Job& job : jobs) {
        ids.insert(ids.end(), job.ids.begin(), job.ids.end());
        std::vector<uint32_t>().swap(job.ids);
    }
    return ids;
}

void split_special(std::string_view text, const std::vector<std::string>& special_tokens, const std::vector<uint32_t>& special_ids,
                   std::vector<Piece>& pieces) {
    std::vector<size_t> next(special_tokens.size(), 0);     // first occurrence of each at or after `pos`
    for (size_t s = 0; s < next.size(); s++) next[s] = text.find(special_tokens[s]);
    for (size_t pos = 0; pos < text.size();) {
        size_t at = std::string_view::npos, which = 0;
        for (size_t s = 0; s < next.size(); s++) {
            if (next[s] < pos) next[s] = text.find(special_tokens[s], pos);
            if (next[s] < at || (next[s] == at && at != std::string_view::npos && special_tokens[s].size() > special_tokens[which].size()))
                at = next[s], which = s;
        }
        const size_t end = std::min(at, text.size());
        if (end > pos) pieces.push_back({text.substr(pos, end - pos)});
        if (end == text.size()) break;
        pieces.push_back({{}, int64_t(special_ids[which])});
        pos = end + special_tokens[which].size();
    }
}

std::vector<uint32_t> tokenizer_encode(const Tokenizer& t, std::string_view text, bool allow_special, int threads) {
    std::vector<Piece> pieces;
    if (allow_special) split_special(text, t.special_tokens, t.special_ids, pieces);
    else pieces.push_back({text});
    return encode_pieces(t, pieces, threads);
}

std::string tokenizer_decode(const Tokenizer& t, const uint32_t* ids, size_t count, bool keep_special) {
    std::vector<bool> dropped(t.vocab_size(), false);
    for (uint32_t id : t.special_ids) dropped[id] = !keep_special;
    std::string text;
    for (size_t i = 0; i < count; i++) {
        ensure(ids[i] < t.vocab_size(),
               "decode: token %zu is %u, but the vocabulary has %zu entries; "
               "is this the tokenizer the text was encoded with?",
               i, ids[i], t.vocab_size());
        if (!dropped[ids[i]]) text += t.token_bytes[ids[i]];
    }
    return text;
}

int64_t Tokenizer::special_id(std::string_view text) const {
    for (size_t s = 0; s < special_tokens.size(); s++)
        if (special_tokens[s] == text) return special_ids[s];
    return -1;
}
