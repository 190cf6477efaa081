// The command-line tool `tokenizer`: options -> tokenizer_train, encode_files, tokenizer_decode, and the numbers they give.
#include "tokenizer/command.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>

#include "dataloader/dataloader.h"
#include "runtime/run/files.h"
#include "runtime/run/options.h"
#include "runtime/run/threads.h"
#include "tokenizer/bpe.h"
#include "tokenizer/encode_files.h"
#include "runtime/run/clock.h"
#include "runtime/run/error.h"


namespace {
struct Command {
    std::string tokenizer, out, separator, split = "tail";
    int64_t vocab_size = 0;
    std::vector<std::string> special = {END_OF_TEXT}, inputs;
    EncodeFiles encode;
    bool overwrite = false, skip_special = false;
    int threads = 0;
};
}  // namespace

// \n, \t and \\ in an option's text, which shells make hard to type
static std::string unescape(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); i++) {
        const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
        const bool escaped = next == 'n' || next == 't' || next == '\\';
        out += next == 'n' ? '\n' : next == 't' ? '\t' : text[i];
        i += escaped;
    }
    return out;
}

static void run_train(const Command& c) {
    ensure_usage(c.overwrite || !std::filesystem::exists(c.out), "%s: exists; --overwrite replaces it", c.out.c_str());
    ensure_usage(c.vocab_size > 0, "--vocab-size %lld is not positive", static_cast<long long>(c.vocab_size));
    ensure_threads(resolve_threads(c.threads));
    std::vector<std::string> contents;
    size_t bytes = 0;
    for (const std::string& path : c.inputs) bytes += contents.emplace_back(text_read(path)).size();
    ensure(bytes > 0, "%s: there is no text to train on", c.inputs[0].c_str());
    const double start = now_s();
    const Tokenizer t = tokenizer_train({contents.begin(), contents.end()}, size_t(c.vocab_size), c.special, c.threads);
    const double seconds = now_s() - start;
    tokenizer_save(t, c.out);
    printf(
        "%s: vocabulary %zu (256 bytes, %zu merges, %zu special), "
        "from %zu bytes in %.2f s (%.1f MB/s), fingerprint %s\n",
        c.out.c_str(), t.vocab_size(), t.merges.size(), t.special_ids.size(), bytes, seconds,
        double(bytes) / 1e6 / seconds, tokenizer_fingerprint(t).c_str());
    if (t.vocab_size() < size_t(c.vocab_size))
        fprintf(stderr, "note: only %zu of %lld entries: no further pair occurs twice; more text would give more\n", t.vocab_size(),
                static_cast<long long>(c.vocab_size));
}

static void run_encode(const Command& c) {
    EncodeFiles job = c.encode;
    job.tokenizer = c.tokenizer, job.out = c.out, job.files = c.inputs, job.separator = unescape(c.separator);
    job.split = c.split == "document" ? Split::document : Split::tail;
    job.overwrite = c.overwrite, job.threads = c.threads;
    ensure_threads(resolve_threads(c.threads));
    const double start = now_s();
    const EncodeCounts n = encode_files(job);
    const double seconds = now_s() - start;
    const size_t tokens = n.train_tokens + n.val_tokens;
    printf("%s: %zu documents, %zu bytes, %zu tokens (train %zu, val %zu), %.3f bytes/token, %.2f s, %.1f MB/s\n",
           c.out.c_str(), n.documents, n.bytes, tokens, n.train_tokens, n.val_tokens, double(n.bytes) / double(tokens),
           seconds, double(n.bytes) / 1e6 / seconds);
}

static void run_decode(const Command& c) {
    const Tokenizer t = tokenizer_load(c.tokenizer);
    std::vector<uint32_t> ids;
    for (const std::string& input : c.inputs) {
        if (input.ends_with(".bin")) {
            const Shard shard = shard_open(input);
            ensure_tokenizer(shard, tokenizer_fingerprint(t));
            const std::vector<uint32_t> tokens = shard_read_all(shard);
            ids.insert(ids.end(), tokens.begin(), tokens.end());
            continue;
        }
        uint32_t id = 0;
        const auto [end, error] = std::from_chars(input.data(), input.data() + input.size(), id);
        ensure_usage(error == std::errc() && end == input.data() + input.size(),
                     "decode: %s is neither a .bin file nor a token id", in_quotes(input).c_str());
        ids.push_back(id);
    }
    const std::string text = tokenizer_decode(t, ids.data(), ids.size(), !c.skip_special);
    ensure(fwrite(text.data(), 1, text.size(), stdout) == text.size() && fflush(stdout) == 0, "decode: writing to standard output failed");
}

