// Text files -> token shards; the contract is in encode_files.h. Not for training: see dataloader/ for reading them.
#include "tokenizer/encode_files.h"

#define XXH_INLINE_ALL
#define XXH_VECTOR 0          // the AVX-512 path makes GCC 12 warn about its own intrinsics
#include <xxhash.h>

#include <algorithm>
#include <filesystem>

#include "dataloader/dataloader.h"
#include "runtime/run/files.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "runtime/run/error.h"

namespace fs = std::filesystem;

static constexpr size_t BATCH_BYTES = size_t(64) << 20;      // text encoded at once; bounds memory beside the file itself

std::string text_read(const std::string& file) { return file == "-" ? stdin_read() : file_read(file, SIZE_MAX); }

bool is_validation_document(std::string_view document, double val_fraction) {
    const uint64_t hash = XXH3_64bits(document.data(), document.size());
    return double(hash >> 11) * 0x1p-53 < val_fraction;      // 53 bits: a uniform number in [0, 1)
}

// One split's tokens on their way into shards. The last `keep_back` tokens so far stay in memory.
namespace {
struct ShardStream {
    std::string dir, split;
    std::string tokenizer;               // fingerprint
    size_t vocab, shard_tokens, keep_back = 0;
    std::vector<uint32_t> pending = {};
    size_t shards = 0, written = 0;

    void write(size_t count) {
        shard_write(format("%s/%s_%06zu.bin", dir.c_str(), split.c_str(), shards++), pending.data(), count, vocab, tokenizer);
        pending.erase(pending.begin(), pending.begin() + ptrdiff_t(count));
        written += count;
    }
    void add(const std::vector<uint32_t>& ids) {
        pending.insert(pending.end(), ids.begin(), ids.end());
        while (pending.size() >= keep_back + shard_tokens) write(shard_tokens);
    }
    void finish() {
        while (!pending.empty()) write(std::min(pending.size(), shard_tokens));
    }
};
}  // namespace

// Calls use(document) for every document of `text` that is not empty.
template <class Use> static void for_each_document(std::string_view text, const std::string& separator, Use use) {
    for (size_t start = 0; start < text.size();) {
        const size_t end = separator.empty() ? text.size() : std::min(text.find(separator, start), text.size());
        if (end > start) use(text.substr(start, end - start));
        start = end + separator.size();
    }
}

// What an earlier run left in `dir`: shards and tokenizer.json.
static std::vector<fs::path> existing_output(const std::string& dir) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(dir)) {
        const std::string name = entry.path().filename();
        const bool is_shard = (name.starts_with("train") || name.starts_with("val")) && name.ends_with(".bin");
        if (is_shard || name == "tokenizer.json") found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
}

