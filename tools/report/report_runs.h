// Reads finished (or broken, or half-done) runs: runs/NAME/RUN/config.json and metrics.jsonl -> struct Run -> one Row per variant
// and position. A field that is missing or null is NaN and is shown as "-"; nothing that a run's files hold makes the report
// crash. Problems are collected as sentences, to be shown under the table.
#pragma once
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>
#include <nlohmann/json.hpp>
#include "dataloader/dataloader.h"
#include "runtime/run/error.h"
#include "tools/report/report_stats.h"

struct Curve { std::vector<double> tokens, loss; };

struct Run {
    std::string name, dir, attn = "-", pos = "-", cpu, threads, commit, compiler, backend, precision, fingerprint, train_fingerprint;
    nlohmann::json options = nlohmann::json::object();
    int64_t seed = -1, steps = -1, last_step = -1;
    double parameters = NOT_MEASURED, parameters_non_embedding = NOT_MEASURED, cache_bytes_per_token = NOT_MEASURED;
    double flops_per_token = NOT_MEASURED, vocab_size = NOT_MEASURED, train_tokens = NOT_MEASURED, val_tokens = NOT_MEASURED;
    double tokens_per_second = NOT_MEASURED, seconds = NOT_MEASURED, bits_per_byte = NOT_MEASURED;
    Curve train, val;
    bool finished() const { return !val.loss.empty() && (steps < 0 || last_step >= steps); }
    double val_loss() const { return val.loss.empty() ? NOT_MEASURED : val.loss.back(); }
};

struct Row {                       // one line of the table: a variant at a position, over its seeds
    std::string attn, pos;
    std::vector<Run> runs;         // by seed
};

// Lenient access: the value at `key` as a number or text, whatever else is there.
inline double number_at(const nlohmann::json& j, const char* key) {
    auto it = j.is_object() ? j.find(key) : j.end();
    return it != j.end() && it->is_number() ? it->get<double>() : NOT_MEASURED;
}
inline std::string text_at(const nlohmann::json& j, const char* key) {
    auto it = j.is_object() ? j.find(key) : j.end();
    if (it == j.end() || it->is_null()) return "";
    return it->is_string() ? it->get<std::string>() : it->dump();
}
inline nlohmann::json object_at(const nlohmann::json& j, const char* key) {
    auto it = j.is_object() ? j.find(key) : j.end();
    return it != j.end() && it->is_object() ? *it : nlohmann::json::object();
}
inline int64_t integer_at(const nlohmann::json& j, const char* key) {
    double v = number_at(j, key);
    return v >= 0 && v < 9e15 ? int64_t(v) : -1;
}

inline void read_config(Run& run, std::vector<std::string>& problems) {
    std::string path = run.dir + "/config.json";
    std::ifstream file(path);
    nlohmann::json config = nlohmann::json::parse(file, nullptr, /*allow_exceptions*/ false);
    if (!config.is_object()) {
        problems.push_back(path + " is missing or is not a JSON object: this run is shown by its folder's name only.");
        run.attn = run.name;
        return;
    }
    nlohmann::json model = object_at(config, "model"), machine = object_at(config, "machine");
    nlohmann::json build = object_at(config, "build"), data = object_at(config, "data");
    run.options = object_at(config, "options");
    if (auto s = text_at(config, "attn"); !s.empty()) run.attn = s;
    if (auto s = text_at(run.options, "pos"); !s.empty()) run.pos = s;
    run.seed = integer_at(run.options, "seed");
    run.steps = integer_at(run.options, "steps");
    run.parameters = number_at(model, "parameters");
    run.parameters_non_embedding = number_at(model, "parameters_non_embedding");
    run.cache_bytes_per_token = number_at(model, "cache_bytes_per_token");
    run.flops_per_token = number_at(model, "flops_per_token");
    run.vocab_size = number_at(model, "vocab_size");
    run.cpu = text_at(machine, "cpu");
    run.threads = text_at(machine, "threads");
    run.commit = text_at(build, "commit");
    run.compiler = text_at(build, "compiler");
    run.backend = text_at(build, "backend");
    run.precision = text_at(build, "precision");
    run.train_tokens = number_at(data, "train_tokens");
    run.val_tokens = number_at(data, "val_tokens");
    run.train_fingerprint = text_at(data, "train_fingerprint");
    for (auto& [key, value] : data.items())              // train_fingerprint, val_fingerprint, tokenizer_fingerprint
        if (key.ends_with("fingerprint")) run.fingerprint += (run.fingerprint.empty() ? "" : ", ") + key.substr(0, key.find('_')) + " " + text_at(data, key.c_str());
}

