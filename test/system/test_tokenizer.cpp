// Byte-level BPE against slow, obvious implementations: pre-tokenizer cuts, training, encoding; any number of threads; any bytes.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "runtime/device/rng.h"
#include "runtime/run/error.h"

using Words = std::vector<std::string>;
namespace {
struct Range { uint32_t first, last; };
#include "tokenizer/unicode_classes.inc"
}  // namespace

static Words words_of(std::string_view text) {
    std::vector<std::string_view> views;
    pretokenize(text, views);
    return {views.begin(), views.end()};
}

// Texts in which spaces of all kinds, quotes, letters, digits, other scripts and broken UTF-8 meet often.
static std::string random_text(std::mt19937& rng, size_t parts, bool valid = false) {
    static const std::vector<std::string> alphabet = {" ", "\n", "\t", "\r\n", "  ", "'", "s", "'re", "'l", "a", "Z",
                                                      "1", "!", "=", "\u00e9", "\u00a0", "\u3000", "\u2003", "\u0085",
                                                      "\u180e", "\u200b", "\u4f60", "\U0001f600", "\u0301", "\u00bd",
                                                      std::string(1, '\0'), "\x1c", "\x80", "\xc2", "\xe2\x80", "\xff",
                                                      "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", "\xf0\x9f"};
    std::string text;
    while (parts--) text += alphabet[rng() % (alphabet.size() - (valid ? 8 : 0))];
    return text;
}

TEST_CASE("pretokenize: GPT-2's pattern") {
    CHECK(words_of("") == Words{});
    CHECK(words_of("Hello world") == Words{"Hello", " world"});
    CHECK(words_of("I'm you're  IT'S don't 'tis") == Words{"I", "'m", " you", "'re", " ", " IT", "'", "S", " don", "'t", " '", "tis"});
    CHECK(words_of("a  b\n\nc   ") == Words{"a", " ", " b", "\n", "\n", "c", "   "});
    CHECK(words_of(" x=12ab, \t y") == Words{" x", "=", "12", "ab", ",", " \t", " y"});
    CHECK(words_of("\u4f60\u597d\uff0c \u4e16") == Words{"\u4f60\u597d", "\uff0c", " \u4e16"});
    CHECK(words_of("a\u00a0b\u180ec\u0085 d") == Words{"a", "\u00a0", "b", "\u180e", "c", "\u0085", " d"});   // U+180E is no white space
}

TEST_CASE("pretokenize: a run of invalid bytes is one word, what is between is as a text of its own") {
    CHECK(words_of("ab\xff\xfe cd") == Words{"ab", "\xff\xfe", " cd"});
    CHECK(words_of("a  \x80z") == Words{"a", "  ", "\x80", "z"});                     // trailing spaces stay whole, as at a text's end
    CHECK(words_of("\xe2\x80") == Words{"\xe2\x80"});                                 // cut character
    // overlong, surrogate, too high
    CHECK(words_of("\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80") == Words{"\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80"});
    CHECK(words_of("\xf4\x8f\xbf\xbf\xee\x80\x80").size() == 1);                      // U+10FFFF, U+E000: well-formed
    CHECK(words_of("\xe2\x80 x\xe2\x80\x99s") == Words{"\xe2\x80", " x", "\xe2\x80\x99", "s"});
}

static std::string utf8(uint32_t code) {
    if (code < 0x80) return std::string(1, char(code));
    if (code < 0x800) return {char(0xC0 | code >> 6), char(0x80 | (code & 0x3F))};
    if (code < 0x10000) return {char(0xE0 | code >> 12), char(0x80 | (code >> 6 & 0x3F)), char(0x80 | (code & 0x3F))};
    return {char(0xF0 | code >> 18), char(0x80 | (code >> 12 & 0x3F)), char(0x80 | (code >> 6 & 0x3F)), char(0x80 | (code & 0x3F))};
}

