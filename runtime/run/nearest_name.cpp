// "did you mean --layers?": the nearest of some names; see options.h.
#include <algorithm>

#include "runtime/run/options.h"

std::string nearest_name(const std::string& wrong, const std::vector<std::string>& names) {
    if (wrong.size() > 64) return "";
    std::string best;
    size_t best_distance = 2 + wrong.size() / 4;         // farther than this is no suggestion
    for (const std::string& name : names) {
        // Levenshtein distance, one row at a time: row[j] = distance of wrong[0, i) to name[0, j).
        std::vector<size_t> row(name.size() + 1);
        for (size_t j = 0; j <= name.size(); j++) row[j] = j;
        for (size_t i = 1; i <= wrong.size(); i++) {
            size_t diagonal = row[0];
            row[0] = i;
            for (size_t j = 1; j <= name.size(); j++) {
                size_t substitute = diagonal + (wrong[i - 1] != name[j - 1]);
                diagonal = row[j];
                row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
            }
        }
        if (row.back() < best_distance) best_distance = row.back(), best = name;
    }
    return best;
}
