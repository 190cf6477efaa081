// The text of a run: both splits and the tokenizer that made them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "dataloader/dataloader.h"
#include "tokenizer/tokenizer.h"

struct DataChoice {
    std::string dir;                     // train*.bin, val*.bin, tokenizer.json
    std::string tokenizer;               // "": DIR/tokenizer.json
    int context = 0;                     // T: tokens of a sample
    int64_t val_tokens = 0;              // validate on this many, spread evenly; 0: all
};

struct Data {
    Dataset train, val;
    Tokenizer tokenizer;
    std::vector<float> token_bytes;      // bytes of text that each token stands for, for bits per byte
    int64_t val_samples = 0;             // the same in every run, spread evenly over the split
    std::string note;                    // what could not be checked, in one line; "" if everything was
};

// The i-th of val_samples, as a sample of the split.
inline size_t validation_sample(const Data& d, int64_t i) { return size_t(i * int64_t(d.val.samples) / d.val_samples); }

// Fails, naming the file, if something is missing or does not belong together.
Data data_open(const DataChoice& choice);
