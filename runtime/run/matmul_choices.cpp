// A run's file of matrix algorithms. See matmul_choices.h.
#include "runtime/run/matmul_choices.h"

#include <cinttypes>
#include <sstream>

#include "runtime/run/error.h"
#include "runtime/run/files.h"

namespace {
constexpr const char* FIRST_LINE = "qv.cu matmul choices 1";
constexpr uint64_t MAX_BYTES = 16 << 20;

std::string text_of(const MatmulChoices& c) {
    std::string text = format("%s\n%s\n", FIRST_LINE, c.library.c_str());
    for (const auto& [key, algorithm] : c.algorithm) {
        for (size_t part : key) text += format("%zu ", part);
        text += ":";
        for (uint64_t word : algorithm) text += format(" %" PRIx64, word);
        text += "\n";
    }
    return text;
}

// One line of the table; false where it is not one.
bool read_line(const std::string& line, MatmulKey& key, MatmulAlgorithm& algorithm) {
    std::istringstream in(line);
    for (size_t& part : key) in >> part;
    std::string colon, rest;
    in >> colon >> std::hex;
    for (uint64_t& word : algorithm) in >> word;
    return in && colon == ":" && !(in >> rest);
}
}  // namespace

std::string matmul_choices_open(MatmulChoices& c, const std::string& path, const std::string& library) {
    c = {path, library, {}};
    if (!file_exists(path)) return "";
    std::istringstream in(file_read(path, MAX_BYTES));
    std::string line;
    if (!std::getline(in, line) || line != FIRST_LINE)
        return format("%s: not a file of matrix algorithms; they are chosen again, and the last bits of this run may change", path.c_str());
    if (!std::getline(in, line) || line != library)
        return format(
            "%s: its algorithms are for \"%s\", here is \"%s\"; they are chosen again, and the last bits of this run change",
            path.c_str(), line.c_str(), library.c_str());
    MatmulKey key;
    MatmulAlgorithm algorithm;
    while (std::getline(in, line)) {
        if (!read_line(line, key, algorithm)) {
            c.algorithm.clear();
            return format(
                "%s: a line that is none: \"%.60s\"; the algorithms are chosen again, and the last bits of this run may change",
                path.c_str(), line.c_str());
        }
        c.algorithm[key] = algorithm;
    }
    return "";
}

void matmul_choices_add(MatmulChoices& c, const MatmulKey& key, const MatmulAlgorithm& algorithm) {
    c.algorithm[key] = algorithm;
    if (!c.path.empty()) file_replace(c.path, text_of(c));
}
