// GPT-2's pre-tokenizer by hand; the contract and the treatment of invalid bytes are in pretokenize.h.
// A regular-expression library would have its own idea of what a letter is: PCRE2 10.42 has Unicode 14, and would treat
// 9392 code points differently from tiktoken.
//
// Where may a text be cut so that both sides can be split on their own? Between a character that is not white space and one
// that is. (1) It is a word boundary whatever comes before: no alternative of the pattern takes a white-space character
// after another kind of character. (2) The left side does not change: its runs stop there anyway, and `\s+(?!\S)` only
// looks at the character after white space, which in the left side is never the missing one, as it ends in something
// else. (3) The right side does not change: the pattern never looks back.
#include "tokenizer/pretokenize.h"

#include <array>

namespace {
struct Range { uint32_t first, last; };
#include "tokenizer/unicode_classes.inc"

constexpr Range SPACES[] = {{0x9, 0xD}, {0x20, 0x20}, {0x85, 0x85}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A},
                            {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
constexpr uint32_t TABLE_SIZE = LETTERS[std::size(LETTERS) - 1].last + 1;     // all beyond it are `other`
static_assert(NUMBERS[std::size(NUMBERS) - 1].last < TABLE_SIZE);

// 200 KB, of which a text in one script touches a few; filled before main, in 0.1 ms.
struct ClassTable {
    std::array<CharClass, TABLE_SIZE> of;
    ClassTable() {
        of.fill(CharClass::other);
        fill(SPACES, CharClass::space);
        fill(LETTERS, CharClass::letter);
        fill(NUMBERS, CharClass::number);
    }
    template <size_t N> void fill(const Range (&ranges)[N], CharClass c) {
        for (const Range& r : ranges)
            for (uint32_t code = r.first; code <= r.last; code++) of[code] = c;
    }
};
const ClassTable CLASSES;

struct Char {
    CharClass kind;
    size_t bytes;
};
}  // namespace

CharClass unicode_class(uint32_t code_point) { return code_point < TABLE_SIZE ? CLASSES.of[code_point] : CharClass::other; }

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

static uint32_t code_point(const char* p, size_t bytes) {
    auto at = [p](int i) { return uint32_t(static_cast<unsigned char>(p[i])); };
    if (bytes == 1) return at(0);
    if (bytes == 2) return (at(0) & 0x1F) << 6 | (at(1) & 0x3F);
    if (bytes == 3) return (at(0) & 0x0F) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
    return (at(0) & 0x07) << 18 | (at(1) & 0x3F) << 12 | (at(2) & 0x3F) << 6 | (at(3) & 0x3F);
}

static Char char_at(const char* p, const char* end) {
    const auto first = static_cast<unsigned char>(*p);
    if (first < 0x80) return {CLASSES.of[first], 1};
    const size_t bytes = utf8_char_bytes(p, end);
    if (bytes == 0) return {CharClass::invalid, 1};
    return {unicode_class(code_point(p, bytes)), bytes};
}

// The end of the run of `kind` that begins at p.
static const char* run_end(const char* p, const char* end, CharClass kind) {
    while (p < end) {
        if (const auto first = static_cast<unsigned char>(*p); first < 0x80) {        // the most common case
            if (CLASSES.of[first] != kind) break;
            p++;
            continue;
        }
        const Char c = char_at(p, end);
        if (c.kind != kind) break;
        p += c.bytes;
    }
    return p;
}

// 's 't 're 've 'm 'll 'd at p, where an apostrophe stands: its bytes, or 0.
static size_t contraction_bytes(const char* p, const char* end) {
    if (end - p < 2) return 0;
    const char a = p[1], b = end - p > 2 ? p[2] : '\0';
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

const char* word_end(const char* p, const char* end) {
    const Char first = char_at(p, end);
    if (first.kind != CharClass::space) {
        if (*p == '\'')
            if (const size_t bytes = contraction_bytes(p, end)) return p + bytes;
        return run_end(p + first.bytes, end, first.kind);
    }
    if (*p == ' ' && p + 1 < end) {                                  // " ?" before a run of anything else
        const Char next = char_at(p + 1, end);
        if (next.kind != CharClass::space && next.kind != CharClass::invalid) return run_end(p + 1 + next.bytes, end, next.kind);
    }
    // White space: all of it where the text (the well-formed stretch) ends, else all but the last, if that leaves any.
    const char* last = p;
    const char* at = p + first.bytes;
    for (; at < end;) {
        const Char c = char_at(at, end);
        if (c.kind == CharClass::invalid) return at;
        if (c.kind != CharClass::space) return last > p ? last : at;
        last = at;
        at += c.bytes;
    }
    return at;
}

void pretokenize(std::string_view text, std::vector<std::string_view>& words) {
    const char* const end = text.data() + text.size();
    for (const char* p = text.data(); p < end;) {
        const char* const next = word_end(p, end);
        words.push_back({p, size_t(next - p)});
        p = next;
    }
}

static bool ends_in_white_space(std::string_view text, size_t end) {
    for (size_t bytes = 1; bytes <= 3 && bytes <= end; bytes++) {    // no white space has four
        const char* const p = text.data() + end - bytes;
        if (utf8_char_bytes(p, text.data() + end) == bytes) return char_at(p, text.data() + end).kind == CharClass::space;
    }
    return false;
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
