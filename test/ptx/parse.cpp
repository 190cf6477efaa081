// From the text of a .ptx file to kernels that run.cpp executes [PTX ISA 4 (syntax), 5 (state spaces), 11
// (directives)]. Only what nvcc writes for our kernels is understood; anything else is an error that names
// the file and the line.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "test/ptx/forms.h"

namespace ptx {
namespace {
using Words = std::vector<std::string>;
std::string trimmed(const std::string& s) {
    size_t begin = s.find_first_not_of(" \t\r\n"), end = s.find_last_not_of(" \t\r\n");
    return begin == std::string::npos ? "" : s.substr(begin, end - begin + 1);
}
Words words_of(const std::string& s) {
    std::istringstream in(s);
    Words words;
    for (std::string word; in >> word;) words.push_back(word);
    return words;
}
bool starts_with(const std::string& s, const char* prefix) { return s.rfind(prefix, 0) == 0; }

// Comments become blanks; the lines stay.
std::string without_comments(std::string text) {
    for (size_t i = 0; i + 1 < text.size(); i++) {
        bool line = text[i] == '/' && text[i + 1] == '/', block = text[i] == '/' && text[i + 1] == '*';
        if (!line && !block) continue;
        size_t end = line ? text.find('\n', i) : text.find("*/", i + 2);
        end = end == std::string::npos ? text.size() : line ? end : end + 2;
        for (; i < end; i++)
            if (text[i] != '\n') text[i] = ' ';
        i--;
    }
    return text;
}
// Parts between separators that stand in no bracket: "{a, b}, [c]" at ',' is "{a, b}" and "[c]".
Words split(const std::string& s, const char* separators) {
    Words parts;
    std::string part;
    int depth = 0;
    for (char c : s) {
        depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
        if (depth == 0 && strchr(separators, c)) parts.push_back(trimmed(part)), part.clear();
        else part += c;
    }
    if (part = trimmed(part); !part.empty() || !parts.empty()) parts.push_back(part);
    return parts;
}
char size_of_type(const std::string& type) {    // ".b32": w
    if (type == ".pred") return 'p';
    std::string width = type.substr(std::min<size_t>(2, type.size()));
    return width == "16" ? 'h' : width == "32" ? 'w' : width == "64" ? 'd' : '?';
}

const std::map<std::string, Special>& special_registers() {
    using S = Special;
    static const std::map<std::string, Special> table = {
        {"%tid.x", S::tid_x},     {"%tid.y", S::tid_y},       {"%tid.z", S::tid_z},       {"%ntid.x", S::ntid_x},
        {"%ntid.y", S::ntid_y},   {"%ntid.z", S::ntid_z},     {"%ctaid.x", S::ctaid_x},   {"%ctaid.y", S::ctaid_y},
        {"%ctaid.z", S::ctaid_z}, {"%nctaid.x", S::nctaid_x}, {"%nctaid.y", S::nctaid_y}, {"%nctaid.z", S::nctaid_z},
        {"%laneid", S::laneid}};
    return table;
}

struct RegisterRange {
    char size;
    uint32_t first, count;
};

struct Parser {
    const Module& module;
    Kernel k;
    int line = 0;
    std::map<std::string, RegisterRange> ranges;    // by name without its number
    std::map<std::pair<char, uint64_t>, uint32_t> constants;
    std::map<std::string, uint32_t> specials, shared_symbols, labels;
    std::vector<std::pair<size_t, std::string>> branches;    // instruction, label

    [[noreturn, gnu::format(printf, 2, 3)]] void wrong(const char* fmt, ...) const {
        va_list args;
        va_start(args, fmt);
        std::string message = format_list(fmt, args);
        va_end(args);
        fail("ptx: %s:%d, in %s: %s", module.file.c_str(), line, k.name.c_str(), message.c_str());
    }
    uint64_t number(const std::string& text) const {
        char* end = nullptr;
        uint64_t value = text.empty()     ? 0
                         : text[0] == '-' ? uint64_t(strtoll(text.c_str(), &end, 0))
                                          : strtoull(text.c_str(), &end, 0);
        if (end && *end == 'U') end++;
        if (!end || *end) wrong("not a number: '%s'", text.c_str());
        return value;
    }

