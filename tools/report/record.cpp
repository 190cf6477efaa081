// Records of runs; see record.h.
#include "tools/report/record.h"

#include <filesystem>

#include "runtime/run/files.h"

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

static void replace_if_changed(const std::string& path, const std::string& text) {
    if (!text.empty() && read_text(path) != text) file_replace(path, text);
}

// Where a run's files lie says nothing about its result and names a machine: of an absolute path the last part stays.
static void shorten_paths(json& j) {
    for (auto& [key, value] : j.items()) {
        if (value.is_structured()) shorten_paths(value);
        else if (value.is_string() && fs::path(value.get<std::string>()).is_absolute())
            value = fs::path(value.get<std::string>()).lexically_normal().filename().string();
    }
}

static std::string dumped(const json& j, int indent) { return j.dump(indent, ' ', false, json::error_handler_t::replace) + "\n"; }

void write_record_json(const std::string& path, json j) {
    shorten_paths(j);
    fs::create_directories(fs::path(path).parent_path());
    replace_if_changed(path, dumped(j, 1));
}

static std::string thinned_metrics(const Run& run) {
    // Six digits of a training loss: a picture shows three. Steps of thinned points are not whole; they stand for a few each.
    std::string text;
    for (size_t i = 0; i < run.train.tokens.size(); i++)
        text += format("{\"tokens\":%.6g,\"loss\":%.6g}\n", run.train.tokens[i], run.train.loss[i]);
    const double per_step = number_at(run.options, "batch_tokens");
    for (size_t i = 0; i < run.val.tokens.size(); i++) {
        const bool last = i + 1 == run.val.tokens.size();
        ordered_json line;
        if (last) line["step"] = run.last_step;
        else if (per_step > 0) line["step"] = int64_t(run.val.tokens[i] / per_step);
        line["tokens"] = run.val.tokens[i];
        line["val_loss"] = run.val.loss[i];
        if (last) {
            for (auto& [key, value] :
                 {std::pair{"seconds", run.seconds}, {"bits_per_byte", run.bits_per_byte}, {"tokens_per_second", run.tokens_per_second}})
                line[key] = std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
        }
        if (std::isfinite(run.accuracies[i])) line["accuracy"] = run.accuracies[i];
        text += line.dump() + "\n";
    }
    return text;
}

bool write_record(const std::string& from, const std::string& to, Problems& problems) {
    Run run = read_run_folder(from, problems);
    if (!run.finished()) return false;
    if (std::isnan(run.unigram)) {
        try {
            run.unigram = unigram_baseline(run);
        } catch (const std::exception&) {        // the text is gone: the record then has no unigram baseline
        }
    }
    json config = run.config;
    shorten_paths(config);
    if (config.contains("options") && config["options"].is_object()) config["options"].erase("runs_dir");
    if (!std::isnan(run.unigram)) config["record"] = {{"unigram", run.unigram}};
    fs::create_directories(to);
    replace_if_changed(to + "/config.json", dumped(config, 1));
    replace_if_changed(to + "/metrics.jsonl", thinned_metrics(run));
    if (!run.sequences.empty()) replace_if_changed(to + "/val_sequences.f32", read_text(from + "/val_sequences.f32"));
    if (!run.positions.empty()) replace_if_changed(to + "/val_positions.f32", read_text(from + "/val_positions.f32"));
    if (!run.sample.empty())
        replace_if_changed(to + "/samples.txt",
                           format("=== step %lld, %zu bytes ===\n", (long long)run.last_step, run.sample.size()) + run.sample + "\n\n");
    return true;
}

size_t write_records(const std::string& from, const std::string& to, Problems& problems) {
    ensure(fs::is_directory(from), "%s: not a folder; give a run's folder or a comparison's", from.c_str());
    auto name_of = [](const fs::path& p) { return (p.filename().empty() ? p.parent_path() : p).filename().string(); };
    if (is_run_folder(from)) return write_record(from, to + "/" + name_of(from), problems);
    size_t written = 0, runs = 0;
    for (const char* part : {"", "/tune", "/match-params", "/match-cache", "/match-flops"}) {
        if (!fs::is_directory(from + part)) continue;
        for (auto& entry : fs::directory_iterator(from + part)) {
            if (!entry.is_directory() || !is_run_folder(entry.path().string())) continue;
            runs++;
            written += write_record(entry.path().string(), to + part + "/" + name_of(entry.path()), problems);
        }
        for (const char* file : {"/comparison.json", "/learning_rates.json"}) {
            const json j = read_json(from + part + file);
            if (j.is_object()) write_record_json(to + part + file, j);
        }
    }
    ensure(runs > 0, "%s: no run in it (a folder with config.json and metrics.jsonl)", from.c_str());
    return written;
}
