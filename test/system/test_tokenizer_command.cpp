// The tool `tokenizer` and encode_files: splits, shards, separators, refusals; nothing half-written.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <set>
#include <unistd.h>

#include "dataloader/dataloader.h"
#include "runtime/run/files.h"
#include "test/temp_dir.h"
#include "tokenizer/bpe.h"
#include "tokenizer/command.h"
#include "tokenizer/encode_files.h"
#include "runtime/run/error.h"

namespace fs = std::filesystem;

namespace {
struct Workplace : TempDir {
    std::string operator/(const std::string& name) const { return path + "/" + name; }
    std::string file(const std::string& name, const std::string& content) const {
        return file_replace(*this / name, content), *this / name;
    }
    std::set<std::string> names(const std::string& folder) const {
        std::set<std::string> found;
        for (const auto& entry : fs::directory_iterator(*this / folder)) found.insert(entry.path().filename());
        return found;
    }
};
}  // namespace

static int command(std::vector<std::string> args) {
    args.insert(args.begin(), "tokenizer");
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    return tokenizer_command(int(argv.size()), argv.data());
}

static std::vector<uint32_t> tokens_of(const std::string& dir, const std::string& split) {
    std::vector<uint32_t> all;
    for (int i = 0; fs::exists(format("%s/%s_%06d.bin", dir.c_str(), split.c_str(), i)); i++) {
        const Shard shard = shard_open(format("%s/%s_%06d.bin", dir.c_str(), split.c_str(), i));
        const auto tokens = shard_read_all(shard);
        all.insert(all.end(), tokens.begin(), tokens.end());
    }
    return all;
}

static std::string text_of(const Tokenizer& t, const std::vector<uint32_t>& ids) { return tokenizer_decode(t, ids.data(), ids.size()); }

static std::string story(int documents) {
    std::string text;
    for (int i = 0; i < documents; i++) text += format("Document number %d tells\nof %d things.\n\n", i, i * i);
    return text;
}

static Tokenizer make_tokenizer(const std::string& path) {
    const Tokenizer t = tokenizer_train(story(200), 400, {END_OF_TEXT});
    tokenizer_save(t, path);
    return t;
}

TEST_CASE("encode_files, tail: training and validation part joined are the whole text, encoded as one") {
    const Workplace w;
    const Tokenizer t = make_tokenizer(w / "t.json");
    const std::string text = story(300), second = "Another file.";
    EncodeFiles job;
    job.tokenizer = w / "t.json", job.out = w / "d", job.files = {w.file("a.txt", text), w.file("b.txt", second)}, job.shard_tokens = 1000;
    std::vector<uint32_t> expected = tokenizer_encode(t, text);
    expected.push_back(uint32_t(t.special_id(END_OF_TEXT)));
    for (uint32_t id : tokenizer_encode(t, second)) expected.push_back(id);
    expected.push_back(uint32_t(t.special_id(END_OF_TEXT)));

    for (double fraction : {0.0, 0.001, 0.1, 0.5, 0.97}) {
        job.val_fraction = fraction;
        job.overwrite = true;
        const EncodeCounts counts = encode_files(job);
        auto train = tokens_of(job.out, "train"), val = tokens_of(job.out, "val");
        CHECK(counts.train_tokens == train.size());
        CHECK(counts.val_tokens == val.size());
        CHECK(counts.documents == 2);
        CHECK(counts.bytes == text.size() + second.size());
        CHECK(double(text_of(t, val).size()) == doctest::Approx(fraction * double(counts.bytes)).epsilon(0.02).scale(2000));
        train.insert(train.end(), val.begin(), val.end());
        CHECK(train == expected);
        CHECK(w.names("d").contains("tokenizer.json"));
        CHECK_FALSE(w.names("d").contains("partial.tmp"));
    }
    for (int64_t n : {0, 1, 999, 1000, 1001, 2500}) {
        job.val_tokens = n;
        CHECK(encode_files(job).val_tokens == size_t(n));
        auto train = tokens_of(job.out, "train"), val = tokens_of(job.out, "val");
        CHECK(val.size() == size_t(n));
        train.insert(train.end(), val.begin(), val.end());
        CHECK(train == expected);
    }
    CHECK(shard_open(job.out + "/train_000000.bin").count == 1000);
    CHECK(tokenizer_fingerprint(tokenizer_load(job.out)) == tokenizer_fingerprint(t));
    job.val_tokens = 1'000'000;
    CHECK_THROWS_WITH_AS(encode_files(job), doctest::Contains("leaves none"), Error);
    CHECK(tokens_of(job.out, "val").size() == 2500);                           // the failure changed nothing
}