    // ---- declarations
    void parameter(const std::string& text) {    // .param .u64 name    .param .align 8 .b8 name[56]
        Words w = words_of(text);
        if (w.size() < 3 || w[0] != ".param") wrong("not a parameter: '%s'", text.c_str());
        std::string name = w.back(), type = w[1];
        size_t align = 0, bytes = 0;
        if (w[1] == ".align" && w.size() == 5) align = number(w[2]), type = w[3];
        else if (w.size() != 3) wrong("not understood: '%s'", text.c_str());
        size_t element = type.size() > 2 ? number(type.substr(2)) / 8 : 0;
        if (element == 0) wrong("parameter of type %s", type.c_str());
        size_t bracket = name.find('[');
        bytes =
            element * (bracket == std::string::npos ? 1 : number(name.substr(bracket + 1, name.size() - bracket - 2)));
        align = align ? align : element;
        size_t at = (k.parameter_bytes + align - 1) / align * align;
        k.parameters.push_back({name.substr(0, bracket), at, bytes});
        k.parameter_bytes = at + bytes;
    }
    void header(const std::string& text) {    // between the parameters and the body
        Words w = words_of(text);
        for (size_t i = 0; i < w.size();) {
            if (w[i] != ".maxntid" || i + 3 >= w.size()) wrong("unknown directive '%s'", w[i].c_str());
            k.max_threads = unsigned(number(w[i + 1].substr(0, w[i + 1].find(','))) *
                                     number(w[i + 2].substr(0, w[i + 2].find(','))) * number(w[i + 3]));
            i += 4;
        }
    }
    void directive(const std::string& text) {
        Words w = words_of(text);
        if (w[0] == ".pragma") return;
        if (w[0] == ".reg" && w.size() == 3) {    // .reg .b32 %r<41>
            size_t open = w[2].find('<');
            uint32_t count =
                open == std::string::npos ? 1 : uint32_t(number(w[2].substr(open + 1, w[2].size() - open - 2)));
            char size = size_of_type(w[1]);
            if (size == '?' || ranges.count(w[2].substr(0, open))) wrong("not understood: '%s'", text.c_str());
            ranges[w[2].substr(0, open)] = {size, k.registers, count};
            k.registers += count;
        } else if (w[0] == ".shared" && w.size() == 5 && w[1] == ".align" &&
                   w[3] == ".b8") {    // .shared .align 4 .b8 x[1024]
            size_t align = number(w[2]), open = w[4].find('['), at = (k.static_shared + align - 1) / align * align;
            if (open == std::string::npos || shared_symbols.count("dyn_smem"))
                wrong("not understood: '%s'", text.c_str());
            shared_symbols[w[4].substr(0, open)] = SHARED_BASE + uint32_t(at);
            k.static_shared = at + number(w[4].substr(open + 1, w[4].size() - open - 2));
        } else wrong("unknown directive '%s'", text.c_str());
    }

