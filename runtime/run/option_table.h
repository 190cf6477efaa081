// The trainer's options as a table: one row each, from which the command line, config.json, --help, range checks and the rules for
// resuming follow (options.cpp). To add an option, add a row to option_table.cpp and a member to struct Options; a variant's own
// options are rows in its file.
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "runtime/run/options.h"

// What an option means for a run that is resumed.
enum class Role {
    curve,       // decides the loss curve: must not change on resume
    harmless,    // may change on resume
    action       // belongs to one invocation: not kept in config.json
};

// A flag or a choice of a variant's own: 0, 1, .. in ModelConfig::own.
struct Own {
    int* value;
    const VariantOption* option;
};

struct Field {
    const char *group, *name, *arg, *help;
    std::variant<int*, int64_t*, uint64_t*, double*, bool*, std::string*, Position*, Own> value;
    Role role;
    double min = 0, max = 0;             // of numbers, inclusive
    std::vector<std::string> choices;    // of words
    bool is_flag() const {
        const Own* own = std::get_if<Own>(&value);
        return std::holds_alternative<bool*>(value) || (own && own->option->kind == VariantOption::flag);
    }
};

// The rows, whose values are members of o.
std::vector<Field> option_table(Options& o);
