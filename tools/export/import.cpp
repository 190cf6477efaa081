// build/import DIR RUN: a transformers folder becomes a run: GPT2LMHeadModel (variant qkv, learned positions) and Starcoder2ForCausalLM
// (qkv, gqa or mqa with rope), from safetensors of any floating-point type, with its tokenizer. The run can
// generate and be evaluated. It holds weights only: without optimizer state there is nothing to --resume from, but a new
// training may start with --init-from.
// What the engine does not compute is refused: other activations, untied heads, sliding windows, scaled rope.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/run/checkpoint.h"
#include "runtime/run/files.h"
#include "runtime/run/options.h"
#include "runtime/run/rundir.h"
#include "tokenizer/tokenizer.h"
#include "tools/arguments.h"
#include "tools/export/weights.h"
#include "tools/tool_main.h"

namespace fs = std::filesystem;
using nlohmann::json;

namespace {
struct Imported { std::string attn; Options options; std::vector<TensorToWrite> tensors; };

template <class T> T field(const json& config, const char* key, const std::string& where, std::optional<T> otherwise = {}) {
    if (!config.contains(key) || config[key].is_null()) {
        ensure_usage(otherwise.has_value(), "%s: %s is missing", where.c_str(), key);
        return *otherwise;
    }
    try {
        return config[key].get<T>();
    } catch (const json::exception&) {
        fail_usage("%s: %s has the wrong type", where.c_str(), key);
    }
}
void must_be(const json& config, const char* key, const json& want, const std::string& where) {
    const json value = config.contains(key) ? config[key] : want;
    ensure_usage(value == want, "%s: %s is %s; the engine has only %s", where.c_str(), key,
                 printable(value.dump()).c_str(), want.dump().c_str());
}
int size_field(const json& config, const char* key, const std::string& where, std::optional<int> otherwise = {}) {
    const int n = field<int>(config, key, where, otherwise);
    ensure_usage(n > 0 && n <= 1 << 24, "%s: %s is %d", where.c_str(), key, n);
    return n;
}

int64_t padded(int64_t V) { return (V + 127) / 128 * 128; }

// The rows of the tokenizer's vocabulary, padded with zeros as the engine pads.
void add_embedding(std::vector<TensorToWrite>& list, const SafetensorsFile& f, const std::string& from, int64_t rows,
                   int64_t V, int64_t C) {
    const SafetensorsFile* file = &f;
    list.push_back(tensor_from("wte.weight", {padded(V), C}, [=] {
        Floats all = rows_of(tensor_floats(*file, from, {rows, C}), 0, V, C);
        all.resize(size_t(padded(V) * C));
        return all;
    }));
}
void add(std::vector<TensorToWrite>& list, const SafetensorsFile& f, const std::string& to, const std::string& from,
         std::vector<int64_t> shape, bool transpose = false) {
    const SafetensorsFile* file = &f;
    const std::vector<int64_t> theirs = transpose ? std::vector<int64_t>{shape[1], shape[0]} : shape;
    list.push_back(tensor_from(to, shape, [=] {
        Floats values = tensor_floats(*file, from, theirs);
        return transpose ? transposed(values, theirs[0], theirs[1]) : values;
    }));
}

Imported gpt2(const json& c, const std::string& where, const SafetensorsFile& f, int64_t V) {
    Imported r{"qkv", {}, {}};
    ModelConfig& m = r.options.model;
    m.L = size_field(c, "n_layer", where), m.C = size_field(c, "n_embd", where), m.NH = size_field(c, "n_head", where),
    m.T = size_field(c, "n_positions", where);
    m.F = size_field(c, "n_inner", where, 4 * m.C);
    m.pos = Position::learned;
    const std::string activation = field<std::string>(c, "activation_function", where, "gelu_new");
    ensure_usage(activation == "gelu_new" || activation == "gelu_pytorch_tanh",
                 "%s: activation_function is %s; the engine has tanh-GELU (gelu_new)", where.c_str(),
                 printable(activation).c_str());
    must_be(c, "layer_norm_epsilon", 1e-5, where);
    must_be(c, "scale_attn_weights", true, where);
    must_be(c, "scale_attn_by_inverse_layer_idx", false, where);
    must_be(c, "tie_word_embeddings", true, where);
    const int64_t rows = size_field(c, "vocab_size", where), C = m.C, F = m.F;
    const std::string root = f.find("transformer.wte.weight") ? "transformer." : "";
    ensure_usage(rows >= V, "%s: the model has %lld tokens, its tokenizer %lld", where.c_str(), (long long)rows, (long long)V);
    add_embedding(r.tensors, f, root + "wte.weight", rows, V, C);
    add(r.tensors, f, "wpe.weight", root + "wpe.weight", {m.T, C});
    const SafetensorsFile* file = &f;
    for (int l = 0; l < m.L; l++) {
        const std::string to = "h." + std::to_string(l) + ".", from = root + to;
        for (const char* norm : {"ln_1", "ln_2"})
            for (const char* part : {".weight", ".bias"}) add(r.tensors, f, to + norm + part, from + norm + part, {C});
        for (int i = 0; i < 3; i++) {
            const std::string name = to + "attn." + "qkv"[i];
            r.tensors.push_back(tensor_from(name + ".weight", {C, C}, [=] {
                return rows_of(transposed(tensor_floats(*file, from + "attn.c_attn.weight", {C, 3 * C}), C, 3 * C), i * C, C, C);
            }));
            r.tensors.push_back(tensor_from(name + ".bias", {C}, [=] {
                return rows_of(tensor_floats(*file, from + "attn.c_attn.bias", {3 * C}), i * C, C, 1);
            }));
        }
        add(r.tensors, f, to + "attn.o.weight", from + "attn.c_proj.weight", {C, C}, true);
        add(r.tensors, f, to + "attn.o.bias", from + "attn.c_proj.bias", {C});
        add(r.tensors, f, to + "mlp.fc.weight", from + "mlp.c_fc.weight", {F, C}, true);
        add(r.tensors, f, to + "mlp.fc.bias", from + "mlp.c_fc.bias", {F});
        add(r.tensors, f, to + "mlp.proj.weight", from + "mlp.c_proj.weight", {C, F}, true);
        add(r.tensors, f, to + "mlp.proj.bias", from + "mlp.c_proj.bias", {C});
    }
    for (const char* part : {".weight", ".bias"}) add(r.tensors, f, std::string("ln_f") + part, root + "ln_f" + part, {C});
    return r;
}

Imported starcoder2(const json& c, const std::string& where, const SafetensorsFile& f, int64_t V) {
    Imported r;
    ModelConfig& m = r.options.model;
    m.L = size_field(c, "num_hidden_layers", where), m.C = size_field(c, "hidden_size", where),
    m.NH = size_field(c, "num_attention_heads", where);
    m.NKV = size_field(c, "num_key_value_heads", where, m.NH), m.F = size_field(c, "intermediate_size", where),
    m.T = size_field(c, "max_position_embeddings", where);
    m.HS = size_field(c, "head_dim", where, m.C / m.NH);
    m.pos = Position::rope;
    m.rope_theta = field<double>(c, "rope_theta", where,
                                 c.contains("rope_parameters") && c["rope_parameters"].is_object()
                                     ? c["rope_parameters"].value("rope_theta", 10000.0)
                                     : 10000.0);
    r.attn = m.NKV == m.NH ? "qkv" : m.NKV == 1 ? "mqa" : "gqa";
    const std::string activation = field<std::string>(c, "hidden_act", where, "gelu_pytorch_tanh");
    ensure_usage(activation == "gelu_pytorch_tanh" || activation == "gelu_new",
                 "%s: hidden_act is %s; the engine has tanh-GELU", where.c_str(), printable(activation).c_str());
    must_be(c, "norm_epsilon", 1e-5, where);
    must_be(c, "use_bias", true, where);
    must_be(c, "tie_word_embeddings", true, where);
    must_be(c, "sliding_window", nullptr, where);
    must_be(c, "rope_scaling", nullptr, where);
    const int64_t rows = size_field(c, "vocab_size", where), C = m.C, F = m.F, q = int64_t(m.NH) * m.HS, kv = int64_t(m.NKV) * m.HS;
    ensure_usage(rows >= V, "%s: the model has %lld tokens, its tokenizer %lld", where.c_str(), (long long)rows, (long long)V);
    add_embedding(r.tensors, f, "model.embed_tokens.weight", rows, V, C);
    for (int l = 0; l < m.L; l++) {
        const std::string to = "h." + std::to_string(l) + ".", from = "model.layers." + std::to_string(l) + ".";
        for (const char* part : {".weight", ".bias"}) {
            add(r.tensors, f, to + "ln_1" + part, from + "input_layernorm" + part, {C});
            add(r.tensors, f, to + "ln_2" + part, from + "post_attention_layernorm" + part, {C});
        }
        struct { const char* name; int64_t out, in; } parts[] = {{"q", q, C}, {"k", kv, C}, {"v", kv, C}, {"o", C, q}};
        for (auto [name, out, in] : parts) {
            add(r.tensors, f, to + "attn." + name + ".weight", from + "self_attn." + name + "_proj.weight", {out, in});
            add(r.tensors, f, to + "attn." + name + ".bias", from + "self_attn." + name + "_proj.bias", {out});
        }
        add(r.tensors, f, to + "mlp.fc.weight", from + "mlp.c_fc.weight", {F, C});
        add(r.tensors, f, to + "mlp.fc.bias", from + "mlp.c_fc.bias", {F});
        add(r.tensors, f, to + "mlp.proj.weight", from + "mlp.c_proj.weight", {C, F});
        add(r.tensors, f, to + "mlp.proj.bias", from + "mlp.c_proj.bias", {C});
    }
    for (const char* part : {".weight", ".bias"}) add(r.tensors, f, std::string("ln_f") + part, std::string("model.norm") + part, {C});
    return r;
}

Tokenizer find_tokenizer(const std::string& dir, const std::string& given) {
    if (!given.empty()) return tokenizer_load(given);
    if (file_exists(dir + "/tokenizer.json")) return tokenizer_load(dir + "/tokenizer.json");
    if (file_exists(dir + "/vocab.json") && file_exists(dir + "/merges.txt"))
        return tokenizer_load_gpt2(dir + "/vocab.json", dir + "/merges.txt");
    fail_usage("%s: no tokenizer.json in it, nor vocab.json with merges.txt; give --tokenizer FILE", dir.c_str());
}

int import_model(int argc, char** argv) {
    std::string tokenizer_path;
    std::vector<std::string> words;
    std::vector<Argument> table = {{"tokenizer", "FILE", "byte-level BPE; default: the folder's own", &tokenizer_path}};
    if (!arguments_parse(table,
                         "import DIR RUN [options]    a transformers folder (GPT2LMHeadModel, "
                         "Starcoder2ForCausalLM) as a run",
                         argc, argv, words))
        return EXIT_DONE;
    ensure_usage(words.size() == 2, "give the folder and the run to make: import DIR runs/NAME");
    const std::string dir = words[0], run = fs::path(words[1]).lexically_normal().string(), where = dir + "/config.json";
    ensure_usage(fs::is_directory(dir), "%s: no such folder", printable(dir).c_str());
    ensure_usage(file_exists(where), "%s: no config.json in it", printable(dir).c_str());
    ensure_usage(!fs::exists(run), "%s: exists; choose another name", printable(run).c_str());
    ensure_usage(file_exists(dir + "/model.safetensors"), "%s: no model.safetensors in it%s", printable(dir).c_str(),
                 file_exists(dir + "/model.safetensors.index.json")
                     ? " (the weights are in several files; save them as one)"
                     : "; save_pretrained writes one");
    const json config = json_parse(file_read(where, 1 << 20), where);
    ensure_usage(config.is_object(), "%s: not an object", where.c_str());
    const Tokenizer tokenizer = find_tokenizer(dir, tokenizer_path);
    const SafetensorsFile f = safetensors_open(dir + "/model.safetensors");
    const std::string type = field<std::string>(config, "model_type", where);
    ensure_usage(type == "gpt2" || type == "starcoder2", "%s: model_type is %s; gpt2 and starcoder2 can be imported",
                 where.c_str(), printable(type).c_str());
    Imported model = type == "gpt2" ? gpt2(config, where, f, int64_t(tokenizer.vocab_size()))
                                    : starcoder2(config, where, f, int64_t(tokenizer.vocab_size()));
    model.options.tokenizer = run + "/tokenizer.json";
    model.options.run = fs::path(run).filename().string();
    json description = {{"attn", model.attn}, {"options", json::parse(options_to_json(model.options))}, {"imported_from", dir},
                        {"data", {{"tokenizer_fingerprint", tokenizer_fingerprint(tokenizer)}}}};
    const json state = {{"step", 0}, {"run", description}};
    try {
        fs::create_directories(run);
        tokenizer_save(tokenizer, run + "/tokenizer.json");
        checkpoint_save({run, 1}, 0, model.tensors, {}, state.dump(2));
        file_replace(run + "/config.json", description.dump(2) + "\n");
    } catch (...) {
        fs::remove_all(run);
        throw;
    }
    write_out(format("%s: %s, attention %s, positions %s, %zu tokens in the vocabulary; build/generate-%s %s\n",
                     run.c_str(), type.c_str(), model.attn.c_str(), position_name(model.options.model.pos),
                     tokenizer.vocab_size(), model.attn.c_str(), run.c_str()));
    return EXIT_DONE;
}
}  // namespace

int main(int argc, char** argv) { return tool_main(argc, argv, import_model); }
