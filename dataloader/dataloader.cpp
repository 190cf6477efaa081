// Token shards, their checks, and the order of samples; see dataloader.h. Not for text: the tokenizer comes before.
#include "dataloader/dataloader.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "runtime/device/rng.h"

namespace fs = std::filesystem;

static constexpr size_t HEADER_BYTES = 256 * sizeof(int32_t);
static constexpr int32_t MAGIC_16 = 20240520, VERSION_16 = 1;
static constexpr int32_t MAGIC_32 = 20240801, VERSION_32 = 7;
static constexpr size_t CHUNK_BYTES = 512 << 10;     // read, checked and hashed while it is in cache; part of the fingerprint

// ---- one shard

static constexpr int FINGERPRINT_AT = 4, FINGERPRINT_INTS = 4;       // in the header: 128 bits

static std::string stored_fingerprint(const int32_t* header) {
    std::string hex;
    for (int i = 0; i < FINGERPRINT_INTS; i++) hex += format("%08x", uint32_t(header[FINGERPRINT_AT + i]));
    return hex == std::string(8 * FINGERPRINT_INTS, '0') ? "" : hex;
}
static void store_fingerprint(int32_t* header, const std::string& hex) {
    ensure(hex.empty() || hex.size() == 8 * FINGERPRINT_INTS, "shard: '%s' is no fingerprint of a tokenizer", printable(hex).c_str());
    for (int i = 0; i < FINGERPRINT_INTS && !hex.empty(); i++)
        header[FINGERPRINT_AT + i] = int32_t(uint32_t(std::stoul(hex.substr(size_t(8 * i), 8), nullptr, 16)));
}

void ensure_tokenizer(const Shard& s, const std::string& tokenizer) {
    ensure(tokenizer.empty() || s.tokenizer.empty() || s.tokenizer == tokenizer,
           "%s: was encoded with another tokenizer (fingerprint %s) than the one given (%s); "
           "encode the text again, or give the tokenizer.json that made it",
           s.path.c_str(), s.tokenizer.c_str(), tokenizer.c_str());
}

Shard shard_open(const std::string& path) {
    Shard s;
    s.path = path;
    s.fd = open_to_read(path);
    try {
        const uint64_t bytes = file_size(s.fd, path);
        ensure(bytes >= HEADER_BYTES, "%s: %llu bytes, too short for the header of a token shard (%zu bytes); write it again", path.c_str(),
               (unsigned long long)bytes, HEADER_BYTES);
        int32_t header[256];
        pread_fully(s.fd, header, HEADER_BYTES, 0, path);
        ensure(header[0] == MAGIC_16 || header[0] == MAGIC_32, "%s: magic number %d at byte 0 is neither %d nor %d; not a token shard",
               path.c_str(), header[0], MAGIC_16, MAGIC_32);
        const int32_t version = header[0] == MAGIC_16 ? VERSION_16 : VERSION_32;
        ensure(header[1] == version, "%s: version %d at byte 4, expected %d", path.c_str(), header[1], version);
        s.bytes_per_token = header[0] == MAGIC_16 ? 2 : 4;
        const uint64_t count = uint64_t(uint32_t(header[3])) << 32 | uint32_t(header[2]);
        const uint64_t payload = bytes - HEADER_BYTES;
        ensure(payload % s.bytes_per_token == 0, "%s: %llu bytes after the header are not a whole number of %d-byte tokens; truncated?",
               path.c_str(), (unsigned long long)payload, s.bytes_per_token);
        ensure(count == payload / s.bytes_per_token,
               "%s: the header (byte 8) says %llu tokens, the file holds %llu; truncated?", path.c_str(),
               (unsigned long long)count, (unsigned long long)(payload / s.bytes_per_token));
        ensure(count > 0, "%s: holds no tokens; remove it", path.c_str());
        s.count = count;
        s.tokenizer = stored_fingerprint(header);
    } catch (...) {
        close(s.fd);
        throw;
    }
    return s;
}

