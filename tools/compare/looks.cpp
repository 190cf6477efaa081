// See looks.h.
#include "tools/compare/looks.h"

#include <algorithm>

static_assert(SEEDS_FOR_VERDICT == LEAST_LOOK);

static bool contains(const std::vector<std::string>& words, const std::string& word) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

std::vector<std::string> undecided_rows(const Comparison& c, const Settings& s) {
    std::vector<std::string> open;
    for (const Section& section : c.sections)
        for (size_t i = 0; i < section.rows.size(); i++) {
            const Row& row = section.rows[i];
            if (!contains(s.matchings, section.matching) || !contains(s.words, row.label) || !contains(s.positions, row.pos)) continue;
            if (!is_decided(section.differences[i]))
                open.push_back(row.label + ", " + row.pos + (section.matching == "layout" ? "" : ", equal " + section.matching));
        }
    return open;
}
