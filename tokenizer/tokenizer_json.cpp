// Tokenizer files: Hugging Face tokenizer.json (byte-level BPE; read, write), GPT-2's encoder.json + vocab.bpe (read).
// https://huggingface.co/docs/tokenizers; GPT-2's files: https://github.com/openai/gpt-2, src/encoder.py.
// Anything that would change the ids and is not implemented here (normalizers, other pre-tokenizers, other models) is
// refused by name.
// The parser trusts nothing: size and depth capped (json_parse), keys and ids unique, ids without holes, merges of known tokens.

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "runtime/run/files.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "runtime/run/error.h"

using nlohmann::json;

static constexpr size_t MAX_FILE_BYTES = size_t(128) << 20;   // vocabularies of 256k entries take tens of MB
static constexpr JsonLimits LIMITS = {.depth = 16, .members = 4'000'000, .total = 16'000'000};

// ---- the byte alphabet

static const std::array<uint32_t, 256>& byte_alphabet() {     // byte -> code point, all below U+0144
    static const auto table = [] {
        std::array<uint32_t, 256> code{};
        uint32_t next = 0x100;
        for (uint32_t b = 0; b < 256; b++) {
            const bool prints = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
            code[b] = prints ? b : next++;
        }
        return code;
    }();
    return table;
}

std::string bytes_to_alphabet(std::string_view bytes) {
    std::string text;
    for (unsigned char b : bytes) {
        const uint32_t code = byte_alphabet()[b];
        if (code < 0x80) {
            text += char(code);
        } else {
            text += char(0xC0 | code >> 6);
            text += char(0x80 | (code & 0x3F));
        }
    }
    return text;
}

bool alphabet_to_bytes(std::string_view text, std::string& bytes) {
    static const auto byte_of = [] {
        std::array<int, 0x144> table;
        table.fill(-1);
        for (int b = 0; b < 256; b++) table[byte_alphabet()[size_t(b)]] = b;
        return table;
    }();
    bytes.clear();
    for (size_t i = 0; i < text.size();) {
        const size_t n = utf8_char_bytes(text.data() + i, text.data() + text.size());
        if (n != 1 && n != 2) return false;
        const auto c = static_cast<unsigned char>(text[i]);
        const size_t code = n == 1 ? c : size_t(c & 0x1F) << 6 | (static_cast<unsigned char>(text[i + 1]) & 0x3F);
        if (code >= byte_of.size() || byte_of[code] < 0) return false;
        bytes += char(byte_of[code]);
        i += n;
    }
    return true;
}

std::string in_quotes(std::string_view text) {
    std::string out;
    for (unsigned char c : text.substr(0, 40)) out += c >= ' ' && c < 0x7F ? std::string(1, char(c)) : format("\\x%02x", c);
    return '"' + out + (text.size() > 40 ? "\"..." : "\"");
}

// ---- parsing

static json read_json(const std::string& path) { return json_parse(file_read(path, MAX_FILE_BYTES), path, LIMITS); }

static uint32_t parse_id(const json& value, size_t vocab_size, const std::string& token, const std::string& path) {
    ensure(value.is_number_unsigned() && value.get<uint64_t>() < vocab_size,
           "%s: token %s has id %s; ids must be 0 to %zu without holes", path.c_str(), in_quotes(token).c_str(),
           in_quotes(value.dump()).c_str(), vocab_size - 1);
    return value.get<uint32_t>();
}

// vocab: {token in the byte alphabet: id}; `specials`, sorted out beforehand, are literal text. Fills t.token_bytes and the ids of
// the special tokens that are in `vocab`. Returns token text -> id, for the merges.
using TokenIds = std::unordered_map<std::string, uint32_t>;
static TokenIds read_vocab(Tokenizer& t, const json& vocab, const std::vector<std::pair<std::string, json>>& specials,
                           const std::string& path) {
    ensure(vocab.is_object() && !vocab.empty(), "%s: the vocabulary is not a JSON object of tokens and ids", path.c_str());
    size_t n = vocab.size();
    for (const auto& [text, id] : specials) n += !vocab.contains(text);
    t.token_bytes.assign(n, "");
    std::vector<bool> taken(n, false);
    auto take = [&](uint32_t id, const std::string& token) {
        ensure(!taken[id], "%s: id %u is given twice, the second time to token %s", path.c_str(), id, in_quotes(token).c_str());
        taken[id] = true;
    };
    for (const auto& [text, id_value] : specials) {
        const uint32_t id = parse_id(id_value, n, text, path);
        if (vocab.contains(text))
            ensure(vocab[text] == id_value, "%s: special token %s has two ids, %u and %s", path.c_str(), in_quotes(text).c_str(), id,
                   in_quotes(vocab[text].dump()).c_str());
        take(id, text);
        t.token_bytes[id] = text;
        t.special_tokens.push_back(text);
        t.special_ids.push_back(id);
    }
    TokenIds ids;
    for (const auto& [token, id_value] : vocab.items()) {
        if (t.special_id(token) >= 0) continue;
        const uint32_t id = parse_id(id_value, n, token, path);
        take(id, token);
        ensure(alphabet_to_bytes(token, t.token_bytes[id]) && !token.empty(),
               "%s: token %s (id %u) is not written in GPT-2's byte alphabet; only byte-level BPE is supported",
               path.c_str(), in_quotes(token).c_str(), id);
        ids[token] = id;
    }
    return ids;   // n distinct ids below n: no holes
}