static EncodeCounts write_shards(const EncodeFiles& job, const Tokenizer& t, const std::string& dir) {
    const size_t shard_tokens = size_t(job.shard_tokens);
    const std::string fingerprint = tokenizer_fingerprint(t);
    ShardStream train{dir, "train", fingerprint, t.vocab_size(), shard_tokens}, val{dir, "val", fingerprint, t.vocab_size(), shard_tokens};
    const bool by_tokens = job.val_tokens >= 0, by_document = job.split == Split::document;
    if (by_tokens) train.keep_back = size_t(job.val_tokens);

    size_t total_bytes = 0, seen_bytes = 0;
    std::string standard_input;              // its size decides where the validation part begins, so it is read first
    for (const std::string& file : job.files) {
        std::error_code error;
        if (file == "-") {
            ensure_usage(standard_input.empty(), "-: standard input can be read once only");
            standard_input = stdin_read();
            total_bytes += standard_input.size();
            continue;
        }
        total_bytes += fs::file_size(file, error);
        ensure(!error, "%s: cannot be read (%s)", file.c_str(), error.message().c_str());
    }
    const size_t train_bytes = by_tokens || by_document ? SIZE_MAX : total_bytes - size_t(double(total_bytes) * job.val_fraction);

    EncodeCounts counts;
    const int64_t end_of_text = t.special_id(END_OF_TEXT);
    for (const std::string& file : job.files) {
        const std::string text = file == "-" ? std::move(standard_input) : file_read(file, SIZE_MAX);
        if (end_of_text >= 0 && job.separator.empty() && text.find(END_OF_TEXT) != std::string::npos)
            fprintf(stderr, "note: %s has %s as ordinary text; --document-separator '%s' makes it end documents\n",
                    file.c_str(), END_OF_TEXT, END_OF_TEXT);
        std::vector<Piece> train_pieces, val_pieces;
        size_t batch_bytes = 0;
        auto encode_batch = [&] {
            train.add(encode_pieces(t, train_pieces, job.threads));
            val.add(encode_pieces(t, val_pieces, job.threads));
            train_pieces.clear();
            val_pieces.clear();
            batch_bytes = 0;
        };
        for_each_document(text, job.separator, [&](std::string_view document) {
            counts.documents++;
            bool to_val = by_document && is_validation_document(document, job.val_fraction);
            // A document may be a whole file: it is encoded in steps, cut where no word changes, also at the end of the training part.
            std::string_view rest = document;
            while (!rest.empty()) {
                const size_t at = seen_bytes + size_t(rest.data() - text.data());
                if (!by_document) to_val = at >= train_bytes;
                const std::string_view step = rest.substr(
                    0, safe_cut(rest, to_val || by_document ? BATCH_BYTES : std::min(BATCH_BYTES, train_bytes - at)));
                (to_val ? val_pieces : train_pieces).push_back({step});
                rest.remove_prefix(step.size());
                if ((batch_bytes += step.size()) >= BATCH_BYTES) encode_batch();
            }
            if (end_of_text >= 0) (to_val ? val_pieces : train_pieces).push_back({{}, end_of_text});
        });
        encode_batch();
        seen_bytes += text.size();
    }
    counts.bytes = seen_bytes;

    if (by_tokens) {
        const size_t n = size_t(job.val_tokens), have = train.written + train.pending.size();
        ensure(have > n, "the text has %zu tokens: --val-tokens %zu leaves none for training", have, n);
        val.add({train.pending.end() - ptrdiff_t(n), train.pending.end()});
        train.pending.resize(train.pending.size() - n);
    }
    train.finish();
    val.finish();
    ensure(train.written > 0,
           "no training tokens (%zu documents, %zu bytes); give more text or a smaller validation split",
           counts.documents, counts.bytes);
    ensure(val.written > 0 || job.val_tokens == 0 || (!by_tokens && job.val_fraction == 0),
           "no validation tokens: %zu documents, fraction %g; use --split tail or a larger fraction", counts.documents, job.val_fraction);
    counts.train_tokens = train.written;
    counts.val_tokens = val.written;
    return counts;
}

EncodeCounts encode_files(const EncodeFiles& job) {
    ensure_usage(job.val_tokens < 0 || job.split == Split::tail,
                 "--val-tokens needs --split tail; documents have no fixed number of tokens");
    ensure_usage(job.val_fraction >= 0 && job.val_fraction < 1, "--val-fraction %g is not in [0, 1)", job.val_fraction);
    ensure_usage(job.shard_tokens > 0, "--shard-tokens %lld is not positive", static_cast<long long>(job.shard_tokens));
    const Tokenizer t = tokenizer_load(job.tokenizer);

    std::error_code error;
    const bool created = fs::create_directories(job.out, error);
    ensure(!error, "%s: cannot be made (%s)", job.out.c_str(), error.message().c_str());
    const std::vector<fs::path> old = existing_output(job.out);
    std::vector<fs::path> outdated;
    for (const fs::path& path : old) {       // the tokenizer in use may lie there already; it is only ever replaced by rename
        const bool is_own = fs::equivalent(path, job.tokenizer, error) ||
                            fs::equivalent(path, fs::path(job.tokenizer) / "tokenizer.json", error);
        ensure_usage(job.overwrite || is_own,
                     "%s: exists; --overwrite replaces the shards and tokenizer.json in this folder", path.c_str());
        if (!is_own) outdated.push_back(path);
    }
    const std::string partial = job.out + "/partial.tmp";
    fs::remove_all(partial);                 // of a run that was killed
    fs::create_directory(partial);
    try {
        const EncodeCounts counts = write_shards(job, t, partial);
        tokenizer_save(t, partial + "/tokenizer.json");
        for (const fs::path& path : outdated) fs::remove(path);
        std::vector<fs::path> made = existing_output(partial);
        std::stable_partition(made.begin(), made.end(), [](const fs::path& path) { return path.extension() == ".bin"; });
        for (const fs::path& path : made) fs::rename(path, fs::path(job.out) / path.filename());
        fs::remove(partial);
        fsync_folder(job.out);
        return counts;
    } catch (...) {
        fs::remove_all(partial, error);
        if (created) fs::remove(job.out, error);      // only if empty
        throw;
    }
}