// The mask beside a shard, if there is one.
static void open_mask(Shard& s) {
    const std::string path = s.path.substr(0, s.path.size() - 4) + ".mask";
    s.mask_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (s.mask_fd < 0) return;
    const uint64_t bytes = file_size(s.mask_fd, path);
    ensure(bytes == s.count, "%s: %llu bytes for %zu tokens; a mask has one byte for each token", path.c_str(),
           (unsigned long long)bytes, s.count);
}

// How many of the targets 1 .. n of a shard count; adds the mask to the fingerprint.
static size_t count_targets(const Shard& s, size_t n, Hasher& fingerprint) {
    std::vector<unsigned char> bytes(std::min(CHUNK_BYTES, s.count));
    size_t counted = 0;
    for (size_t first = 0; first < s.count; first += bytes.size()) {
        const size_t got = std::min(bytes.size(), s.count - first);
        pread_fully(s.mask_fd, bytes.data(), got, first, s.path);
        fingerprint.add(bytes.data(), got);
        for (size_t i = 0; i < got; i++) {
            ensure(bytes[i] <= 1, "%s: its mask holds %d at byte %zu; only 0 and 1 are allowed", s.path.c_str(), bytes[i], first + i);
            counted += first + i >= 1 && first + i <= n ? bytes[i] : 0;
        }
    }
    return counted;
}

// Tokens [first, first + count) of a shard, widened. Id is int (for the model) or uint32_t.
template <class Id> static void shard_read(const Shard& s, size_t first, size_t count, Id* out) {
    const uint64_t offset = HEADER_BYTES + uint64_t(first) * s.bytes_per_token;
    if (s.bytes_per_token == 4) {
        pread_fully(s.fd, out, count * 4, offset, s.path);
        return;
    }
    // The 16-bit tokens go into the upper half of `out` and are widened from the front: token i is read at byte 2*count + 2*i,
    // never before the 4*i + 4 bytes already written reach it, except in the same step, after it was read.
    char* bytes = reinterpret_cast<char*>(out);
    pread_fully(s.fd, bytes + count * 2, count * 2, offset, s.path);
    for (size_t i = 0; i < count; i++) {
        uint16_t token;
        memcpy(&token, bytes + count * 2 + i * 2, 2);
        out[i] = token;
    }
}

std::vector<uint32_t> shard_read_all(const Shard& s) {
    std::vector<uint32_t> tokens(s.count);
    shard_read(s, 0, s.count, tokens.data());
    return tokens;
}

void shard_write(const std::string& path, const uint32_t* tokens, size_t count, size_t vocab, const std::string& tokenizer) {
    ensure(count > 0, "%s: there are no tokens to write", path.c_str());
    for (size_t i = 0; i < count; i++)
        ensure(tokens[i] < vocab, "%s: token %u at position %zu is outside the vocabulary of %zu", path.c_str(), tokens[i], i, vocab);
    const bool wide = vocab > 65536;
    int32_t header[256] = {wide ? MAGIC_32 : MAGIC_16, wide ? VERSION_32 : VERSION_16};
    header[2] = int32_t(uint32_t(count));
    header[3] = int32_t(uint32_t(uint64_t(count) >> 32));
    store_fingerprint(header, tokenizer);
    const std::string tmp = path + ".tmp";
    FileWriter w(tmp);
    w.write(header, HEADER_BYTES);
    if (wide) {
        w.write(tokens, count * 4);
    } else {
        std::vector<uint16_t> narrow;
        for (size_t i = 0; i < count; i += narrow.size()) {
            narrow.assign(tokens + i, tokens + std::min(count, i + CHUNK_BYTES / 2));      // each fits: checked above
            w.write(narrow.data(), narrow.size() * 2);
        }
    }
    w.finish();
    rename_durably(tmp, path);
}

// ---- a split

Dataset::Dataset(Dataset&& other) noexcept { *this = std::move(other); }