inline void read_metrics(Run& run, std::vector<std::string>& problems) {
    std::string path = run.dir + "/metrics.jsonl", line;
    std::ifstream file(path);
    std::vector<double> speeds;
    size_t line_number = 0, broken = 0, first_broken = 0;
    while (std::getline(file, line)) {
        line_number++;
        if (line.empty()) continue;
        nlohmann::json m = nlohmann::json::parse(line, nullptr, false);
        double tokens = number_at(m, "tokens");
        if (!m.is_object() || std::isnan(tokens)) {
            if (broken++ == 0) first_broken = line_number;
            continue;
        }
        run.last_step = std::max(run.last_step, integer_at(m, "step"));
        if (double v = number_at(m, "loss"); std::isfinite(v)) run.train.tokens.push_back(tokens), run.train.loss.push_back(v);
        if (double v = number_at(m, "val_loss"); std::isfinite(v)) {
            run.val.tokens.push_back(tokens);
            run.val.loss.push_back(v);
            run.bits_per_byte = number_at(m, "bits_per_byte");
        }
        if (double v = number_at(m, "tokens_per_second"); std::isfinite(v)) speeds.push_back(v);
        if (double v = number_at(m, "seconds"); std::isfinite(v)) run.seconds = v;
    }
    run.tokens_per_second = median(speeds);      // of the steps: pauses and other programs disturb a mean
    if (broken) problems.push_back(format("%s: %zu of %zu lines are not a metrics object (first: line %zu); they were skipped.",
                                          path.c_str(), broken, line_number, first_broken));
    if (run.train.loss.empty() && run.val.loss.empty())
        problems.push_back(path + " holds no measurement: this run has not trained, it has no loss in the table.");
    else if (run.val.loss.empty())
        problems.push_back(path + " holds no validation loss (every run measures one at its end): it is left out of the differences.");
    else if (!run.finished())
        problems.push_back(format("%s stopped at step %lld of %lld: its loss is shown with *, and left out of the differences.",
                                  run.name.c_str(), (long long)run.last_step, (long long)run.steps));
}

// Each argument is a run (it has a config.json) or a folder of runs.
inline std::vector<Run> load_runs(const std::vector<std::string>& folders, std::vector<std::string>& problems) {
    namespace fs = std::filesystem;
    std::set<std::string> dirs;
    auto is_run = [](const fs::path& p) { return fs::exists(p / "config.json") || fs::exists(p / "metrics.jsonl"); };
    for (auto& folder : folders) {
        ensure(fs::is_directory(folder), "%s: not a folder; give a comparison's folder (runs/NAME) or runs", folder.c_str());
        if (is_run(folder)) { dirs.insert(fs::path(folder).lexically_normal().string()); continue; }
        for (auto& entry : fs::directory_iterator(folder))
            if (entry.is_directory() && is_run(entry.path())) dirs.insert(entry.path().lexically_normal().string());
    }
    ensure(!dirs.empty(), "%s: no run in it (a folder with config.json and metrics.jsonl); train first: make compare", folders[0].c_str());
    std::vector<Run> runs;
    for (auto& dir : dirs) {
        Run run;
        run.dir = dir;
        run.name = fs::path(dir).filename().empty() ? fs::path(dir).parent_path().filename().string() : fs::path(dir).filename().string();
        read_config(run, problems);
        read_metrics(run, problems);
        runs.push_back(std::move(run));
    }
    return runs;
}

// Mean over the seeds of a value that a run may lack; `finished_only` leaves out runs that stopped early.
template <class Get> std::vector<double> per_seed(const Row& row, Get get, bool finished_only = false) {
    std::vector<double> values;
    for (auto& r : row.runs)
        if (double v = get(r); !std::isnan(v) && (!finished_only || r.finished())) values.push_back(v);
    return values;
}
inline double row_val_loss(const Row& row) {
    auto finished = per_seed(row, [](const Run& r) { return r.val_loss(); }, true);
    return mean(finished.empty() ? per_seed(row, [](const Run& r) { return r.val_loss(); }) : finished);
}

