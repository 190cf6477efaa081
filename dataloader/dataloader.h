// Token shards -> batches of (B, T) inputs and targets, in an order that is a pure function of (seed, samples consumed).
// A sample is T+1 consecutive tokens: inputs are the first T, targets the last T. The shards of a split, in the order of their
// names, form one token stream; sample i covers tokens [i*T, i*T + T] of it (neighbours share one token), a sample never
// crosses from one shard into the next. Every epoch visits each sample once, in a fresh order drawn from (seed, epoch).
// Thus micro-batch size, accumulation and number of processes do not change which samples a step sees, nor their order.
//
// Shard format (llm.c): a header of 256 int32: magic 20240520, version 1, count, zeros; then uint16 tokens. The 32-bit
// form, for vocabularies above 65536, has magic 20240801, version 7, uint32 tokens. Files above 2 GiB work (pread, 64-bit
// offsets; a count above 2^31-1 keeps its upper half in header[3]). header[4..7], which llm.c does not use, hold the
// fingerprint of the tokenizer that made the tokens; they are zero in other programs' shards.
// Masks: NAME.mask beside NAME.bin holds one byte for each token, 1 if the token counts as a target, 0 if not: its target
// is then -1, which the losses leave out. A split has masks for all its shards or for none. (Used by the probes of recall
// and copying, tools/probe_data.cpp.)
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct Shard {
    std::string path;
    int fd = -1;
    size_t count = 0;         // tokens
    int bytes_per_token = 2;
    std::string tokenizer;    // its fingerprint, 32 hexadecimal digits; "": the shard does not say
    int mask_fd = -1;         // of the mask, where there is one
};

struct Dataset {              // one split
    std::vector<Shard> shards;
    std::vector<size_t> first_sample;   // per shard, plus the total at the end
    size_t T = 0, samples = 0, tokens = 0;
    size_t of_unknown_tokenizer = 0;    // shards that do not say which tokenizer made them
    double counted_share = 1; // of the samples' targets; below 1 with masks
    bool masked = false;
    std::string fingerprint;  // XXH3-128 over names, sizes and all tokens (they are read once anyway, for the check)
    Dataset() = default;
    Dataset(Dataset&&) noexcept;
    Dataset& operator=(Dataset&&) noexcept;
    ~Dataset();
};

// Opens DIR/<split>*.bin (split "train" or "val") and checks every header, and every token against `vocab`; an error names
// file and offset. T: context. Refuses a split with no whole sample (T+1 tokens), and a shard made by another tokenizer than
// the one with this fingerprint ("": not compared).
Dataset dataset_open(const std::string& dir, const std::string& split, size_t T, size_t vocab, const std::string& tokenizer = "");

// Index of the sample at position `consumed` of the endless shuffled sequence.
size_t dataset_shuffled(const Dataset&, uint64_t seed, uint64_t consumed);
// Reads sample `index` into inputs[T], targets[T].
void dataset_read(const Dataset&, size_t index, int* inputs, int* targets);
// B samples from position `consumed` on, shuffled: inputs, targets (B, T).
void dataset_batch(const Dataset&, uint64_t seed, uint64_t consumed, size_t B, int* inputs, int* targets);

// Writing: first to path.tmp, which is then renamed. 16-bit when vocab <= 65536, else 32-bit.
// tokenizer: its fingerprint, "": unknown.
void shard_write(const std::string& path, const uint32_t* tokens, size_t count, size_t vocab, const std::string& tokenizer = "");
void ensure_tokenizer(const Shard&, const std::string& tokenizer);      // fails if the shard says that another one made it
std::vector<uint32_t> shard_read_all(const Shard&);
Shard shard_open(const std::string& path);    // header checked against the file's size
