// What a run is: config.json, repeated in every checkpoint. A resumed run, and every rank, compares it to check that it is
// the same experiment.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/run/options.h"

struct RunFacts {
    size_t parameters = 0, parameters_non_embedding = 0;
    size_t cache_bytes_per_token = 0;
    double flops_per_token = 0, flops_per_token_causal = 0;  // forward and backward, all T keys counted; the causal half
    std::vector<std::pair<std::string, int>> sizes;          // as resolved: vocab_size, kv_heads, the variant's own, ...
    std::string backend, precision;
    std::string cpu;
    int threads = 0, ranks = 1;
    std::string communication;
    uint64_t train_tokens = 0, val_tokens = 0;
    std::string train_fingerprint, val_fingerprint, tokenizer_fingerprint;
};

// JSON text: {"attn", "norm", "mlp", "options", "model", "build", "machine", "data"}.
std::string describe_run(const RunFacts& facts, const Options& o);

// The fingerprint of the tokenizer that the run was trained with; "" if it does not say. `where` names the description.
std::string tokenizer_described(const std::string& description, const std::string& where);

// Refuses, with exit code 2, to continue a run that differs in anything that decides its curve; `where` names it. done: see
// options_conflicts.
void check_same_run(const std::string& old_description, const std::string& now, const Options& o, int ranks,
                    const std::string& where, int64_t done = -1);
// Refuses when this rank's description differs from rank 0's (machine, commit and compiler may).
void check_same_as_rank_0(const std::string& rank_0, const std::string& mine);
// A line for each difference that may change rounding only: commit, compiler, processor, number of ranks.
std::vector<std::string> rounding_notes(const std::string& old_description, const std::string& now, const Options& o);