static void add_merge(Tokenizer& t, const TokenIds& ids, const std::string& left, const std::string& right, const std::string& path) {
    for (const std::string& part : {left, right})
        ensure(ids.contains(part), "%s: merge %zu (%s %s) is of a token that is not in the vocabulary: %s", path.c_str(), t.merges.size(),
               in_quotes(left).c_str(), in_quotes(right).c_str(), in_quotes(part).c_str());
    t.merges.push_back({ids.at(left), ids.at(right)});
}

static void add_merge_line(Tokenizer& t, const TokenIds& ids, const std::string& line, const std::string& path) {
    const size_t space = line.find(' ');
    ensure(space != std::string::npos && space == line.rfind(' '), "%s: merge %zu is %s; expected two tokens with one space between them",
           path.c_str(), t.merges.size(), in_quotes(line).c_str());
    add_merge(t, ids, line.substr(0, space), line.substr(space + 1), path);
}

// `object[key]` must be missing, null, or one of `allowed`.
static void refuse_unless(const json& object, const char* key, const std::vector<json>& allowed, const std::string& where) {
    if (!object.contains(key) || object[key].is_null()) return;
    for (const json& value : allowed) if (object[key] == value) return;
    const json& value = object[key];
    const std::string shown = value.is_object() && value.contains("type") && value["type"].is_string()
                                  ? value["type"].dump()
                                  : value.dump(-1, ' ', true);
    fail("%s: %s %s is not supported; only GPT-2's byte-level BPE is", where.c_str(), key, in_quotes(shown).c_str());
}

static bool is_byte_level(const json& object, const char* key) {
    return object.contains(key) && object[key].is_object() && object[key].contains("type") && object[key]["type"] == "ByteLevel";
}

static Tokenizer read_tokenizer_json(const json& root, const std::string& path) {
    ensure(root.is_object() && root.contains("model") && root["model"].is_object(), "%s: no \"model\"; not a tokenizer.json", path.c_str());
    const json& model = root["model"];
    refuse_unless(model, "type", {"BPE"}, path + ": model");
    for (const char* key : {"normalizer", "truncation", "padding"}) refuse_unless(root, key, {}, path);
    for (const char* key : {"dropout", "unk_token"}) refuse_unless(model, key, {}, path + ": model");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) refuse_unless(model, key, {""}, path + ": model");
    for (const char* key : {"byte_fallback", "ignore_merges"}) refuse_unless(model, key, {false}, path + ": model");
    for (const char* key : {"pre_tokenizer", "decoder"}) {
        if (!is_byte_level(root, key)) refuse_unless(root, key, {}, path);
        ensure(is_byte_level(root, key), "%s: no %s; only ByteLevel is supported", path.c_str(), key);
    }
    if (!is_byte_level(root, "post_processor")) refuse_unless(root, "post_processor", {}, path);
    const json& pre = root["pre_tokenizer"];
    ensure(pre.contains("add_prefix_space"), "%s: pre_tokenizer: no add_prefix_space; only false is supported", path.c_str());
    refuse_unless(pre, "add_prefix_space", {false}, path + ": pre_tokenizer");
    refuse_unless(pre, "use_regex", {true}, path + ": pre_tokenizer");

    std::vector<std::pair<std::string, json>> specials;
    std::unordered_set<std::string> texts;
    const json added = root.contains("added_tokens") && !root["added_tokens"].is_null() ? root["added_tokens"] : json::array();
    ensure(added.is_array(), "%s: added_tokens is not an array", path.c_str());
    for (const json& token : added) {
        ensure(token.is_object() && token.contains("content") && token["content"].is_string() &&
                   token["content"] != "" && token.contains("id"),
               "%s: added_tokens: an entry without content or id", path.c_str());
        const std::string text = token["content"];
        const std::string where = path + ": added token " + in_quotes(text);
        for (const char* key : {"lstrip", "rstrip", "single_word"}) refuse_unless(token, key, {false}, where);
        refuse_unless(token, "special", {true}, where);
        ensure(texts.insert(text).second, "%s appears twice", where.c_str());
        specials.push_back({text, token["id"]});
    }

    Tokenizer t;
    ensure(model.contains("vocab") && model.contains("merges") && model["merges"].is_array(),
           "%s: model without vocab or merges", path.c_str());
    const TokenIds ids = read_vocab(t, model["vocab"], specials, path);
    for (const json& merge : model["merges"]) {
        if (merge.is_string()) {                                   // "a b", in older files
            add_merge_line(t, ids, merge.get_ref<const std::string&>(), path);
            continue;
        }
        ensure(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
               "%s: merge %zu is %s; expected \"a b\" or [\"a\", \"b\"]", path.c_str(), t.merges.size(),
               in_quotes(merge.dump(-1, ' ', true)).c_str());
        add_merge(t, ids, merge[0], merge[1], path);
    }
    tokenizer_finish(t, path);
    return t;
}

