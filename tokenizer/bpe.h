// What the files of tokenizer/ share and no other file needs: the merge table, special tokens, the byte alphabet of
// tokenizer.json. The public contract is tokenizer.h.
#pragma once
#include <array>
#include <bit>
#include <exception>

#include "tokenizer/tokenizer.h"

inline constexpr const char* END_OF_TEXT = "<|endoftext|>";

// (left id, right id) -> a number. Open addressing with linear probing, half full at most; nothing is ever removed.
// It is looked up for every adjacent pair, in training and in encoding, so its slots lie in one array.
struct PairMap {
    static constexpr uint32_t NONE = UINT32_MAX;
    struct Slot { uint64_t key; uint32_t value; };
    std::vector<Slot> slots = std::vector<Slot>(1024, {0, NONE});
    size_t used = 0;

    static uint64_t key(uint32_t left, uint32_t right) { return uint64_t(left) << 32 | right; }
    size_t place(uint64_t k) const {          // Fibonacci hashing [Knuth vol. 3, 6.4]: the product's upper bits
        size_t i = (k ^ k >> 29) * 0x9E3779B97F4A7C15ull >> (64 - std::bit_width(slots.size() - 1));
        while (slots[i].value != NONE && slots[i].key != k) i = (i + 1) & (slots.size() - 1);
        return i;
    }
    uint32_t find(uint32_t left, uint32_t right) const { return slots[place(key(left, right))].value; }
    // The value of the pair, which is inserted with `fresh` if it is new.
    uint32_t find_or_insert(uint32_t left, uint32_t right, uint32_t fresh) {
        if (2 * (used + 1) > slots.size()) {
            std::vector<Slot> old(2 * slots.size(), {0, NONE});
            old.swap(slots);
            for (const Slot& s : old) if (s.value != NONE) slots[place(s.key)] = s;
        }
        Slot& s = slots[place(key(left, right))];
        if (s.value == NONE) s = {key(left, right), fresh}, used++;
        return s.value;
    }
};

struct Tokenizer::Index {
    PairMap rank;                            // pair -> rank of its merge
    std::vector<uint32_t> product;           // rank -> id of the joined token
    std::array<uint32_t, 256> byte_id;       // byte -> its token
};

// Checks everything that encoding relies on and builds `index`. Fails with one line that begins with `where`.
void tokenizer_finish(Tokenizer& t, const std::string& where);

// A stretch of ordinary text, or (special_id >= 0) a special token.
struct Piece {
    std::string_view text;
    int64_t special_id = -1;
};
// Cuts `text` at special tokens, leftmost first, at one place the longest (as Hugging Face's added tokens).
void split_special(std::string_view text, const std::vector<std::string>& special_tokens, const std::vector<uint32_t>& special_ids,
                   std::vector<Piece>& pieces);
std::vector<uint32_t> encode_pieces(const Tokenizer& t, const std::vector<Piece>& pieces, int threads);

// GPT-2's byte alphabet: a printable character for every byte, so that tokens can be JSON keys [Radford et al. 2019,
// bytes_to_unicode]. Printable Latin-1 stays itself; the other 68 bytes become U+0100, U+0101, ...
std::string bytes_to_alphabet(std::string_view bytes);
bool alphabet_to_bytes(std::string_view text, std::string& bytes);   // false: a character outside the alphabet

// For error messages: in quotes, one short line whatever the bytes are.
std::string in_quotes(std::string_view text);

int resolve_threads(int threads);                                    // 0: all
// Runs body(i) for i in [0, n) on OpenMP threads. No exception may leave a parallel region: the first one is thrown after it.
template <class Body> void parallel_for(size_t n, int threads, Body body) {
    std::exception_ptr failure;
    #pragma omp parallel for schedule(dynamic) num_threads(resolve_threads(threads)) if (n > 1)
    for (size_t i = 0; i < n; i++) {
        try {
            body(i);
        } catch (...) {
            #pragma omp critical(tokenizer_failure)
            if (!failure) failure = std::current_exception();
        }
    }
    if (failure) std::rethrow_exception(failure);
}
