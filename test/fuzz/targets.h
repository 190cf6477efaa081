// What the fuzzers run on every input: one function per parser of files that may come from strangers. An input is either refused
// with an Error (one clear line) or accepted, and then what was read must hold together; anything else (another exception, a
// sanitizer's report, an allocation far above the file's size) is a bug. libFuzzer drives them through fuzz_main.cpp;
// test/system/test_fuzz_corpus.cpp replays the committed corpora in `make test`.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sys/mman.h>
#include <unistd.h>

#include "dataloader/dataloader.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "runtime/run/options.h"
#include "runtime/run/safetensors.h"
#include "tokenizer/tokenizer.h"

namespace fuzz {

// The parsers take paths: a file in memory, at /proc/self/fd/N.
struct MemoryFile {
    int fd;
    std::string path;
    MemoryFile(const uint8_t* data, size_t size) : fd(memfd_create("fuzz", MFD_CLOEXEC)), path(format("/proc/self/fd/%d", fd)) {
        if (fd < 0 || write(fd, data, size) != ssize_t(size)) abort();
    }
    ~MemoryFile() { close(fd); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
};

// For the parsers that want a name of their own; in memory where that is possible.
inline std::string scratch_path() {
    return format("%s/qv-fuzz-%d", std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp", int(getpid()));
}

// Not `ensure`: an Error is the right answer to a bad input, a broken promise is not.
inline void promise(bool kept, const char* what) {
    if (kept) return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

// Each returns whether the input was accepted.

// Accepted: the tensors fill the data without a gap, every one can be read, and writing them again gives the same tensors.
inline bool safetensors(const uint8_t* data, size_t size) {
    MemoryFile file(data, size);
    SafetensorsFile f;
    try {
        f = safetensors_open(file.path);
    } catch (const Error&) {
        return false;
    }
    promise(f.file_bytes == size && f.data_start <= size, "sizes");
    uint64_t at = 0;
    std::vector<TensorToWrite> again;
    for (const TensorInfo& t : f.tensors) {
        promise(t.begin == at && t.end >= t.begin, "tensors touch");
        at = t.end;
        std::vector<char> bytes(t.end - t.begin);
        safetensors_read(f, t, bytes.data());
        again.push_back({t.name, t.dtype, t.shape, [bytes](uint64_t offset, size_t n, void* out) {
                             std::copy_n(bytes.data() + offset, n, static_cast<char*>(out));
                         }});
    }
    promise(f.data_start + at == size, "tensors end where the file ends");
    MemoryFile copy(nullptr, 0);
    safetensors_write(copy.path, again, f.metadata);
    const SafetensorsFile g = safetensors_open(copy.path);
    promise(g.tensors.size() == f.tensors.size() && g.metadata == f.metadata, "written again: as many tensors, the same metadata");
    for (const TensorInfo& t : f.tensors) {
        const TensorInfo* u = g.find(t.name);
        promise(u && u->dtype == t.dtype && u->shape == t.shape && u->end - u->begin == t.end - t.begin, "written again: the same tensors");
    }
    return true;
}

// Accepted: whatever text it encodes comes back, and the tokenizer written and read again is the same one.
inline bool tokenizer_json(const uint8_t* data, size_t size) {
    MemoryFile file(data, size);
    Tokenizer t;
    try {
        t = tokenizer_load(file.path);
    } catch (const Error&) {
        return false;
    }
    std::string text = "It's  12 caf\xc3\xa9\n\n <|endoftext|>\xff\x00\xf0\x9f\x99\x82";
    text.append(reinterpret_cast<const char*>(data) + size / 2, std::min<size_t>(size / 2, 64));
    for (bool special : {false, true}) {
        const std::vector<uint32_t> ids = tokenizer_encode(t, text, special, 1);
        promise(tokenizer_decode(t, ids.data(), ids.size()) == text, "decode(encode(text)) is text");
    }
    static const std::string saved = scratch_path() + ".json";
    tokenizer_save(t, saved);
    const Tokenizer u = tokenizer_load(saved);
    unlink(saved.c_str());
    promise(tokenizer_fingerprint(u) == tokenizer_fingerprint(t), "saved and loaded is the same tokenizer");
    return true;
}

// The first byte chooses context and vocabulary, the rest is the shard. Accepted: every token of every sample is in the vocabulary.
inline bool shard(const uint8_t* data, size_t size) {
    if (size == 0) return false;
    const size_t T = 1 + data[0] % 8, vocab = size_t(1) << (data[0] / 8);
    static const struct Folder {
        std::string path = scratch_path();
        Folder() { std::filesystem::create_directory(path); }
        ~Folder() { std::error_code ignored; std::filesystem::remove_all(path, ignored); }
    } folder;
    FILE* f = fopen((folder.path + "/train.bin").c_str(), "wb");
    if (!f || fwrite(data + 1, 1, size - 1, f) != size - 1 || fclose(f) != 0) abort();
    Dataset d;
    try {
        d = dataset_open(folder.path, "train", T, vocab);
    } catch (const Error&) {
        return false;
    }
    std::vector<int> inputs(T), targets(T);
    for (size_t i = 0; i < d.samples; i++) {
        dataset_batch(d, 1, i, 1, inputs.data(), targets.data());
        for (size_t t = 0; t < T; t++)
            promise(inputs[t] >= 0 && size_t(inputs[t]) < vocab && size_t(targets[t]) < vocab,
                    "tokens are in the vocabulary");
    }
    promise(d.samples <= size && shard_read_all(d.shards[0]).size() == d.tokens, "as many tokens as the header says");
    return true;
}

// Accepted: the options written and read again are the same, and a run with them is no conflict with itself.
inline bool config(const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    static const VariantOptions own = {own_number("qvka-dctx", 1 << 17, ""), own_flag("qvka-tied", ""),
                                       own_choice("qv-rope", {"key", "vo"}, "")};
    Options o, again;
    o.program = again.program = {.attn = "qv", .own = own, .variants = "qkv mla qv"};
    try {
        options_from_json(o, text, "fuzz");
    } catch (const Error&) {
        return false;
    }
    const std::string written = options_to_json(o);
    options_from_json(again, written, "written");
    promise(options_to_json(again) == written, "written and read again");
    try {
        batch_plan(o);
    } catch (const Error&) {
        return true;                 // a batch that does not divide is found when the run starts
    }
    promise(options_conflicts(written, o).empty(), "no conflict with itself");
    return true;
}

struct Target {
    const char* name;                // also its folder in test/fuzz/corpus
    bool (*run)(const uint8_t*, size_t);
};
inline constexpr Target TARGETS[] = {{"safetensors", safetensors}, {"tokenizer", tokenizer_json}, {"shard", shard}, {"config", config}};

}  // namespace fuzz
