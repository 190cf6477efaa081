// One run as the report sees it: read from the folder that the trainer wrote (config.json, metrics.jsonl, samples.txt,
// val_sequences.f32), whole or as the small record kept of it (record.h), which is a folder of the same kind. A field that is missing or
// null is NaN and is shown as "-"; nothing that a run's files hold makes the report crash. Problems are collected as sentences, to be
// shown with the tables.
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/run/error.h"
#include "tools/report/stats.h"

using Problems = std::vector<std::string>;

struct Run {
    std::string name, dir, attn = "-", pos = "-", cpu, threads, commit, compiler, backend, precision;
    std::string fingerprint;               // "train 0a.., val 1b.., tokenizer 2c.."; empty: the run does not say
    std::string train_fingerprint, sample;
    std::string row;                       // its name in the comparison's plan; empty: the run was not planned there
    nlohmann::json config = nlohmann::json::object(), options = nlohmann::json::object();
    std::map<std::string, std::string> identity;   // every option that can change the curve, but seed and position: what tells rows apart
    int64_t seed = -1, steps = -1, last_step = -1;
    double parameters = NOT_MEASURED, parameters_non_embedding = NOT_MEASURED, cache_bytes_per_token = NOT_MEASURED;
    double flops_per_token = NOT_MEASURED, vocab_size = NOT_MEASURED, train_tokens = NOT_MEASURED, val_tokens = NOT_MEASURED;
    double tokens_per_second = NOT_MEASURED, seconds = NOT_MEASURED, bits_per_byte = NOT_MEASURED, unigram = NOT_MEASURED;
    Curve train, val;                      // train: thinned
    std::vector<double> accuracies;        // of a probe (masked targets), at each validation; else NaN
    std::vector<double> sequences;         // mean nats per token of each validation sequence at the end, in order
    std::vector<double> positions;         // mean nats at each position of the context at the end
    bool finished() const { return !val.loss.empty() && (steps < 0 || last_step >= steps); }
    double val_loss() const { return val.loss.empty() ? NOT_MEASURED : val.loss.back(); }
    std::string data_key() const;          // runs are ranked against each other only when these agree
};

// Lenient access: the value at `key` as a number or text, whatever else is there.
double number_at(const nlohmann::json& j, const char* key);
std::string text_at(const nlohmann::json& j, const char* key);
nlohmann::json object_at(const nlohmann::json& j, const char* key);
int64_t integer_at(const nlohmann::json& j, const char* key);
std::string read_text(const std::string& path);       // "" when it is not a regular file; at most 1 GiB
nlohmann::json read_json(const std::string& path);    // discarded when it is no JSON

void read_config(Run& run, const nlohmann::json& config);
bool is_run_folder(const std::string& dir);
Run read_run_folder(const std::string& dir, Problems& problems);
std::vector<double> read_floats(const std::string& path);        // little-endian float32

// Validation loss of add-one smoothed unigram frequencies, on the very targets that the run was validated on. Reads the token shards.
double unigram_baseline(const Run& run);