    // ---- operands
    uint32_t constant(char size, uint64_t value) {
        auto [at, is_new] = constants.insert({{size, value}, k.registers});
        if (is_new) k.constants.push_back({k.registers++, size, value});
        return at->second;
    }
    RegisterRange* range_of(const std::string& text, uint32_t& index) {
        size_t digits = text.find_last_not_of("0123456789") + 1;
        bool numbered = digits < text.size() && ranges.count(text.substr(0, digits));
        auto range = ranges.find(numbered ? text.substr(0, digits) : text);
        index = numbered ? uint32_t(strtoul(text.c_str() + digits, nullptr, 10)) : 0;
        return range == ranges.end() || index >= range->second.count ? nullptr : &range->second;
    }
    bool is_64_bits(const std::string& text) {
        uint32_t index;
        RegisterRange* range = range_of(text, index);
        return range && range->size == 'd';
    }
    // A register of this size, or an immediate as one. `size`: p h w d g.
    uint32_t operand(const std::string& text, char size) {
        if (text.empty()) wrong("an operand is missing");
        if (text[0] == '%') {
            if (special_registers().count(text)) {
                if (size != 'w') wrong("%s is a 32-bit register", text.c_str());
                auto [at, is_new] = specials.insert({text, k.registers});
                if (is_new) k.specials.push_back({k.registers++, special_registers().at(text)});
                return at->second;
            }
            uint32_t index;
            RegisterRange* range = range_of(text, index);
            if (!range) wrong("unknown register %s", text.c_str());
            char is = range->size;
            if (is != size && !(size == 'g' && (is == 'h' || is == 'w')))
                wrong("%s has another size than the instruction's operand", text.c_str());
            return range->first + index;
        }
        if (text == "dyn_smem") {    // behind the kernel's own arrays, whose directives come first
            k.dynamic_begin = (k.static_shared + SHARED_BASE - 1) / SHARED_BASE * SHARED_BASE;
            shared_symbols[text] = SHARED_BASE + uint32_t(k.dynamic_begin);
        }
        if (auto shared = shared_symbols.find(text); shared != shared_symbols.end() && (size == 'w' || size == 'd'))
            return constant(size, shared->second);
        if (starts_with(text, "0f") && text.size() == 10 && size == 'w')
            return constant(size, strtoull(text.c_str() + 2, nullptr, 16));
        if (starts_with(text, "0d") && text.size() == 18 && size == 'd')
            return constant(size, strtoull(text.c_str() + 2, nullptr, 16));
        if (!isdigit(static_cast<unsigned char>(text[0])) && text[0] != '-')
            wrong("unknown operand '%s'", text.c_str());
        uint64_t value = number(text);
        return constant(size == 'g' ? 'h' : size, size == 'w'                  ? uint32_t(value)
                                                  : size == 'h' || size == 'g' ? uint16_t(value)
                                                                               : value);
    }
    // [register + number], [symbol + number] or [number].
    void address(Instruction& i, const std::string& text, char space, int which) {
        if (text.size() < 3 || text.front() != '[' || text.back() != ']')
            wrong("an address is missing: '%s'", text.c_str());
        std::string base = trimmed(text.substr(1, text.size() - 2));
        int64_t offset = 0;
        if (size_t plus = base.find('+'); plus != std::string::npos) {
            offset = int64_t(number(trimmed(base.substr(plus + 1))));
            base = trimmed(base.substr(0, plus));
        }
        if (space == 'P') {
            auto named = std::find_if(k.parameters.begin(), k.parameters.end(),
                                      [&](const Parameter& p) { return p.name == base; });
            if (named == k.parameters.end()) wrong("unknown parameter %s", base.c_str());
            i.offset[which] = int64_t(named->offset) + offset;
            return;
        }
        i.offset[which] = offset;
        i.from[i.from_count++] = operand(base, space == 'A' ? 'd' : 'w');
    }
    static void flatten(Words& all, const std::string& text) {
        if (!text.empty() && text.front() == '{')
            for (const std::string& part : split(text.substr(1, text.size() - 2), ",")) all.push_back(part);
        else
            for (const std::string& part : split(text, "|")) all.push_back(part);
    }

    // ---- instructions: "@!%p1 add.s32 %r1, %r2, 3"
    void instruction(const std::string& text) {
        Instruction i;
        i.line = line;
        std::string rest = text;
        if (rest[0] == '@') {
            size_t blank = rest.find_first_of(" \t\n");
            std::string guard = rest.substr(1, blank - 1);
            i.guarded = true;
            i.negated = guard[0] == '!';
            i.guard = operand(guard.substr(i.negated), 'p');
            rest = trimmed(rest.substr(blank));
        }
        size_t blank = std::min(rest.find_first_of(" \t\n{"), rest.size());
        std::string name = rest.substr(0, blank);
        Words operands;
        const Words parts = split(trimmed(rest.substr(blank)), ",");
        for (const std::string& part : parts) flatten(operands, part);
        if (starts_with(name, "mov.b") && parts.size() == 2 && operands.size() == 3)
            name += parts[0][0] == '{' ? ".unpack" : ".pack";
        // A conversion may take the low half of a wider register, a load fill a wider one.
        if (starts_with(name, "cvt.") && !operands.empty() && is_64_bits(operands.back()) &&
            all_forms().count(name + ".low"))
            name += ".low";
        if (starts_with(name, "ld.") && !operands.empty() && is_64_bits(operands[0]) &&
            all_forms().count(name + ".wide"))
            name += ".wide";
        auto form = all_forms().find(name + "/" + std::to_string(operands.size()));
        if (form == all_forms().end()) form = all_forms().find(name);
        if (form == all_forms().end()) wrong("unknown instruction %s", name.c_str());
        i.name = form->first.c_str();    // lives as long as the table
        i.execute = form->second.execute;
        i.kind = form->second.kind;
        i.uniform = name == "bra.uni";
        bool source = false;
        int addresses = 0;
        size_t next = 0;
        for (char letter : form->second.operands) {
            if (letter == '=') {
                source = true;
                continue;
            }
            if (next == operands.size()) wrong("%s needs more operands", name.c_str());
            const std::string& word = operands[next++];
            if (letter == 'L') branches.push_back({k.code.size(), word});
            else if (letter == 'A' || letter == 'S' || letter == 'P') address(i, word, letter, addresses++);
            else if (source) i.from[i.from_count++] = operand(word, letter);
            else if (word[0] == '%') i.to[i.to_count++] = operand(word, letter);
            else wrong("%s writes to '%s'", name.c_str(), word.c_str());
        }
        if (next != operands.size()) wrong("%s has too many operands", name.c_str());
        k.code.push_back(i);
    }

