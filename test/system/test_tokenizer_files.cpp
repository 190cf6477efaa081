// Tokenizer files: ids equal to Hugging Face's `tokenizers` (fixtures: golden/tokenizer/make_tokenizer_fixtures.py), what is
// written reads back the same, and files that are wrong or hostile are refused in one line.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "runtime/run/files.h"
#include "test/temp_dir.h"
#include "tokenizer/bpe.h"
#include "runtime/run/error.h"

using nlohmann::json;
static const std::string GOLDEN = "test/golden/tokenizer/";

namespace {
struct TemporaryFolder : TempDir {
    std::string file(const std::string& name, const std::string& content) const {
        return file_replace(path + "/" + name, content), path + "/" + name;
    }
};
}  // namespace

static std::string read(const std::string& path) { return file_read(path, 100 << 20); }

static void check_ids(const Tokenizer& t, const std::string& fixture, bool allow_special) {
    const json cases = json::parse(read(GOLDEN + fixture));
    REQUIRE(cases.size() > 80);
    for (const json& one : cases) {
        const std::string text = one["text"];
        const auto ids = tokenizer_encode(t, text, allow_special);
        CHECK_MESSAGE(ids == one["ids"].get<std::vector<uint32_t>>(), fixture << ": text " << in_quotes(text));
        CHECK(tokenizer_decode(t, ids.data(), ids.size()) == text);
    }
}