TEST_CASE("encode_files, document: whole documents, chosen by content alone") {
    const Workplace w;
    const Tokenizer t = make_tokenizer(w / "t.json");
    const std::string text = story(500);
    EncodeFiles job;
    job.tokenizer = w / "t.json", job.out = w / "d", job.files = {w.file("a.txt", text)}, job.separator = "\n\n";
    job.split = Split::document, job.val_fraction = 0.2;
    const EncodeCounts counts = encode_files(job);
    CHECK(counts.documents == 500);
    std::string train, val;
    for (int i = 0; i < 500; i++) {
        const std::string document = format("Document number %d tells\nof %d things.", i, i * i);
        (is_validation_document(document, 0.2) ? val : train) += document + END_OF_TEXT;
    }
    CHECK(text_of(t, tokens_of(job.out, "train")) == train);
    CHECK(text_of(t, tokens_of(job.out, "val")) == val);
    CHECK(double(val.size()) / double(val.size() + train.size()) == doctest::Approx(0.2).epsilon(0.3));
    const auto ids = tokens_of(job.out, "train");
    CHECK(std::count(ids.begin(), ids.end(), uint32_t(t.special_id(END_OF_TEXT))) > 300);

    job.separator = "", job.overwrite = true;                                  // one document cannot be on both sides
    CHECK_THROWS_AS(encode_files(job), Error);
    job.val_fraction = 1.0;
    CHECK_THROWS_AS(encode_files(job), Error);
    CHECK(text_of(t, tokens_of(job.out, "val")) == val);
}

