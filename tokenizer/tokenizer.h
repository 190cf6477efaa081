// Byte-level BPE [Sennrich et al. 2016; Radford et al. 2019 (GPT-2)]: text -> token ids -> the same bytes.
//   pre-tokenize: GPT-2's pattern splits text into words (Unicode classes, fixed in the source); merges never cross a word.
//   encode: repeatedly join the adjacent pair with the lowest merge rank. train: repeatedly join the most frequent pair.
// Invalid UTF-8 is data, not an error: its bytes survive encode + decode.
// Formats: Hugging Face tokenizer.json (read, write); GPT-2's encoder.json + vocab.bpe (read).
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct Tokenizer {
    std::vector<std::string> token_bytes;         // id -> its bytes (a special token: its text)
    std::vector<std::pair<uint32_t, uint32_t>> merges;   // by rank; ids of the two parts
    std::vector<std::string> special_tokens;      // texts, e.g. "<|endoftext|>"
    std::vector<uint32_t> special_ids;            // same order
    struct Index;                                 // lookup tables, built by finish()
    std::shared_ptr<const Index> index;

    size_t vocab_size() const { return token_bytes.size(); }
    int64_t special_id(std::string_view text) const;     // -1: none
};

// Trains on `text` until the vocabulary has `vocab_size` entries (256 bytes + merges + special tokens).
// Ties go to the pair that sorts first by its bytes (those of the left part, then those of the right), so the result does not
// depend on threads. Stops early, with fewer entries, when no pair occurs twice. No token is longer than MAX_TOKEN_BYTES.
// Special tokens' texts in `text` are cut out first. Ids: byte b is b, then the merges, then the special tokens.
inline constexpr size_t MAX_TOKEN_BYTES = 256;   // GPT-2's longest has 128. Without a limit, a long word that occurs twice is learned whole
Tokenizer tokenizer_train(std::string_view text, size_t vocab_size, const std::vector<std::string>& special_tokens, int threads = 0);
Tokenizer tokenizer_train(const std::vector<std::string_view>& texts, size_t vocab_size,
                          const std::vector<std::string>& special_tokens, int threads = 0);

// allow_special: a special token's text in `text` becomes its id; otherwise it is ordinary text. threads 0: all.
std::vector<uint32_t> tokenizer_encode(const Tokenizer&, std::string_view text, bool allow_special = false, int threads = 0);
// Fails on an id >= vocab_size. keep_special false: special tokens are left out.
std::string tokenizer_decode(const Tokenizer&, const uint32_t* ids, size_t count, bool keep_special = true);

Tokenizer tokenizer_load(const std::string& path);        // tokenizer.json, or a folder that holds it or encoder.json + vocab.bpe
Tokenizer tokenizer_load_gpt2(const std::string& encoder_json, const std::string& vocab_bpe);
void tokenizer_save(const Tokenizer&, const std::string& path);   // tokenizer.json that Hugging Face `tokenizers` reads
std::string tokenizer_fingerprint(const Tokenizer&);      // XXH3-128 of the canonical content, hex
