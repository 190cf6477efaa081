// Text files -> token shards: DIR/train_000000.bin ..., DIR/val_000000.bin ..., DIR/tokenizer.json. What `tokenizer encode` does.
// A file is one document, or several with a separator between them (the separator is part of none; empty documents are
// dropped). Every document ends with <|endoftext|> when the tokenizer has it. Files are read whole, one at a time.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

enum class Split {
    // the end of the text is for validation: its last `val_fraction` of bytes, moved on to the next word, or
    // `val_tokens` tokens
    tail,
    document     // whole documents; the choice is a pure function of the document's content, so copies are on the same side
};

struct EncodeFiles {
    std::string tokenizer, out;              // tokenizer file or folder; output folder
    std::vector<std::string> files;          // "-": standard input
    Split split = Split::tail;
    double val_fraction = 0.1;
    int64_t val_tokens = -1;                 // -1: by val_fraction
    std::string separator;                   // "": a file is one document
    int64_t shard_tokens = 100'000'000;      // at most, per shard
    bool overwrite = false;                  // replace the shards and the tokenizer.json that are in `out`
    int threads = 0;
};

struct EncodeCounts { size_t bytes = 0, documents = 0, train_tokens = 0, val_tokens = 0; };

// Everything is written into DIR/partial.tmp first, so a failure up to then changes nothing. Then the old output is removed
// and the new one moved in, tokenizer.json last: if the program is killed at that moment, DIR has no tokenizer.json (unless
// the tokenizer in use was there).
EncodeCounts encode_files(const EncodeFiles& job);

std::string text_read(const std::string& file);      // a file, or standard input for "-", whole

bool is_validation_document(std::string_view document, double val_fraction);
