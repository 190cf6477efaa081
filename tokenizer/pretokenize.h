// GPT-2's pre-tokenizer: text -> words. Merges never cross a word, so this decides what a token can be.
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+      [Radford et al. 2019, encoder.py]
// The words, joined, are the text again, byte for byte. Which code points are letters, numbers and white space is fixed in
// the source (unicode_classes.inc, the same as in tiktoken and `tokenizers`), so that ids are the same on every machine.
//
// Invalid UTF-8: every maximal run of bytes that are no part of a well-formed character (Unicode 15, table 3-7) is one word;
// the well-formed stretches between such runs are split as if each were a text of its own.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

// Bytes of the well-formed character at p (1 to 4), 0 when there is none. `end` > p.
size_t utf8_char_bytes(const char* p, const char* end);

enum class CharClass : uint8_t { space, letter, number, other, invalid };   // invalid: a byte that is no part of a character
CharClass unicode_class(uint32_t code_point);

// The end of the word that begins at p < end, when p is where a word begins.
const char* word_end(const char* p, const char* end);
// Appends the words of `text`; they point into it.
void pretokenize(std::string_view text, std::vector<std::string_view>& words);

// The first position at or after `from` (> 0) where `text` can be cut so that the words of the two sides are the words of the
// whole; text.size() if there is none.
size_t safe_cut(std::string_view text, size_t from);
// Cuts `text` into chunks of `chunk_bytes` or somewhat more by safe cuts; much more where there is none (text without spaces).
std::vector<std::string_view> split_safely(std::string_view text, size_t chunk_bytes);
