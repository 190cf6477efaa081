// Checks of a whole tokenizer, its lookup tables, its fingerprint. Training and both file formats end here, so what encoding
// relies on is checked in one place.
#include <unordered_map>

#include "runtime/run/files.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "runtime/run/error.h"

void tokenizer_finish(Tokenizer& t, const std::string& where) {
    const char* w = where.c_str();
    ensure(t.vocab_size() < PairMap::NONE && t.merges.size() < PairMap::NONE,
           "%s: %zu tokens and %zu merges are too many", w, t.vocab_size(), t.merges.size());
    std::vector<bool> is_special(t.vocab_size(), false);
    for (uint32_t id : t.special_ids) is_special[id] = true;

    std::unordered_map<std::string_view, uint32_t> id_of;         // ordinary tokens
    for (uint32_t id = 0; id < t.vocab_size(); id++)
        if (!is_special[id]) {
            const auto [entry, is_new] = id_of.try_emplace(t.token_bytes[id], id);
            ensure(is_new, "%s: tokens %u and %u are both %s", w, entry->second, id, in_quotes(t.token_bytes[id]).c_str());
        }
    for (size_t s = 0; s < t.special_tokens.size(); s++) {
        const std::string& text = t.special_tokens[s];
        std::string bytes;
        for (size_t i = 0, n; i < text.size(); i += n)
            ensure((n = utf8_char_bytes(text.data() + i, text.data() + text.size())) > 0,
                   "%s: special token %s is not valid UTF-8", w, in_quotes(text).c_str());
        ensure(!alphabet_to_bytes(text, bytes) || !id_of.contains(bytes),
               "%s: special token %s is an ordinary token too; choose another text", w, in_quotes(text).c_str());
        for (size_t other = 0; other < s; other++)
            ensure(text != t.special_tokens[other], "%s: special token %s is given twice", w, in_quotes(text).c_str());
    }

    auto index = std::make_shared<Tokenizer::Index>();
    for (int b = 0; b < 256; b++) {
        const auto entry = id_of.find(std::string(1, char(b)));
        ensure(entry != id_of.end(), "%s: no token for byte 0x%02x; only byte-level BPE with all 256 bytes is supported", w, b);
        index->byte_id[size_t(b)] = entry->second;
    }
    for (uint32_t rank = 0; rank < t.merges.size(); rank++) {
        const auto [left, right] = t.merges[rank];
        ensure(left < t.vocab_size() && right < t.vocab_size() && !is_special[left] && !is_special[right],
               "%s: merge %u is of tokens %u and %u, of which one is special or unknown", w, rank, left, right);
        const std::string joined = t.token_bytes[left] + t.token_bytes[right];
        const auto product = id_of.find(joined);
        ensure(product != id_of.end(), "%s: merge %u makes %s, which is not in the vocabulary", w, rank, in_quotes(joined).c_str());
        const uint32_t first_rank = index->rank.find_or_insert(left, right, rank);
        ensure(first_rank == rank, "%s: merges %u and %u are the same pair, %s %s", w, first_rank, rank,
               in_quotes(t.token_bytes[left]).c_str(), in_quotes(t.token_bytes[right]).c_str());
        index->product.push_back(product->second);
    }
    t.index = std::move(index);
}

std::string tokenizer_fingerprint(const Tokenizer& t) {
    std::string content;                                          // every part with its length, so that no two tokenizers read the same
    auto number = [&](uint64_t n) { for (int shift = 0; shift < 64; shift += 8) content += char(n >> shift & 0xFF); };
    number(t.vocab_size());
    for (const std::string& token : t.token_bytes) number(token.size()), content += token;
    number(t.merges.size());
    for (const auto& [left, right] : t.merges) number(left), number(right);
    number(t.special_ids.size());
    for (uint32_t id : t.special_ids) number(id);
    return hash_hex(content);
}