// The recorded number is tiktoken's (make_unicode_classes.py), so ids are the same on every machine, whatever its libraries.
TEST_CASE("pretokenize: every code point is the letter, number or space that it is to tiktoken") {
    std::string classes;
    size_t wrong = 0;
    std::vector<std::string_view> words;
    for (uint32_t code = 0; code < 0x110000; code++) {
        const bool surrogate = code >= 0xD800 && code < 0xE000;
        const CharClass expected = surrogate ? CharClass::other : unicode_class(code);
        classes += char(expected);
        if (surrogate) continue;
        const std::string c = utf8(code);
        const char* before[] = {"\n", "x", "1", "!"};              // joined to the one of its own kind only
        for (int kind = 0; kind < 4; kind++) {
            const std::string text = before[kind] + c;
            words.clear();
            pretokenize(text, words);
            wrong += (words.size() == 1) != (kind == int(expected));
        }
    }
    CHECK(rng_stream(classes) == UNICODE_CLASSES_FNV);
    CHECK(wrong == 0);
    CHECK(unicode_class(0x1C89) == CharClass::letter);             // since Unicode 16
    CHECK(unicode_class(0x180E) == CharClass::other);              // a space until Unicode 6.3
}

TEST_CASE("split_safely: the words of the chunks are the words of the text") {
    std::mt19937 rng(1);
    for (int round = 0; round < 400; round++) {
        const std::string text = random_text(rng, 1 + rng() % 60);
        const Words whole = words_of(text);
        for (size_t chunk_bytes = 0; chunk_bytes <= text.size(); chunk_bytes += 1 + chunk_bytes / 8) {
            Words pieces;
            for (std::string_view chunk : split_safely(text, chunk_bytes))
                for (const std::string& word : words_of(chunk)) pieces.push_back(word);
            REQUIRE_MESSAGE(pieces == whole, "chunks of " << chunk_bytes << ", text " << in_quotes(text));
        }
    }
    CHECK(split_safely("", 3).empty());
    CHECK(split_safely(std::string(1000, 'x'), 10).size() == 1);                     // no safe cut
    CHECK(split_safely("aa bb cc", 1).size() == 3);
}

// [Sennrich et al. 2016, algorithm 1]: recount everything before each merge.
static std::vector<std::pair<std::string, std::string>> train_slowly(const std::string& text, size_t merges) {
    std::vector<Words> words;
    for (const std::string& word : words_of(text)) {
        words.emplace_back();
        for (char c : word) words.back().push_back(std::string(1, c));
    }
    auto less_by_bytes = [](const auto& a, const auto& b) {      // of unsigned char, as std::string compares
        return a.first != b.first ? a.first < b.first : a.second < b.second;
    };
    std::vector<std::pair<std::string, std::string>> out;
    std::vector<std::string> tokens;
    while (tokens.size() < merges) {
        std::map<std::pair<std::string, std::string>, int64_t, decltype(less_by_bytes)> counts(less_by_bytes);
        for (const Words& w : words)
            for (size_t i = 0; i + 1 < w.size(); i++)
                if (w[i].size() + w[i + 1].size() <= MAX_TOKEN_BYTES) counts[{w[i], w[i + 1]}]++;
        const std::pair<const std::pair<std::string, std::string>, int64_t>* best = nullptr;
        for (const auto& entry : counts)
            if (!best || entry.second > best->second) best = &entry;
        if (!best || best->second < 2) break;
        const auto pair = best->first;
        if (std::find(out.begin(), out.end(), pair) == out.end()) out.push_back(pair);
        if (std::find(tokens.begin(), tokens.end(), pair.first + pair.second) == tokens.end()) tokens.push_back(pair.first + pair.second);
        for (Words& w : words)
            for (size_t i = 0; i + 1 < w.size(); i++)
                if (w[i] == pair.first && w[i + 1] == pair.second) {
                    w[i] += w[i + 1];
                    w.erase(w.begin() + ptrdiff_t(i) + 1);
                }
    }
    return out;
}

