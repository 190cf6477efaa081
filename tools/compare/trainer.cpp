// See trainer.h.
#include "tools/compare/trainer.h"

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/run/error.h"
#include "tools/compare/process.h"

std::vector<OwnOption> trainer_options(const Settings& s, const std::string& variant) {
    static std::map<std::string, std::vector<OwnOption>> known;
    auto it = known.find(variant);
    if (it != known.end()) return it->second;
    const Answer answer = process_ask({s.trainer(variant), "--help"});
    ensure(answer.code == 0, "%s --help failed: %s", s.trainer(variant).c_str(), answer.err.c_str());
    std::vector<OwnOption> list;
    std::istringstream lines(answer.out);
    for (std::string line; std::getline(lines, line);) {
        // "Attention --mla-dc         N     latent width; ...": name and argument stand in columns; a flag's argument column is empty
        const size_t begin = line.find("--");
        if (begin == std::string::npos || begin > 12) continue;
        const size_t end = std::min(line.find(' ', begin), line.size()), argument = std::max(end + 1, begin + 17);
        if (argument >= line.size()) continue;
        const std::string word = line[argument] == ' ' ? "" : line.substr(argument, line.find(' ', argument) - argument);
        list.push_back({line.substr(begin, end - begin), word, line.substr(std::min(line.size(), argument + word.size()))});
    }
    return known[variant] = list;
}

// The variant's prefix of its own options: qv_ka -> --qvka-
static std::string own_prefix(const std::string& variant) {
    std::string prefix = "--";
    for (char c : variant)
        if (c != '_') prefix += c;
    return prefix + "-";
}

static void add_option(RowSpec& row, const Settings& s, const std::string& piece) {
    const std::vector<OwnOption> options = trainer_options(s, row.variant);
    const std::string prefix = own_prefix(row.variant), key = piece.substr(0, piece.find('='));
    std::string own_names;
    for (const OwnOption& o : options)
        if (o.name.starts_with(prefix)) own_names += (own_names.empty() ? "" : ", ") + o.name.substr(prefix.size());
    auto find = [&](const std::string& name) -> const OwnOption* {
        for (const OwnOption& o : options)
            if (o.name == name) return &o;
        return nullptr;
    };
    const OwnOption* own = find(prefix + key);
    if (key != piece) {                                          // NAME=VALUE
        if (!own) own = find("--" + key);
        ensure_usage(own, "VARIANTS: %s has no option %s (its own: %s)", row.variant.c_str(), key.c_str(),
                     own_names.empty() ? "none" : own_names.c_str());
        row.options.push_back(own->name);
        row.options.push_back(piece.substr(key.size() + 1));
        return;
    }
    if (own && own->argument.empty()) {                          // a flag
        row.options.push_back(own->name);
        return;
    }
    for (const OwnOption& o : options) {                         // a name: the value of the one option that takes names
        if (!o.name.starts_with(prefix) || o.argument.empty() || o.argument == "N" || o.argument == "X") continue;
        row.options.push_back(o.name);
        row.options.push_back(key);
        return;
    }
    fail_usage("VARIANTS: %s has neither a flag nor a choice '%s' (its own options: %s)", row.variant.c_str(), key.c_str(),
               own_names.empty() ? "none" : own_names.c_str());
}

RowSpec read_row(const Settings& s, const std::string& word) {
    RowSpec row{word, word.substr(0, word.find(':')), {}};
    const char* general = getenv(("OPTIONS_" + row.variant).c_str());
    if (general) row.options = split_words(general);
    if (row.variant.size() == word.size()) return row;
    std::istringstream pieces(word.substr(row.variant.size() + 1));
    for (std::string piece; std::getline(pieces, piece, ',');)
        if (!piece.empty()) add_option(row, s, piece);
    return row;
}

bool ask_numbers(const std::vector<std::string>& command, Numbers& numbers, std::string& error) {
    std::vector<std::string> question = command;
    question.push_back("--dry-run");
    const Answer answer = process_ask(question);
    if (answer.code != 0) {
        error = answer.err.empty() ? format("exit code %d", answer.code) : answer.err.substr(0, answer.err.find('\n'));
        return false;
    }
    std::istringstream lines(answer.out);
    bool found = false;
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with("numbers ")) continue;
        const nlohmann::json j = nlohmann::json::parse(line.substr(8), nullptr, false);
        if (!j.is_object()) continue;
        auto take = [&](const char* key, auto& to) {
            if (j.contains(key) && j[key].is_number()) to = j[key];
        };
        found = true;
        take("parameters", numbers.parameters);
        take("parameters_non_embedding", numbers.parameters_non_embedding);
        take("cache_bytes_per_token", numbers.cache_bytes_per_token);
        take("memory_bytes", numbers.memory_bytes);
        take("flops_per_token", numbers.flops_per_token);
        take("step_seconds", numbers.step_seconds);
    }
    error = found ? "" : "--dry-run prints no line of numbers: build the trainers again";
    return found;
}
