// Command lines of the tools: a table of options like the trainer's, and words that are not options (files, folders).
//   std::vector<Argument> table = {{"tokens", "N", "tokens to write", &o.tokens, 0, 1e9}, ...};
//   arguments_parse(table, "generate-qv RUN [options]    writes text", argc, argv, words)
// An unknown option, or a missing or wrong value, is one line with the nearest option, and exit code 2. --help prints the table.
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

struct Argument {
    const char *name, *arg, *help;               // arg "": a switch
    std::variant<int*, int64_t*, uint64_t*, double*, bool*, std::string*> value;
    double min = 0, max = 0;                     // of numbers, inclusive
};

// False after --help. given: names of the options that the command line has.
bool arguments_parse(const std::vector<Argument>& table, const std::string& usage, int argc, char** argv, std::vector<std::string>& words,
                     std::vector<std::string>* given = nullptr);