Dataset& Dataset::operator=(Dataset&& other) noexcept {
    std::swap(shards, other.shards);          // the other one closes what this one held
    std::swap(first_sample, other.first_sample);
    std::swap(fingerprint, other.fingerprint);
    T = other.T, samples = other.samples, tokens = other.tokens, of_unknown_tokenizer = other.of_unknown_tokenizer;
    counted_share = other.counted_share, masked = other.masked;
    return *this;
}

Dataset::~Dataset() {
    for (Shard& s : shards)
        for (int fd : {s.fd, s.mask_fd})
            if (fd >= 0) close(fd);
}

template <class Token> static size_t first_outside(const Token* tokens, size_t count, size_t vocab) {
    Token largest = 0;                        // a maximum first: it vectorizes, and nearly always there is nothing to find
    for (size_t i = 0; i < count; i++) largest = std::max(largest, tokens[i]);
    if (largest < vocab) return count;
    return size_t(std::find_if(tokens, tokens + count, [&](Token t) { return t >= vocab; }) - tokens);
}

// Reads the whole shard once, in parallel: checks every token against the vocabulary and returns a hash of the content,
// made of the hashes of its chunks so that it does not depend on the number of threads.
static std::string check_and_hash(const Shard& s, size_t vocab) {
    const size_t per_chunk = CHUNK_BYTES / s.bytes_per_token, chunks = (s.count + per_chunk - 1) / per_chunk;
    std::vector<std::string> hashes(chunks), errors(chunks);
    #pragma omp parallel
    {
        std::vector<char> bytes(std::min(CHUNK_BYTES, s.count * s.bytes_per_token));
        #pragma omp for schedule(dynamic)
        for (size_t c = 0; c < chunks; c++) {
            const size_t first = c * per_chunk, count = std::min(per_chunk, s.count - first);
            const uint64_t offset = HEADER_BYTES + uint64_t(first) * s.bytes_per_token;
            try {                             // no exception may leave an OpenMP region
                pread_fully(s.fd, bytes.data(), count * s.bytes_per_token, offset, s.path);
                hashes[c] = hash_hex({bytes.data(), count * s.bytes_per_token});
            } catch (const std::exception& e) {
                errors[c] = e.what();
                continue;
            }
            const auto* t16 = reinterpret_cast<const uint16_t*>(bytes.data());
            const auto* t32 = reinterpret_cast<const uint32_t*>(bytes.data());
            const size_t bad = s.bytes_per_token == 2 ? first_outside(t16, count, vocab) : first_outside(t32, count, vocab);
            if (bad < count)
                errors[c] = format("%s: token %u at position %zu (byte %llu) is outside the vocabulary of %zu; "
                                   "was it encoded with another tokenizer?", s.path.c_str(), s.bytes_per_token == 2 ? t16[bad] : t32[bad],
                                   first + bad, (unsigned long long)(offset + bad * s.bytes_per_token), vocab);
        }
    }
    std::string all;
    for (size_t c = 0; c < chunks; c++) {
        ensure(errors[c].empty(), "%s", errors[c].c_str());
        all += hashes[c];
    }
    return hash_hex(all);
}