TEST_CASE("train: the same merges as recounting before each") {
    std::mt19937 rng(2);
    for (int round = 0; round < 60; round++) {
        std::string text;
        if (round % 3 == 0) text = random_text(rng, 300);
        else for (int i = 0; i < 400; i++) text += (round % 3 == 1 ? "aab " : "abc\xff d'")[rng() % (round % 3 == 1 ? 4 : 8)];
        const size_t merges = 1 + rng() % 120;
        const Tokenizer t = tokenizer_train(text, 256 + merges + 1, {"<|endoftext|>"}, 1 + int(rng() % 3));
        std::vector<std::pair<std::string, std::string>> got;
        for (auto [left, right] : t.merges) got.push_back({t.token_bytes[left], t.token_bytes[right]});
        REQUIRE_MESSAGE(got == train_slowly(text, merges), "round " << round << ", " << merges << " merges, text " << in_quotes(text));
        REQUIRE(t.vocab_size() <= 256 + merges + 1);
        REQUIRE(t.special_id("<|endoftext|>") == int64_t(t.vocab_size() - 1));
    }
}

TEST_CASE("train: stops, ties, limits, special tokens, errors") {
    CHECK(tokenizer_train("", 300, {}).vocab_size() == 256);
    CHECK(tokenizer_train("abcdefg", 300, {}).vocab_size() == 256);                   // no pair occurs twice
    const Tokenizer tie = tokenizer_train("xy ab xy ab", 257, {});
    CHECK(tie.token_bytes[256] == " a");                                             // " a", "ab" and "xy" twice, " x" once: bytes decide
    const Tokenizer runs = tokenizer_train(std::string(5000, 'x') + " " + std::string(5000, 'x'), 2000, {});
    for (const std::string& token : runs.token_bytes) CHECK(token.size() <= MAX_TOKEN_BYTES);
    const Tokenizer special = tokenizer_train("<|x|><|x|><|x|><|x|>ab", 300, {"<|x|>"});
    CHECK(special.vocab_size() == 257);                                              // its text is not learned
    CHECK_THROWS_AS(tokenizer_train("abc", 255, {}), Error);
    CHECK_THROWS_AS(tokenizer_train("abc", 256, {"<|x|>"}), Error);
    CHECK_THROWS_WITH_AS(tokenizer_train("abc", 300, {"a"}), doctest::Contains("ordinary token"), Error);
    CHECK_THROWS_WITH_AS(tokenizer_train("xyz", 300, {"<x>", "<x>"}), doctest::Contains("twice"), Error);
    CHECK_THROWS_WITH_AS(tokenizer_train("xyz", 300, {"\xff"}), doctest::Contains("UTF-8"), Error);
    CHECK_THROWS_AS(tokenizer_train("abc", 300, {""}), Error);
}

// Join the leftmost pair of the lowest rank until there is none.
static std::vector<uint32_t> encode_slowly(const Tokenizer& t, const std::string& text) {
    std::map<std::pair<uint32_t, uint32_t>, uint32_t> rank;
    std::map<std::string, uint32_t> id;
    for (uint32_t r = 0; r < t.merges.size(); r++) rank[t.merges[r]] = r;
    for (uint32_t i = 0; i < t.vocab_size(); i++) id.insert({t.token_bytes[i], i});
    std::vector<uint32_t> out;
    for (const std::string& word : words_of(text)) {
        std::vector<uint32_t> ids;
        for (char c : word) ids.push_back(id.at(std::string(1, c)));
        while (true) {
            size_t best = ids.size();
            for (size_t i = 0; i + 1 < ids.size(); i++)
                if (rank.contains({ids[i], ids[i + 1]}) &&
                    (best == ids.size() || rank[{ids[i], ids[i + 1]}] < rank[{ids[best], ids[best + 1]}]))
                    best = i;
            if (best == ids.size()) break;
            ids[best] = id.at(t.token_bytes[ids[best]] + t.token_bytes[ids[best + 1]]);
            ids.erase(ids.begin() + ptrdiff_t(best) + 1);
        }
        out.insert(out.end(), ids.begin(), ids.end());
    }
    return out;
}

