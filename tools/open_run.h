// A finished (or running) run, opened to be used: its options, its newest whole checkpoint, its tokenizer. Nothing is written.
// Every mismatch is one line: no such folder, no checkpoint, another variant's run, a tokenizer that the run was not trained with.
#pragma once
#include <string>

#include "runtime/run/options.h"
#include "tokenizer/tokenizer.h"

struct OpenedRun {
    std::string dir;                 // the run's folder
    std::string checkpoint;          // the checkpoint's folder
    std::string attention;           // the variant that it was trained with
    std::string description_json;    // what config.json says
    int64_t step = 0;
    Options options;                 // options.model.V is the tokenizer's
    std::string tokenizer_path;
    Tokenizer tokenizer;
};

// path: a run's folder, its name under runs/, or one checkpoint's folder. tokenizer: "" for the run's own.
// built: the variant that this program is built with; built.attn "": any; program: "generate", for the advice when they differ.
OpenedRun open_run(const std::string& path, const std::string& tokenizer, const Program& built, const char* program);
