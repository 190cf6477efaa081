// What a trainer says of itself before it trains: its own options (--help), its exact sizes and costs (--dry-run).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tools/compare/settings.h"

struct OwnOption { std::string name, argument, help; };          // "--mla-dc", "N" ("" for a flag), the rest of its line
std::vector<OwnOption> trainer_options(const Settings& s, const std::string& variant);

// "qv", "qv:vo", "mla:dc=64,dr=16" -> a row. A word alone is one of the variant's flags (qv_ka:tied) or the value of its option that
// takes names (qv:vo); NAME=VALUE is --VARIANT-NAME (mla:dc=64), else --NAME (gqa:kv-heads=1). OPTIONS_mla="--mla-dc 64" adds to every
// row of mla.
RowSpec read_row(const Settings& s, const std::string& word);

// The numbers of --dry-run: exact counts of the model, and with a probe the seconds of a step.
struct Numbers {
    int64_t parameters = 0, parameters_non_embedding = 0, cache_bytes_per_token = 0, memory_bytes = 0;
    double flops_per_token = 0, step_seconds = 0;
};
// False when the trainer refuses; its message is in `error`.
bool ask_numbers(const std::vector<std::string>& command, Numbers& numbers, std::string& error);
