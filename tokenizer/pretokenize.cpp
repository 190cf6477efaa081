// GPT-2's pre-tokenizer with PCRE2; the contract and the treatment of invalid bytes are in pretokenize.h.
//
// Where may a text be cut so that both sides can be split on their own? Between a character that is not white space and one
// that is. (1) It is a word boundary whatever comes before: no alternative of the pattern takes a white-space character
// after another kind of character. (2) The left side does not change: its runs stop there anyway, and `\s+(?!\S)` only
// looks at the character after white space, which in the left side is never the missing one, as it ends in something
// else. (3) The right side does not change: the pattern never looks back.
//
// Which characters are letters and numbers is PCRE2's table: Unicode 14 in PCRE2 10.42. Compared over all code points with
// Hugging Face tokenizers 0.23 (Unicode 16) and Python's regex (17), only characters assigned later differ: 9392 of them
// up to Unicode 16, in 45 ranges (CJK extensions H and I, historic scripts). White space is listed here, because PCRE2's
// \s has U+180E, which has not been white space since Unicode 6.3.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pretokenize.h"

#include <pcre2.h>

#include <memory>

#include "runtime/run/error.h"

#define WHITE_SPACE R"(\x09-\x0d \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"
static const char* const PATTERN =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^)" WHITE_SPACE R"(\p{L}\p{N}]+|[)"
    WHITE_SPACE R"(]+(?![^)" WHITE_SPACE R"(])|[)" WHITE_SPACE R"(]+)";

static pcre2_code* compile_pattern() {
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(PATTERN), PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, nullptr);
    ensure(code, "pre-tokenizer: PCRE2 error %d at offset %zu of the pattern; is PCRE2 built with Unicode support?", error, size_t(offset));
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);   // where there is no JIT, pcre2_match interprets: slower, same words
    return code;
}

size_t utf8_char_bytes(const char* p, const char* end) {
    auto at = [p](int i) { return static_cast<unsigned char>(p[i]); };
    auto continues = [&](int i) { return (at(i) & 0xC0) == 0x80; };
    const unsigned char lead = at(0);
    const ptrdiff_t left = end - p;
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0;                                                        // continuation byte or overlong
    if (lead < 0xE0) return left >= 2 && continues(1) ? 2 : 0;
    if (lead < 0xF0) {
        if (left < 3 || !continues(1) || !continues(2)) return 0;
        if ((lead == 0xE0 && at(1) < 0xA0) || (lead == 0xED && at(1) >= 0xA0)) return 0;   // overlong, surrogate
        return 3;
    }
    if (lead > 0xF4 || left < 4 || !continues(1) || !continues(2) || !continues(3)) return 0;
    if ((lead == 0xF0 && at(1) < 0x90) || (lead == 0xF4 && at(1) >= 0x90)) return 0;       // overlong, above U+10FFFF
    return 4;
}

static void match_words(const pcre2_code* code, pcre2_match_data* match, std::string_view text, std::vector<std::string_view>& words) {
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match);
    for (size_t pos = 0; pos < text.size(); pos = span[1]) {
        int rc = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), pos, PCRE2_NO_UTF_CHECK, match, nullptr);
        // Every character matches one of the alternatives, so only a resource limit can bring us here.
        ensure(rc > 0 && span[1] > pos, "pre-tokenizer: PCRE2 error %d at byte %zu of a %zu-byte text", rc, pos, text.size());
        words.push_back(text.substr(pos, span[1] - pos));
    }
}

void pretokenize(std::string_view text, std::vector<std::string_view>& words) {
    static const pcre2_code* const code = compile_pattern();      // compiled once, shared by all threads, never freed
    std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
    ensure(match != nullptr, "pre-tokenizer: out of memory");
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p < end) {
        const char* start = p;
        for (size_t n; p < end && (n = utf8_char_bytes(p, end)) > 0;) p += n;
        match_words(code, match.get(), {start, size_t(p - start)}, words);
        start = p;
        while (p < end && utf8_char_bytes(p, end) == 0) p++;
        if (p > start) words.push_back({start, size_t(p - start)});
    }
}

// Does text[0, end) end in white space? A lead byte never continues another character, so comparing the last bytes is exact.
static bool ends_in_white_space(std::string_view text, size_t end) {
    auto back = [&](size_t i) { return i <= end ? static_cast<unsigned char>(text[end - i]) : 0; };
    const unsigned a = back(3), b = back(2), c = back(1);
    if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
    if (b == 0xC2) return c == 0x85 || c == 0xA0;
    if (a == 0xE1 && b == 0x9A) return c == 0x80;
    if (a == 0xE2 && b == 0x80) return c <= 0x8A || c == 0xA8 || c == 0xA9 || c == 0xAF;
    if (a == 0xE2 && b == 0x81) return c == 0x9F;
    return a == 0xE3 && b == 0x80 && c == 0x80;
}

size_t safe_cut(std::string_view text, size_t from) {
    for (size_t cut = from > 0 ? from : 1; cut < text.size(); cut++)
        if ((text[cut] == ' ' || text[cut] == '\n') && !ends_in_white_space(text, cut)) return cut;
    return text.size();
}

std::vector<std::string_view> split_safely(std::string_view text, size_t chunk_bytes) {
    std::vector<std::string_view> chunks;
    while (!text.empty()) {
        const size_t cut = safe_cut(text, chunk_bytes);
        chunks.push_back(text.substr(0, cut));
        text.remove_prefix(cut);
    }
    return chunks;
}
