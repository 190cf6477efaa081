// build/export RUN DIR: a trained model as a folder that Hugging Face's transformers opens.
//   qkv, learned positions                   GPT2LMHeadModel        (Conv1D stores matrices transposed; q, k, v in one)
//   qkv, gqa, mqa with rope                  Starcoder2ForCausalLM  (layernorm, biases, tanh-GELU, tied embeddings, half-split rope)
//   everything else                          modeling_qvcu.py in the folder (trust_remote_code=True)
// Sizes are read from the tensors, the rest from the run's options. fp32. The tokenizer is included. The folder appears
// complete or not at all.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/run/build_info.h"
#include "runtime/run/files.h"
#include "runtime/run/rundir.h"
#include "tools/arguments.h"
#include "tools/export/weights.h"
#include "tools/open_run.h"
#include "tools/tool_main.h"

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

namespace {
const char* MODELING_FILE =
#include "tools/export/modeling_qvcu.inc"
    ;

struct Model {                                   // what the tensors and the options say
    const SafetensorsFile& f;
    std::string attn, pos;
    int64_t V, T, L, C, NH, NKV, HS, F;
    double rope_theta;
};

int64_t rows_in(const SafetensorsFile& f, const std::string& name) {             // 0: no such tensor
    const TensorInfo* t = f.find(name);
    return t ? t->shape[0] : 0;
}

Model describe(const OpenedRun& run, const SafetensorsFile& f) {
    const ModelConfig& c = run.options.model;
    ensure_usage(f.find("h.0.ln_1.bias") && f.find("h.0.ln_2.bias") && f.find("ln_f.bias") &&
                     f.find("h.0.mlp.fc.bias") && f.find("h.0.mlp.proj.bias") && f.find("wte.weight"),
                 "%s: only models with layernorm and the GELU MLP can be exported yet", run.dir.c_str());
    const int64_t HS = c.HS > 0 ? c.HS : c.C / c.NH, kv = rows_in(f, "h.0.attn.v.weight");
    return {f, run.attention, position_name(c.pos), c.V, c.T, c.L, c.C, c.NH, kv > 0 ? kv / HS : c.NH, HS,
            rows_in(f, "h.0.mlp.fc.weight"), c.rope_theta};
}

void add(std::vector<TensorToWrite>& list, const Model& m, const std::string& to, const std::string& from,
         std::vector<int64_t> shape, bool transpose = false) {
    const SafetensorsFile* f = &m.f;
    std::vector<int64_t> out = transpose ? std::vector<int64_t>{shape[1], shape[0]} : shape;
    list.push_back(tensor_from(to, out, [=] {
        Floats values = tensor_floats(*f, from, shape);
        return transpose ? transposed(values, shape[0], shape[1]) : values;
    }));
}
// The embedding without the rows that pad it.
void add_embedding(std::vector<TensorToWrite>& list, const Model& m, const std::string& to) {
    const SafetensorsFile* f = &m.f;
    const int64_t V = m.V, C = m.C, rows = rows_in(m.f, "wte.weight");
    ensure(rows >= V, "%s: the embedding has %lld rows, the tokenizer %lld tokens", f->path.c_str(), (long long)rows, (long long)V);
    list.push_back(tensor_from(to, {V, C}, [=] { return rows_of(tensor_floats(*f, "wte.weight", {rows, C}), 0, V, C); }));
}

json gpt2(const Model& m, std::vector<TensorToWrite>& list) {
    add_embedding(list, m, "transformer.wte.weight");
    add(list, m, "transformer.wpe.weight", "wpe.weight", {m.T, m.C});
    const SafetensorsFile* f = &m.f;
    const int64_t C = m.C, F = m.F;
    for (int64_t l = 0; l < m.L; l++) {
        const std::string from = "h." + std::to_string(l) + ".", to = "transformer." + from;
        for (const char* norm : {"ln_1", "ln_2"})
            for (const char* part : {".weight", ".bias"}) add(list, m, to + norm + part, from + norm + part, {C});
        list.push_back(tensor_from(to + "attn.c_attn.weight", {C, 3 * C}, [=] {
            return transposed(stacked({tensor_floats(*f, from + "attn.q.weight", {C, C}),
                                       tensor_floats(*f, from + "attn.k.weight", {C, C}),
                                       tensor_floats(*f, from + "attn.v.weight", {C, C})}),
                              3 * C, C);
        }));
        list.push_back(tensor_from(to + "attn.c_attn.bias", {3 * C}, [=] {
            return stacked({tensor_floats(*f, from + "attn.q.bias", {C}), tensor_floats(*f, from + "attn.k.bias", {C}),
                            tensor_floats(*f, from + "attn.v.bias", {C})});
        }));
        add(list, m, to + "attn.c_proj.weight", from + "attn.o.weight", {C, C}, true);
        add(list, m, to + "attn.c_proj.bias", from + "attn.o.bias", {C});
        add(list, m, to + "mlp.c_fc.weight", from + "mlp.fc.weight", {F, C}, true);
        add(list, m, to + "mlp.c_fc.bias", from + "mlp.fc.bias", {F});
        add(list, m, to + "mlp.c_proj.weight", from + "mlp.proj.weight", {C, F}, true);
        add(list, m, to + "mlp.c_proj.bias", from + "mlp.proj.bias", {C});
    }
    add(list, m, "transformer.ln_f.weight", "ln_f.weight", {C});
    add(list, m, "transformer.ln_f.bias", "ln_f.bias", {C});
    return {{"architectures", {"GPT2LMHeadModel"}}, {"model_type", "gpt2"}, {"vocab_size", m.V}, {"n_positions", m.T},
            {"n_ctx", m.T}, {"n_embd", C}, {"n_layer", m.L}, {"n_head", m.NH}, {"n_inner", F},
            {"activation_function", "gelu_new"}, {"layer_norm_epsilon", 1e-5}, {"attn_pdrop", 0.0}, {"embd_pdrop", 0.0},
            {"resid_pdrop", 0.0}, {"tie_word_embeddings", true}};
}

json starcoder2(const Model& m, std::vector<TensorToWrite>& list) {
    const int64_t C = m.C, q = m.NH * m.HS, kv = m.NKV * m.HS;
    add_embedding(list, m, "model.embed_tokens.weight");
    for (int64_t l = 0; l < m.L; l++) {
        const std::string from = "h." + std::to_string(l) + ".", to = "model.layers." + std::to_string(l) + ".";
        for (const char* part : {".weight", ".bias"}) {
            add(list, m, to + "input_layernorm" + part, from + "ln_1" + part, {C});
            add(list, m, to + "post_attention_layernorm" + part, from + "ln_2" + part, {C});
        }
        struct { const char* name; int64_t out, in; } parts[] = {{"q", q, C}, {"k", kv, C}, {"v", kv, C}, {"o", C, q}};
        for (auto [name, out, in] : parts) {
            add(list, m, to + "self_attn." + name + "_proj.weight", from + "attn." + name + ".weight", {out, in});
            add(list, m, to + "self_attn." + name + "_proj.bias", from + "attn." + name + ".bias", {out});
        }
        add(list, m, to + "mlp.c_fc.weight", from + "mlp.fc.weight", {m.F, C});
        add(list, m, to + "mlp.c_fc.bias", from + "mlp.fc.bias", {m.F});
        add(list, m, to + "mlp.c_proj.weight", from + "mlp.proj.weight", {C, m.F});
        add(list, m, to + "mlp.c_proj.bias", from + "mlp.proj.bias", {C});
    }
    add(list, m, "model.norm.weight", "ln_f.weight", {C});
    add(list, m, "model.norm.bias", "ln_f.bias", {C});
    return {{"architectures", {"Starcoder2ForCausalLM"}}, {"model_type", "starcoder2"}, {"vocab_size", m.V},
            {"hidden_size", C}, {"intermediate_size", m.F}, {"num_hidden_layers", m.L}, {"num_attention_heads", m.NH},
            {"num_key_value_heads", m.NKV}, {"head_dim", m.HS}, {"max_position_embeddings", m.T},
            {"rope_theta", m.rope_theta}, {"hidden_act", "gelu_pytorch_tanh"}, {"norm_type", "layer_norm"},
            {"norm_epsilon", 1e-5}, {"use_bias", true}, {"sliding_window", nullptr}, {"attention_dropout", 0.0},
            {"residual_dropout", 0.0}, {"embedding_dropout", 0.0}, {"tie_word_embeddings", true}};
}

json own_file(const Model& m, const OpenedRun& run, std::vector<TensorToWrite>& list) {
    const std::set<std::string> known = {"qkv", "mqa", "gqa", "mla", "qv", "qv_ka", "gta"};
    ensure_usage(known.count(m.attn), "%s: attention %s cannot be exported: modeling_qvcu.py does not have it",
                 run.dir.c_str(), printable(m.attn).c_str());
    for (const TensorInfo& t : m.f.tensors) {
        if (t.name == "wte.weight") add_embedding(list, m, t.name);
        else add(list, m, t.name, t.name, t.shape);
    }
    const json options = json::parse(run.description_json).at("options");
    const TensorInfo* key = m.f.find("h.0.attn.k.weight");
    return {{"architectures", {"QvcuForCausalLM"}}, {"model_type", "qvcu"},
            {"auto_map",
             {{"AutoConfig", "modeling_qvcu.QvcuConfig"}, {"AutoModelForCausalLM", "modeling_qvcu.QvcuForCausalLM"}}},
            {"attn", m.attn}, {"pos", m.pos}, {"vocab_size", m.V}, {"n_positions", m.T}, {"n_layer", m.L},
            {"hidden_size", m.C}, {"n_head", m.NH}, {"n_kv_head", m.NKV}, {"head_dim", m.HS}, {"mlp_width", m.F},
            {"rope_theta", m.rope_theta}, {"qv_rope", options.value("qv_rope", "key")},
            {"qvka_dctx", rows_in(m.f, "h.0.attn.ctx.weight")},
            {"qvka_tied", m.attn == "qv_ka" && key && key->shape.size() == 2},
            {"mla_dc", rows_in(m.f, "h.0.attn.dkv.weight")}, {"mla_dr", rows_in(m.f, "h.0.attn.kr.weight")},
            {"mla_dcq", rows_in(m.f, "h.0.attn.dq.weight")}, {"use_cache", false}, {"tie_word_embeddings", false}};
}

int export_run(int argc, char** argv) {
    std::string tokenizer;
    bool overwrite = false;
    std::vector<std::string> words;
    std::vector<Argument> table = {{"tokenizer", "FILE", "where the run's tokenizer is now", &tokenizer},
                                   {"overwrite", "", "replace DIR", &overwrite}};
    if (!arguments_parse(table, "export RUN DIR [options]    a trained model as a folder that transformers opens", argc,
                         argv, words))
        return EXIT_DONE;
    ensure_usage(words.size() == 2, "give a run's folder and the folder to write: export runs/NAME DIR");
    const OpenedRun run = open_run(words[0], tokenizer, Program{.variants = build_info().variants}, "export");
    const std::string dir = fs::path(words[1]).lexically_normal().string();
    const bool ours = file_exists(dir + "/config.json") && file_exists(dir + "/model.safetensors");
    ensure_usage(!fs::exists(dir) || fs::is_empty(dir) || (overwrite && ours),
                 fs::exists(dir) && ours ? "%s: exists; --overwrite replaces it"
                                         : "%s: exists and is not an exported model; choose another folder",
                 printable(dir).c_str());
    const SafetensorsFile f = safetensors_open(run.checkpoint + "/model.safetensors");
    const Model m = describe(run, f);
    std::vector<TensorToWrite> tensors;
    json config;
    const bool heads = m.attn == "qkv" || m.attn == "gqa" || m.attn == "mqa";
    bool own = false;
    if (m.attn == "qkv" && m.pos == "learned" && m.NH * m.HS == m.C) config = gpt2(m, tensors);
    else if (heads && m.pos == "rope") config = starcoder2(m, tensors);
    else config = own_file(m, run, tensors), own = true;
    const int64_t end = run.tokenizer.special_id("<|endoftext|>");
    config["bos_token_id"] = config["eos_token_id"] = end >= 0 ? json(end) : json(nullptr);
    config[own ? "dtype" : "torch_dtype"] = "float32";
    json words_of = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"model_max_length", m.T}, {"clean_up_tokenization_spaces", false}};
    if (end >= 0) words_of["eos_token"] = words_of["bos_token"] = words_of["unk_token"] = "<|endoftext|>";

    const std::string building = dir + ".tmp";
    fs::remove_all(building);
    fs::create_directories(building);
    try {
        safetensors_write(building + "/model.safetensors", tensors, {{"format", "pt"}});
        file_write(building + "/config.json", config.dump(2) + "\n");
        file_write(building + "/tokenizer_config.json", words_of.dump(2) + "\n");
        tokenizer_save(run.tokenizer, building + "/tokenizer.json");
        if (own) file_write(building + "/modeling_qvcu.py", MODELING_FILE);
        ensure(!stop_requested(), "stopped; nothing is written");
        fs::remove_all(dir);
        rename_durably(building, dir);
    } catch (...) {
        fs::remove_all(building);
        throw;
    }
    write_out(format("%s: %s, %s, from step %lld of %s%s\n", dir.c_str(),
                     config["architectures"][0].get<std::string>().c_str(),
                     human_bytes(double(fs::file_size(dir + "/model.safetensors"))).c_str(), (long long)run.step,
                     run.dir.c_str(), own ? "; open it with trust_remote_code=True" : ""));
    return EXIT_DONE;
}
}  // namespace

int main(int argc, char** argv) { return tool_main(argc, argv, export_run); }