// Rows by position, then by final validation loss, best first.
inline std::vector<Row> group_runs(std::vector<Run> runs, std::vector<std::string>& problems) {
    std::map<std::pair<std::string, std::string>, Row> rows;
    std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return std::tie(a.seed, a.name) < std::tie(b.seed, b.name); });
    for (auto& run : runs) {
        Row& row = rows[{run.pos, run.attn}];
        row.attn = run.attn;
        row.pos = run.pos;
        if (!row.runs.empty() && row.runs.back().seed == run.seed && run.seed >= 0)
            problems.push_back(format("%s and %s are the same variant, position and seed; both are counted.",
                                      row.runs.back().name.c_str(), run.name.c_str()));
        row.runs.push_back(std::move(run));
    }
    std::vector<Row> sorted;
    for (auto& [key, row] : rows) sorted.push_back(std::move(row));
    std::stable_sort(sorted.begin(), sorted.end(), [](const Row& a, const Row& b) {
        if (a.pos != b.pos) return a.pos < b.pos;
        double x = row_val_loss(a), y = row_val_loss(b);
        return !std::isnan(x) && (std::isnan(y) || x < y);
    });
    return sorted;
}

inline const Row* find_row(const std::vector<Row>& rows, const std::string& attn, const std::string& pos) {
    for (auto& row : rows)
        if (row.attn == attn && row.pos == pos) return &row;
    return nullptr;
}

// Final validation loss of `row` minus `base`, over the seeds that both finished.
inline PairedDifference difference_to(const Row& row, const Row& base) {
    std::vector<double> a, b;
    for (auto& r : row.runs)
        for (auto& q : base.runs)
            if (r.seed == q.seed && r.finished() && q.finished()) { a.push_back(r.val_loss()); b.push_back(q.val_loss()); break; }
    return paired_difference(a, b);
}

// Options that differ between runs although a comparison should share them: the table then compares more than the variants.
inline std::vector<std::string> differing_options(const std::vector<Row>& rows) {
    static const std::set<std::string> may_differ = {"pos", "seed", "run", "runs_dir", "resume", "overwrite", "threads", "quiet", "config_file",
                                                     "save_every", "keep", "stop_at", "sample_every", "sample_tokens", "dry_run", "val_every"};
    std::map<std::string, std::set<std::string>> values;
    for (auto& row : rows)
        for (auto& run : row.runs)
            for (auto& [key, value] : run.options.items())
                if (!may_differ.count(key)) values[key].insert(value.dump());
    std::vector<std::string> out;
    for (auto& [key, set] : values) {
        if (set.size() < 2) continue;
        std::string line = key + ":";
        for (auto& v : set) line += " " + v;
        out.push_back(line);
    }
    return out;
}

// Validation loss of add-one smoothed unigram frequencies, on the very targets that the runs were validated on.
inline double unigram_baseline(const Run& run) {
    int64_t T = integer_at(run.options, "context"), V = int64_t(run.vocab_size), val_limit = integer_at(run.options, "val_tokens");
    std::string data = text_at(run.options, "data");
    ensure(T > 0 && run.vocab_size > 0 && run.vocab_size < 1e9 && !data.empty(), "config.json names no context, vocabulary or data folder");
    Dataset train = dataset_open(data, "train", size_t(T), size_t(V)), val = dataset_open(data, "val", size_t(T), size_t(V));
    ensure(run.train_fingerprint.empty() || run.train_fingerprint == train.fingerprint, "%s holds other training tokens now than the runs saw", data.c_str());
    std::vector<uint64_t> train_counts(size_t(V), 0), val_counts(size_t(V), 0);
    for (auto& shard : train.shards)
        for (uint32_t token : shard_read_all(shard)) train_counts.at(token)++;
    size_t samples = val.samples;
    if (val_limit > 0) samples = std::min(samples, std::max<size_t>(1, size_t(val_limit / T)));
    std::vector<int> inputs(static_cast<size_t>(T)), targets(static_cast<size_t>(T));
    for (size_t i = 0; i < samples; i++) {
        dataset_read(val, i, inputs.data(), targets.data());
        for (int token : targets) val_counts.at(size_t(token))++;
    }
    return unigram_loss(train_counts, val_counts);
}