TEST_CASE("encode: the same ids as the slow way, around the limits of word length and cache; decode gives the bytes back") {
    std::mt19937 rng(3);
    std::string training;
    for (int i = 0; i < 3000; i++) training += random_text(rng, 1) + "ab ba\xff"[rng() % 6];
    const Tokenizer t = tokenizer_train(training, 380, {});
    CHECK(t.vocab_size() == 380);
    for (size_t length : {1, 2, 7, 29, 30, 31, 63, 64, 65, 128, 300}) {
        for (int round = 0; round < 8; round++) {
            std::string word;
            while (word.size() < length) word += "ab"[rng() % 2];
            const std::string text = word + " " + random_text(rng, 40) + word + word;
            const auto ids = tokenizer_encode(t, text);
            REQUIRE_MESSAGE(ids == encode_slowly(t, text), "text " << in_quotes(text));
            REQUIRE(tokenizer_decode(t, ids.data(), ids.size()) == text);
        }
    }
    for (int b = 0; b < 256; b++) CHECK(tokenizer_encode(t, std::string(1, char(b))) == std::vector<uint32_t>{uint32_t(b)});
    const uint32_t wrong[] = {1, uint32_t(t.vocab_size())};
    CHECK_THROWS_WITH_AS(tokenizer_decode(t, wrong, 2), doctest::Contains("token 1 is"), Error);
}

TEST_CASE("any number of threads: the same tokenizer, the same ids") {
    std::mt19937 rng(4);
    std::string text;
    while (text.size() < 1'500'000) text += random_text(rng, 20, text.size() % 2) + " the quick brown fox's ";
    text += std::string(300'000, 'y') + " end";                       // longer than a chunk, without a safe cut
    const Tokenizer one = tokenizer_train(text, 700, {"<|endoftext|>"}, 1);
    const auto ids = tokenizer_encode(one, text, false, 1);
    CHECK(tokenizer_decode(one, ids.data(), ids.size()) == text);
    for (int threads : {2, 3, 7}) {
        CHECK(tokenizer_fingerprint(tokenizer_train(text, 700, {"<|endoftext|>"}, threads)) == tokenizer_fingerprint(one));
        CHECK(tokenizer_encode(one, text, false, threads) == ids);
    }
    // A pool of words too large for the cache: slots are overwritten, ids stay right.
    std::vector<uint32_t> separately;
    for (std::string_view chunk : split_safely(text, 5000)) {
        const auto part = tokenizer_encode(one, chunk, false, 1);
        separately.insert(separately.end(), part.begin(), part.end());
    }
    CHECK(separately == ids);
}

TEST_CASE("long inputs: a word of a megabyte, white space of a megabyte; neither quadratic nor deep") {
    std::mt19937 rng(5);
    std::string letters, spaces(1 << 20, ' '), invalid(1 << 20, '\x80');
    while (letters.size() < 1 << 20) letters += char('a' + rng() % 4);
    const Tokenizer t = tokenizer_train(letters + " " + letters, 1000, {});
    CHECK(t.vocab_size() == 1000);
    for (const std::string& text : {letters, spaces + "x", invalid, std::string(1 << 20, '\n'), std::string(1 << 20, '=')}) {
        const auto ids = tokenizer_encode(t, text);
        CHECK(tokenizer_decode(t, ids.data(), ids.size()) == text);
    }
    CHECK(words_of(spaces + "x") == Words{spaces.substr(1), " x"});
    CHECK(tokenizer_encode(t, letters).size() < letters.size() / 2);
}

TEST_CASE("special tokens: recognised only when asked for; leftmost, then longest") {
    const Tokenizer t = tokenizer_train("some text, some more text", 300, {"<|a|>", "<|a|><|b|>", "<|b|>"});
    const uint32_t a = uint32_t(t.special_id("<|a|>")), ab = uint32_t(t.special_id("<|a|><|b|>")), b = uint32_t(t.special_id("<|b|>"));
    CHECK(tokenizer_encode(t, "<|a|><|b|><|b|><|a|>", true) == std::vector<uint32_t>{ab, b, a});
    CHECK(tokenizer_encode(t, "<|a|>").size() > 1);
    CHECK(tokenizer_encode(t, "<|a|", true).size() > 1);
    const std::string text = "x <|a|>y<|b|> <|a|><|b|>";
    for (bool allow : {false, true}) {
        const auto ids = tokenizer_encode(t, text, allow);
        CHECK(tokenizer_decode(t, ids.data(), ids.size()) == text);
    }
    CHECK(t.special_id("<|c|>") == -1);
    CHECK(tokenizer_encode(t, "", true).empty());
}
