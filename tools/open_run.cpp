// Opening a run; see open_run.h.
#include "tools/open_run.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/run/checkpoint.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"

namespace fs = std::filesystem;
using nlohmann::json;

static std::string find_folder(const std::string& path) {
    ensure_usage(!path.empty(), "which run? give its folder, such as runs/NAME");
    if (fs::is_directory(path)) return fs::path(path).lexically_normal().string();
    ensure_usage(!fs::exists(path), "%s: is not a folder; give a run's folder, such as runs/NAME", printable(path).c_str());
    const std::string by_name = "runs/" + path;
    if (path.find('/') == std::string::npos && fs::is_directory(by_name)) return by_name;
    fail_usage("%s: no such folder; give a run's folder, such as runs/NAME", printable(path).c_str());
}

static std::string find_tokenizer(const Options& o, const std::string& given) {
    if (!given.empty()) return given;
    return o.tokenizer.empty() ? o.data + "/tokenizer.json" : o.tokenizer;
}

OpenedRun open_run(const std::string& path, const std::string& tokenizer, const Program& built, const char* program) {
    OpenedRun r;
    r.options.program = built;
    std::string folder = find_folder(path);
    while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
    const bool one_checkpoint = file_exists(folder + "/state.json");
    ensure_usage(one_checkpoint || file_exists(folder + "/config.json"), "%s: not a run's folder (no config.json in it)",
                 printable(folder).c_str());
    const CheckpointFound found = checkpoint_at(folder);
    ensure_usage(!found.dir.empty(), "%s: this run has no checkpoint yet", printable(folder).c_str());
    r.dir = one_checkpoint ? parent_folder(parent_folder(folder)) : folder;
    r.checkpoint = found.dir;
    const json whole = json_parse(found.state_json, r.checkpoint + "/state.json");
    ensure(whole.is_object() && whole.contains("run") && whole["run"].is_object(),
           "%s/state.json: does not say what was trained", r.checkpoint.c_str());
    const json run = whole["run"];
    r.step = whole.contains("step") && whole["step"].is_number_integer() ? whole["step"].get<int64_t>() : 0;
    r.attention = run.contains("attn") && run["attn"].is_string() ? run["attn"].get<std::string>() : "?";
    r.description_json = run.dump();
    ensure_usage(!*built.attn || r.attention == built.attn,
                 "%s was trained with attention %s, this program has %s; use build/%s-%s (make %s ATTN=%s)",
                 r.dir.c_str(), printable(r.attention).c_str(), built.attn, program, printable(r.attention).c_str(),
                 program, printable(r.attention).c_str());
    if (*built.attn) {
        const Program plain;
        const std::string norm = run.value("norm", plain.norm), mlp = run.value("mlp", plain.mlp);
        ensure_usage(norm == built.norm && mlp == built.mlp,
                     "%s was trained with norm %s and MLP %s, this program has %s and %s; "
                     "make %s ATTN=%s NORM=%s MLP=%s",
                     r.dir.c_str(), printable(norm).c_str(), printable(mlp).c_str(), built.norm, built.mlp, program,
                     built.attn, printable(norm).c_str(), printable(mlp).c_str());
    }
    options_from_json(r.options, r.description_json, r.checkpoint + "/state.json");
    r.tokenizer_path = find_tokenizer(r.options, tokenizer);
    ensure_usage(file_exists(r.tokenizer_path), "%s: the run's tokenizer is no longer there; give --tokenizer FILE",
                 printable(r.tokenizer_path).c_str());
    r.tokenizer = tokenizer_load(r.tokenizer_path);
    r.options.model.V = int(r.tokenizer.vocab_size());
    const json data = run.value("data", json::object());
    const std::string want = data.is_object() && data.contains("tokenizer_fingerprint") && data["tokenizer_fingerprint"].is_string()
                                 ? data["tokenizer_fingerprint"].get<std::string>() : "";
    ensure_usage(want.empty() || want == tokenizer_fingerprint(r.tokenizer),
                 "%s: is not the tokenizer that %s was trained with; give --tokenizer FILE",
                 printable(r.tokenizer_path).c_str(), r.dir.c_str());
    return r;
}