Dataset dataset_open(const std::string& dir, const std::string& split, size_t T, size_t vocab, const std::string& tokenizer) {
    ensure(T > 0 && vocab > 0, "data: context %zu and vocabulary %zu must be at least 1", T, vocab);
    const char* how = "make data with scripts/get_data.sh, or from your own text with build/tokenizer encode";
    std::error_code error;
    const fs::directory_iterator entries(dir, error);
    ensure(error != std::errc::no_such_file_or_directory, "%s: no such data folder; %s", dir.c_str(), how);
    ensure(!error, "%s: the data folder cannot be read: %s", dir.c_str(), error.message().c_str());
    std::vector<std::string> names;
    for (const auto& entry : entries) {
        std::string name = entry.path().filename();
        if (name.starts_with(split) && name.ends_with(".bin")) names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    ensure(!names.empty(), "%s: no %s*.bin in it; %s", dir.c_str(), split.c_str(), how);

    Dataset d;
    d.T = T;
    d.first_sample = {0};
    Hasher fingerprint;
    size_t counted = 0;
    for (const std::string& name : names) {
        d.shards.push_back(shard_open(dir + "/" + name));
        const Shard& s = d.shards.back();
        ensure_tokenizer(s, tokenizer);
        d.of_unknown_tokenizer += s.tokenizer.empty();
        const std::string line = format("%s %d %zu ", name.c_str(), s.bytes_per_token, s.count) + check_and_hash(s, vocab) + "\n";
        fingerprint.add(line.data(), line.size());
        open_mask(d.shards.back());
        ensure(d.shards.size() == 1 || (s.mask_fd >= 0) == d.masked,
               "%s: a split has masks for all its shards or for none", s.path.c_str());
        d.masked = s.mask_fd >= 0;
        if (d.masked) counted += count_targets(s, (s.count - 1) / T * T, fingerprint);
        d.tokens += s.count;
        d.samples += (s.count - 1) / T;       // sample i needs tokens up to and including i*T + T; a partial last one is dropped
        d.first_sample.push_back(d.samples);
    }
    d.fingerprint = fingerprint.hex();
    ensure(!d.masked || counted > 0, "%s: the masks of the %s split count no target at all", dir.c_str(), split.c_str());
    if (d.masked) d.counted_share = double(counted) / double(std::max<size_t>(d.samples * T, 1));
    ensure(d.samples > 0, "%s: the %s split has %zu tokens and no whole sample of %zu (context + 1); use a shorter --context or more text",
           dir.c_str(), split.c_str(), d.tokens, T + 1);
    return d;
}

// ---- the order
// A permutation of [0, n) as a function, with no table: a Feistel network is a bijection of the numbers of 2h bits whatever its
// round function [Luby & Rackoff 1988]; walking its cycle until it lands below n restricts it to [0, n) [Black & Rogaway 2002].
// As 2^(2h) < 4n, it takes fewer than 4 tries on average. The round function is Philox keyed by (seed, epoch, round).
// 8 rounds: 4 suffice asymptotically, but here halves may be a single bit.
static uint64_t permute(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t x) {
    const int h = (std::bit_width(n - 1) + 1) / 2;
    const uint64_t mask = (uint64_t(1) << h) - 1;
    const uint64_t stream = rng_stream("data order") + epoch;
    do {
        uint64_t left = x >> h, right = x & mask;
        for (uint64_t round = 0; round < 8; round++) {
            const uint64_t mixed = left ^ (philox(seed, stream, round << 32 | right).x[0] & mask);
            left = right;
            right = mixed;
        }
        x = left << h | right;
    } while (x >= n);
    return x;
}

size_t dataset_shuffled(const Dataset& d, uint64_t seed, uint64_t consumed) {
    return permute(seed, consumed / d.samples, d.samples, consumed % d.samples);
}

void dataset_read(const Dataset& d, size_t index, int* inputs, int* targets) {
    ensure(index < d.samples, "data: sample %zu of %zu", index, d.samples);
    // The shard is the last one that starts at or before the sample; shards without a whole sample start where the next one does.
    const size_t shard = size_t(std::upper_bound(d.first_sample.begin(), d.first_sample.end(), index) - d.first_sample.begin()) - 1;
    const size_t first = (index - d.first_sample[shard]) * d.T;
    shard_read(d.shards[shard], first, d.T, inputs);
    memcpy(targets, inputs + 1, (d.T - 1) * sizeof(int));
    shard_read(d.shards[shard], first + d.T, 1, targets + d.T - 1);
    if (!d.masked) return;
    std::vector<unsigned char> counts(d.T);
    pread_fully(d.shards[shard].mask_fd, counts.data(), d.T, first + 1, d.shards[shard].path);
    for (size_t t = 0; t < d.T; t++)
        if (!counts[t]) targets[t] = -1;
}

void dataset_batch(const Dataset& d, uint64_t seed, uint64_t consumed, size_t B, int* inputs, int* targets) {
    for (size_t b = 0; b < B; b++) dataset_read(d, dataset_shuffled(d, seed, consumed + b), inputs + b * d.T, targets + b * d.T);
}