Tokenizer tokenizer_load(const std::string& path) {
    if (std::filesystem::is_directory(path)) {
        if (std::filesystem::exists(path + "/tokenizer.json")) return tokenizer_load(path + "/tokenizer.json");
        ensure(std::filesystem::exists(path + "/encoder.json"), "%s: neither tokenizer.json nor encoder.json in this folder", path.c_str());
        return tokenizer_load_gpt2(path + "/encoder.json", path + "/vocab.bpe");
    }
    return read_tokenizer_json(read_json(path), path);
}

Tokenizer tokenizer_load_gpt2(const std::string& encoder_json, const std::string& vocab_bpe) {
    const json vocab = read_json(encoder_json);
    std::vector<std::pair<std::string, json>> specials;            // the file does not mark it; by GPT-2's convention it is special
    if (vocab.is_object() && vocab.contains(END_OF_TEXT)) specials.push_back({END_OF_TEXT, vocab[END_OF_TEXT]});
    Tokenizer t;
    const TokenIds ids = read_vocab(t, vocab, specials, encoder_json);
    const std::string lines = file_read(vocab_bpe, MAX_FILE_BYTES);
    for (size_t start = 0; start < lines.size();) {
        const size_t end = std::min(lines.find('\n', start), lines.size());
        const std::string line = lines.substr(start, end - start);
        if (!line.empty() && !(start == 0 && line.starts_with("#version"))) add_merge_line(t, ids, line, vocab_bpe);
        start = end + 1;
    }
    tokenizer_finish(t, vocab_bpe);
    return t;
}

void tokenizer_save(const Tokenizer& t, const std::string& path) {
    auto json_string = [](const std::string& text) { return json(text).dump(); };
    std::vector<std::string> key(t.vocab_size());
    for (size_t id = 0; id < key.size(); id++) key[id] = bytes_to_alphabet(t.token_bytes[id]);
    for (size_t s = 0; s < t.special_ids.size(); s++) key[t.special_ids[s]] = t.special_tokens[s];

    std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
    for (size_t s = 0; s < t.special_ids.size(); s++)
        out += format(
            "%s\n    {\"id\": %u, \"content\": %s, \"single_word\": false, \"lstrip\": false, "
            "\"rstrip\": false, \"normalized\": false, \"special\": true}",
            s ? "," : "", t.special_ids[s], json_string(t.special_tokens[s]).c_str());
    const char* byte_level = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}";
    out += "\n  ],\n  \"normalizer\": null,\n";
    for (const char* part : {"pre_tokenizer", "post_processor", "decoder"}) out += format("  \"%s\": %s,\n", part, byte_level);
    out +=
        "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    "
        "\"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
        "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n    "
        "\"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {";
    for (size_t id = 0; id < key.size(); id++) out += format("%s\n      %s: %zu", id ? "," : "", json_string(key[id]).c_str(), id);
    out += "\n    },\n    \"merges\": [";
    for (size_t m = 0; m < t.merges.size(); m++)
        out += format("%s\n      [%s, %s]", m ? "," : "", json_string(key[t.merges[m].first]).c_str(),
                      json_string(key[t.merges[m].second]).c_str());
    out += "\n    ]\n  }\n}\n";
    file_replace(path, out);
}