static void add_options(CLI::App& app, Command& c) {
    const CLI::Validator not_negative([](const std::string& n) { return n.starts_with("-") ? n + " is negative" : ""; }, "");
    CLI::App* train = app.add_subcommand("train", "learn a byte-level BPE vocabulary from text");
    train->add_option("--vocab-size", c.vocab_size, "entries: 256 bytes, merges, special tokens")->required();
    train->add_option("--special", c.special, "special token; repeat for more")->expected(1)->take_all()->capture_default_str();
    train->add_option("--out", c.out, "tokenizer.json to write")->required();

    CLI::App* encode = app.add_subcommand("encode", "text files to token shards: DIR/train_*.bin, val_*.bin, tokenizer.json");
    encode->add_option("--out", c.out, "folder DIR to write")->required();
    auto* fraction =
        encode->add_option("--val-fraction", c.encode.val_fraction, "share of the text for validation, in [0, 1)")
            ->capture_default_str();
    encode->add_option("--val-tokens", c.encode.val_tokens, "or the last so many tokens")->check(not_negative)->excludes(fraction);
    encode->add_option("--split", c.split, "tail: the end of the text; document: whole documents, by hash")
        ->check(CLI::IsMember({"tail", "document"}))
        ->capture_default_str();
    encode->add_option("--document-separator", c.separator,
                       "ends a document inside a file, e.g. '\\n\\n'; default: a file is one document");
    encode->add_option("--shard-tokens", c.encode.shard_tokens, "tokens per shard at most")->capture_default_str();

    CLI::App* decode = app.add_subcommand("decode", "token ids, or shards, to text on standard output");
    for (CLI::App* sub : {encode, decode})
        sub->add_option("--tokenizer", c.tokenizer,
                        "tokenizer.json, or a folder with it or with GPT-2's encoder.json and vocab.bpe")
            ->required();
    for (CLI::App* sub : {train, encode}) {
        sub->add_flag("--overwrite", c.overwrite, "replace existing output");
        sub->add_option("--threads", c.threads, "0: all; the result is the same for any number")
            ->check(not_negative)
            ->capture_default_str();
        sub->add_option("FILE", c.inputs, "text files; - is standard input")->required();
    }
    decode->add_flag("--skip-special", c.skip_special, "leave special tokens such as <|endoftext|> out of the text");
    decode->add_option("FILE.bin|ID", c.inputs, "token shards or ids")->required();
}

// CLI11 names an unknown option, but not the one that was meant; and it complains about a missing option first.
static void check_names(CLI::App& app, int argc, char** argv) {
    if (argc < 2 || argv[1][0] == '-') return;
    std::vector<std::string> names;
    const CLI::App* sub = nullptr;
    for (CLI::App* candidate : app.get_subcommands({})) {
        names.push_back(candidate->get_name());
        if (names.back() == argv[1]) sub = candidate;
    }
    auto suggestion = [&](const std::string& wrong) {
        std::string nearest = nearest_name(wrong, names);
        for (const std::string& name : names)
            if (nearest.empty() && name.starts_with(wrong)) nearest = name;      // --vocab
        return nearest.empty() ? std::string("see --help") : "did you mean " + nearest + "?";
    };
    ensure_usage(sub, "unknown command %s; %s", in_quotes(argv[1]).c_str(), suggestion(argv[1]).c_str());
    names.clear();
    for (const CLI::Option* option : sub->get_options())
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (int i = 2; i < argc && std::string(argv[i]) != "--"; i++) {
        const std::string name = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
        if (name.starts_with("--") && std::find(names.begin(), names.end(), name) == names.end())
            fail_usage("unknown option %s; %s", in_quotes(name).c_str(), suggestion(name).c_str());
    }
}

int tokenizer_command(int argc, char** argv) {
    try {
        Command c;
        CLI::App app("Byte-level BPE with GPT-2's pre-tokenizer: train, encode, decode. `tokenizer COMMAND --help` says more.\n"
                     "  tokenizer train --vocab-size 4096 --out tokenizer.json book.txt\n"
                     "  tokenizer encode --tokenizer tokenizer.json --out data/book book.txt\n"
                     "  tokenizer decode --tokenizer data/book data/book/val_000000.bin\n", "tokenizer");
        add_options(app, c);
        app.require_subcommand(1);
        check_names(app, argc, argv);
        try {
            app.parse(argc, argv);
        } catch (const CLI::ParseError& e) {
            if (e.get_exit_code() == 0) return app.exit(e);      // --help
            fail_usage("%s; see --help", e.what());
        }
        if (app.got_subcommand("train")) run_train(c);
        if (app.got_subcommand("encode")) run_encode(c);
        if (app.got_subcommand("decode")) run_decode(c);
        return EXIT_DONE;
    } catch (const Error& e) {
        fprintf(stderr, "tokenizer: %s\n", e.what());
        return e.exit_code;
    } catch (const std::exception& e) {              // out of memory, a disk that fails while files are moved
        fprintf(stderr, "tokenizer: %s\n", error_text(e).c_str());
        return EXIT_FAILED;
    }
}