    void body(const std::string& text) {
        size_t at = 0;
        while (at < text.size()) {
            if (isspace(static_cast<unsigned char>(text[at])) || text[at] == '{' || text[at] == '}' ||
                text[at] == ';') {
                line += text[at++] == '\n';    // braces: scopes, of inline assembly
                continue;
            }
            size_t end = std::min(text.find(';', at), text.size()), colon = text.find(':', at);
            if (colon < end && text.find_first_of(" \t\n", at) > colon) end = colon;
            if (end == text.size()) wrong("no ';' after '%s'", text.substr(at, 40).c_str());
            std::string statement = trimmed(text.substr(at, end - at));
            if (end == colon) {
                if (!labels.insert({statement, uint32_t(k.code.size())}).second)
                    wrong("label %s twice", statement.c_str());
            } else if (statement[0] == '.') directive(statement);
            else instruction(statement);
            line += int(std::count(text.begin() + ptrdiff_t(at), text.begin() + ptrdiff_t(end), '\n'));
            at = end + 1;
        }
        for (auto& [index, label] : branches) {
            auto to = labels.find(label);
            if (to == labels.end()) wrong("unknown label %s", label.c_str());
            k.code[index].target = to->second;
        }
        const bool ends = !k.code.empty() && !k.code.back().guarded &&
                          (k.code.back().kind == Kind::exit || k.code.back().kind == Kind::branch);
        if (!ends) wrong("does not end with ret or a branch");
    }
};

size_t closing(const std::string& text, size_t open) {
    const char opens = text[open], closes = opens == '(' ? ')' : '}';
    int depth = 0;
    for (size_t i = open; i < text.size(); i++) {
        depth += (text[i] == opens) - (text[i] == closes);
        if (depth == 0) return i;
    }
    fail("ptx: '%c' without '%c'", opens, closes);
}
}    // namespace

Module module_of(const std::string& file, const std::string& text) {
    Module m{file, without_comments(text), {}};
    int line = 1;
    size_t counted = 0;
    for (size_t at = m.text.find(".entry"); at != std::string::npos; at = m.text.find(".entry", at)) {
        line += int(std::count(m.text.begin() + ptrdiff_t(counted), m.text.begin() + ptrdiff_t(at), '\n'));
        counted = at;
        size_t open = m.text.find('(', at), end = closing(m.text, m.text.find('{', closing(m.text, open)));
        m.entries.push_back({trimmed(m.text.substr(at + 6, open - at - 6)), at, end + 1, line});
        at = end;
    }
    return m;
}
Module read_module(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    ensure(bool(in), "ptx: cannot read %s", file.c_str());
    return module_of(file, text.str());
}

Kernel parse_kernel(const Module& module, const EntryText& entry) {
    Parser p{module, {}, entry.line, {}, {}, {}, {}, {}, {}};
    p.k.name = entry.name;
    p.k.file = module.file;
    const std::string text = module.text.substr(entry.begin, entry.end - entry.begin);
    size_t open = text.find('('), close = closing(text, open), begin = text.find('{', close);
    for (const std::string& parameter : split(text.substr(open + 1, close - open - 1), ",")) p.parameter(parameter);
    p.header(text.substr(close + 1, begin - close - 1));
    p.line += int(std::count(text.begin(), text.begin() + ptrdiff_t(begin), '\n'));
    p.body(text.substr(begin + 1, text.size() - begin - 2));
    return p.k;
}
}    // namespace ptx