TEST_CASE("tokenizer.json: the ids of Hugging Face's tokenizers; written and read again; both forms of merges") {
    const Tokenizer t = tokenizer_load(GOLDEN + "small.json");
    CHECK(t.vocab_size() == 700);
    CHECK(t.special_id("<|endoftext|>") == 0);
    check_ids(t, "small_ids.json", true);

    const TemporaryFolder folder;
    tokenizer_save(t, folder.path + "/tokenizer.json");
    const Tokenizer again = tokenizer_load(folder.path);                       // a folder that holds it
    CHECK(tokenizer_fingerprint(again) == tokenizer_fingerprint(t));
    CHECK(again.merges == t.merges);
    check_ids(again, "small_ids.json", true);

    json old = json::parse(read(GOLDEN + "small.json"));
    for (json& merge : old["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    CHECK(tokenizer_fingerprint(tokenizer_load(folder.file("old.json", old.dump()))) == tokenizer_fingerprint(t));

    json outside = json::parse(read(GOLDEN + "small.json"));                   // a special token only in added_tokens
    outside["added_tokens"].push_back({{"id", 700}, {"content", "<é>"}, {"special", true}});
    const Tokenizer more = tokenizer_load(folder.file("more.json", outside.dump()));
    CHECK(tokenizer_encode(more, "a<é>", true).back() == 700);
    tokenizer_save(more, folder.path + "/more2.json");
    CHECK(tokenizer_fingerprint(tokenizer_load(folder.path + "/more2.json")) == tokenizer_fingerprint(more));
    CHECK(tokenizer_fingerprint(more) != tokenizer_fingerprint(t));
}

TEST_CASE("a trained tokenizer with arbitrary bytes survives the file") {
    std::string text;
    std::mt19937 rng(1);
    for (int i = 0; i < 20000; i++) text += char(rng() % 2 ? 'a' + rng() % 6 : rng() % 256);
    const Tokenizer t = tokenizer_train(text, 500, {"<|endoftext|>", "\"\\ \n\u4f60"});
    const TemporaryFolder folder;
    tokenizer_save(t, folder.path + "/t.json");
    const Tokenizer again = tokenizer_load(folder.path + "/t.json");
    CHECK(again.token_bytes == t.token_bytes);
    CHECK(again.merges == t.merges);
    CHECK(again.special_ids == t.special_ids);
    CHECK(tokenizer_encode(again, text) == tokenizer_encode(t, text));
    CHECK_THROWS_AS(tokenizer_save(t, folder.path + "/no/such/folder.json"), Error);
}

TEST_CASE("GPT-2: encoder.json + vocab.bpe, the reference's ids") {
    const char* variable = getenv("QV_GPT2_DIR");
    const std::string dir = variable ? variable : "../shared/data/gpt2";
    if (!std::filesystem::exists(dir + "/encoder.json")) {
        MESSAGE("skipped: no GPT-2 files in " << dir << "; set QV_GPT2_DIR");
        return;
    }
    const Tokenizer t = tokenizer_load(dir);
    CHECK(t.vocab_size() == 50257);
    CHECK(t.merges.size() == 50000);
    CHECK(t.special_id("<|endoftext|>") == 50256);
    CHECK(tokenizer_encode(t, "Hello world") == std::vector<uint32_t>{15496, 995});
    check_ids(t, "gpt2_ids.json", false);
    const TemporaryFolder folder;
    tokenizer_save(t, folder.path + "/tokenizer.json");
    CHECK(tokenizer_fingerprint(tokenizer_load(folder.path)) == tokenizer_fingerprint(t));
}

TEST_CASE("wrong tokenizer.json: refused, saying what") {
    const json good = json::parse(read(GOLDEN + "small.json"));
    const TemporaryFolder folder;
    struct Case { const char* says; std::function<void(json&)> spoil; };
    const std::vector<Case> cases = {
        {"no \"model\"", [](json& j) { j.erase("model"); }},
        {"no \"model\"", [](json& j) { j = json::array(); }},
        {"WordPiece", [](json& j) { j["model"]["type"] = "WordPiece"; }},
        {"NFC",
         [](json& j) {
             j["normalizer"] = {{"type", "NFC"}};
         }},
        {"Whitespace",
         [](json& j) {
             j["pre_tokenizer"] = {{"type", "Whitespace"}};
         }},
        {"no pre_tokenizer", [](json& j) { j["pre_tokenizer"] = nullptr; }},
        {"add_prefix_space", [](json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; }},
        {"use_regex", [](json& j) { j["pre_tokenizer"]["use_regex"] = false; }},
        {"WordPiece",
         [](json& j) {
             j["decoder"] = {{"type", "WordPiece"}};
         }},
        {"TemplateProcessing",
         [](json& j) {
             j["post_processor"] = {{"type", "TemplateProcessing"}};
         }},
        {"truncation",
         [](json& j) {
             j["truncation"] = {{"max_length", 5}};
         }},
        {"dropout", [](json& j) { j["model"]["dropout"] = 0.1; }},
        {"unk_token", [](json& j) { j["model"]["unk_token"] = "<unk>"; }},
        {"end_of_word_suffix", [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
        {"byte_fallback", [](json& j) { j["model"]["byte_fallback"] = true; }},
        {"ignore_merges", [](json& j) { j["model"]["ignore_merges"] = true; }},
        {"vocabulary", [](json& j) { j["model"]["vocab"] = json::array(); }},
        {"without holes", [](json& j) { j["model"]["vocab"]["a"] = 700; }},
        {"without holes", [](json& j) { j["model"]["vocab"]["a"] = -1; }},
        {"without holes", [](json& j) { j["model"]["vocab"]["a"] = 1.5; }},
        {"without holes", [](json& j) { j["model"]["vocab"]["a"] = 18446744073709551615ull; }},
        {"given twice", [](json& j) { j["model"]["vocab"]["a"] = 5; }},
        {"byte alphabet",
         [](json& j) {
             auto& v = j["model"]["vocab"];
             v["two words"] = v["a"];
             v.erase("a");
         }},
        {"no token for byte 0x7e",
         [](json& j) {
             auto& v = j["model"]["vocab"];
             v["~~"] = v["~"];
             v.erase("~");
             j["model"]["merges"] = json::array();
         }},
        {"not in the vocabulary",
         [](json& j) {
             j["model"]["merges"][3] = {"a", "zzzz"};
         }},
        {"not in the vocabulary",
         [](json& j) {
             j["model"]["merges"].push_back({"Q", "Q"});
         }},
        {"same pair", [](json& j) { j["model"]["merges"].push_back(j["model"]["merges"][0]); }},
        {"expected",
         [](json& j) {
             j["model"]["merges"][0] = {"a", "b", "c"};
         }},
        {"expected", [](json& j) { j["model"]["merges"][0] = "abc"; }},
        {"expected", [](json& j) { j["model"]["merges"][0] = 7; }},
        {"lstrip", [](json& j) { j["added_tokens"][0]["lstrip"] = true; }},
        {"special", [](json& j) { j["added_tokens"][0]["special"] = false; }},
        {"two ids", [](json& j) { j["added_tokens"][0]["id"] = 3; }},
        {"twice", [](json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); }},
        {"without content", [](json& j) { j["added_tokens"][0].erase("content"); }},
    };
    for (const Case& c : cases) {
        json spoiled = good;
        c.spoil(spoiled);
        const std::string path = folder.file("spoiled.json", spoiled.dump());
        try {
            tokenizer_load(path);
            FAIL_CHECK("accepted; expected: " << c.says);
        } catch (const Error& e) {
            const std::string message = e.what();
            CHECK_MESSAGE(message.find(c.says) != std::string::npos, "expected " << c.says << ", got " << message);
            CHECK(message.starts_with(path));
            CHECK(message.find('\n') == std::string::npos);
        }
    }
}

TEST_CASE("hostile JSON: an error, not a crash") {
    const std::string good = read(GOLDEN + "small.json");
    const TemporaryFolder folder;
    auto survives = [&](const std::string& content) {
        try {
            tokenizer_load(folder.file("hostile.json", content));
        } catch (const Error& e) {
            CHECK(std::string(e.what()).find('\n') == std::string::npos);
            return false;
        }
        return true;
    };
    CHECK(survives(good));
    CHECK(!survives(""));
    CHECK(!survives("{"));
    CHECK(!survives("\xff\xfe"));
    CHECK(!survives(std::string(1'000'000, '[')));
    std::string deep;
    for (int i = 0; i < 100'000; i++) deep += "{\"a\":";
    CHECK(!survives(deep));
    CHECK(!survives(R"({"model": {"vocab": {"a": 0, "a": 0}, "merges": []}})"));
    CHECK(!survives(R"({"model": {"type": 1e999}})"));
    CHECK_THROWS_AS(tokenizer_load(folder.path + "/absent.json"), Error);
    CHECK_THROWS_AS(tokenizer_load(folder.path), Error);
    for (size_t cut = 0; cut < good.size() - 2; cut += 997) CHECK(!survives(good.substr(0, cut)));
    std::mt19937 rng(1);
    for (int i = 0; i < 150; i++) {
        std::string flipped = good;
        flipped[rng() % flipped.size()] ^= char(1 << rng() % 8);
        survives(flipped);                                                     // may be harmless
    }
}

TEST_CASE("GPT-2's two files: wrong lines are named") {
    json vocab;
    std::string all;
    for (int b = 0; b < 256; b++) vocab[bytes_to_alphabet(std::string(1, char(b)))] = b;
    vocab["ab"] = 256;
    vocab["<|endoftext|>"] = 257;
    const TemporaryFolder folder;
    const std::string encoder = folder.file("encoder.json", vocab.dump());
    const Tokenizer t = tokenizer_load_gpt2(encoder, folder.file("vocab.bpe", "#version: 0.2\na b\n"));
    CHECK(tokenizer_encode(t, "abc<|endoftext|>", true) == std::vector<uint32_t>{256, 'c', 257});
    CHECK(tokenizer_encode(tokenizer_load(folder.path), "ab") == std::vector<uint32_t>{256});
    for (const char* wrong : {"a b c\n", "ab\n", "a  b\n", "a x\n", "a b\na b\n", "# b\n", "<|endoftext|> a\n"})
        CHECK_THROWS_WITH_AS(tokenizer_load_gpt2(encoder, folder.file("vocab.bpe", wrong)), doctest::Contains("merge"), Error);
}

TEST_CASE("the byte alphabet: 256 different characters, there and back; nothing else is in it") {
    std::string bytes, back;
    for (int b = 0; b < 256; b++) bytes += char(b);
    CHECK(alphabet_to_bytes(bytes_to_alphabet(bytes), back));
    CHECK(back == bytes);
    CHECK(bytes_to_alphabet(" \n") == "\u0120\u010a");                          // GPT-2's G and C with marks
    for (const char* other : {" ", "\u0144", "\u00ad", "\u4f60", "\xff", "a\xc4"}) CHECK_FALSE(alphabet_to_bytes(other, back));
}