TEST_CASE("command: train, encode, decode; wrong options exit 2; existing output is kept") {
    const Workplace w;
    const std::string text = w.file("a.txt", story(100));
    CHECK(command({"train", "--vocab-size", "300", "--out", w / "t.json", text}) == 0);
    CHECK(command({"train", "--vocab-size", "300", "--out", w / "t.json", text}) == EXIT_USAGE);
    CHECK(command({"train", "--vocab-size", "310", "--special", "<a>", "--special", "<b>", "--out", w / "t.json",
                   "--overwrite", text}) == 0);
    CHECK(tokenizer_load(w / "t.json").special_tokens == std::vector<std::string>{"<a>", "<b>"});

    CHECK(command({"encode", "--tokenizer", w / "t.json", "--out", w / "d", text}) == 0);
    CHECK(w.names("d") == std::set<std::string>{"tokenizer.json", "train_000000.bin", "val_000000.bin"});
    const auto before = tokens_of(w / "d", "train");
    CHECK(command({"encode", "--tokenizer", w / "t.json", "--out", w / "d", "--val-fraction", "0.5", text}) == EXIT_USAGE);
    CHECK(tokens_of(w / "d", "train") == before);
    CHECK(command({"encode", "--tokenizer", w / "d", "--out", w / "d", "--val-fraction", "0", "--overwrite", text}) == 0);
    CHECK(w.names("d") == std::set<std::string>{"tokenizer.json", "train_000000.bin"});            // no stale validation shard

    CHECK(command({"encode", "--tokenizer", w / "t.json", "--out", w / "e", w / "absent.txt"}) == EXIT_FAILED);
    CHECK(command({"encode", "--tokenizer", w / "t.json", "--out", w / "e", w.file("empty.txt", "")}) == EXIT_FAILED);
    CHECK_FALSE(fs::exists(w / "e"));
    CHECK(command({"train", "--vocab-size", "300", "--out", w / "x.json", w / "empty.txt"}) == EXIT_FAILED);
    CHECK_FALSE(fs::exists(w / "x.json"));

    const std::vector<std::vector<std::string>> wrong = {
        {}, {"trian"}, {"train"}, {"train", "--vocab", "300", "--out", w / "x.json", text},
        {"train", "--vocab-size", "3e2x", "--out", w / "x.json", text},
        {"train", "--vocab-size", "100", "--out", w / "x.json", text}, {"train", "--vocab-size", "-5", "--out", w / "x.json", text},
        {"encode", "--tokenizer", w / "t.json", "--out", w / "e", "--split", "middle", text},
        {"encode", "--tokenizer", w / "t.json", "--out", w / "e", "--val-fraction", "1.5", text},
        {"encode", "--tokenizer", w / "t.json", "--out", w / "e", "--val-tokens", "5", "--val-fraction", "0.1", text},
        {"encode", "--tokenizer", w / "t.json", "--out", w / "e", "--val-tokens", "5", "--split", "document", text},
        {"encode", "--tokenizer", w / "t.json", "--out", w / "e", "--shard-tokens", "0", text},
        {"decode", "--tokenizer", w / "t.json", "12x"}, {"decode", "--tokenizer", w / "t.json", "-1"},
        {"encode", "--tokenizer", w / "t.json", "--out", w / "e", "--threads", "-1", text}};
    for (const auto& args : wrong) CHECK_MESSAGE(command(args) == EXIT_USAGE, (args.empty() ? "no arguments" : args.back()));
    CHECK(command({"decode", "--tokenizer", w / "t.json", "100000"}) == EXIT_FAILED);
    CHECK_FALSE(fs::exists(w / "e"));
    CHECK_FALSE(fs::exists(w / "x.json"));
}

TEST_CASE("command: - is standard input; decode leaves special tokens out on demand; a shard of another tokenizer is refused") {
    const Workplace w;
    const std::string text = w.file("a.txt", story(100)), t = w / "t.json";
    make_tokenizer(t);
    auto with_input = [&](const std::vector<std::string>& args) {
        const int saved = dup(0), file = open(text.c_str(), O_RDONLY);
        dup2(file, 0);
        const int code = command(args);
        dup2(saved, 0);
        close(saved);
        close(file);
        return code;
    };
    CHECK(command({"encode", "--tokenizer", t, "--out", w / "named", text}) == 0);
    CHECK(with_input({"encode", "--tokenizer", t, "--out", w / "piped", "-"}) == 0);
    CHECK(tokens_of(w / "piped", "train") == tokens_of(w / "named", "train"));
    CHECK(tokens_of(w / "piped", "val") == tokens_of(w / "named", "val"));
    CHECK(with_input({"train", "--vocab-size", "300", "--out", w / "u.json", "-"}) == 0);
    CHECK(with_input({"encode", "--tokenizer", t, "--out", w / "twice", "-", "-"}) == EXIT_USAGE);
    const Tokenizer tokenizer = tokenizer_load(t);
    const auto ids = tokens_of(w / "named", "val");
    REQUIRE(ids.back() == uint32_t(tokenizer.special_id(END_OF_TEXT)));
    const std::string whole = tokenizer_decode(tokenizer, ids.data(), ids.size()),
                      plain = tokenizer_decode(tokenizer, ids.data(), ids.size(), false);
    CHECK(whole == plain + END_OF_TEXT);
    CHECK(command({"decode", "--skip-special", "--tokenizer", t, std::to_string(ids.back())}) == 0);
    CHECK(command({"decode", "--tokenizer", w / "u.json", w / "named/val_000000.bin"}) == EXIT_FAILED);
    CHECK(shard_open(w / "named/val_000000.bin").tokenizer == tokenizer_fingerprint(tokenizer));
}
