// Reads a run's folder; see run.h.
#include "tools/report/run.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "dataloader/dataloader.h"

namespace fs = std::filesystem;
using nlohmann::json;

static constexpr size_t TRAIN_POINTS = 120;          // of a training curve: enough for a picture, small in a record
static constexpr uintmax_t MAX_BYTES = uintmax_t(1) << 30;

double number_at(const json& j, const char* key) {
    auto it = j.is_object() ? j.find(key) : j.end();
    return it != j.end() && it->is_number() ? it->get<double>() : NOT_MEASURED;
}
std::string text_at(const json& j, const char* key) {
    auto it = j.is_object() ? j.find(key) : j.end();
    if (it == j.end() || it->is_null()) return "";
    return it->is_string() ? it->get<std::string>() : it->dump(-1, ' ', false, json::error_handler_t::replace);
}
json object_at(const json& j, const char* key) {
    auto it = j.is_object() ? j.find(key) : j.end();
    return it != j.end() && it->is_object() ? *it : json::object();
}
int64_t integer_at(const json& j, const char* key) {
    double v = number_at(j, key);
    return v >= 0 && v < 9e15 ? int64_t(v) : -1;
}

// A FIFO in a file's place would make open() wait for ever: only regular files are opened.
std::string read_text(const std::string& path) {
    std::error_code error;
    if (!fs::is_regular_file(path, error) || fs::file_size(path, error) > MAX_BYTES) return "";
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
json read_json(const std::string& path) { return json::parse(read_text(path), nullptr, /*allow_exceptions*/ false); }

std::string Run::data_key() const { return fingerprint + (std::isnan(val_tokens) ? "" : format(", %.0f validation tokens", val_tokens)); }

// What is harmless to the curve, or is shown in a column of its own.
static bool tells_rows_apart(const std::string& key) {
    static const std::set<std::string> harmless = {
        "pos",         "seed",         "run",           "runs_dir",     "resume",    "overwrite",  "config",
        "config_file", "threads",      "quiet",         "dry_run",      "stop_at",   "save_every", "keep",
        "val_every",   "sample_every", "sample_tokens", "temperature",  "top_k",     "top_p",      "min_p",
        "prompt",      "micro_batch",  "recompute",     "comm_timeout", "rank_logs", "zero",       "deterministic_ranks",
        "tokenizer",   "val_tokens",   "cuda_graphs"};
    return !harmless.count(key);
}

void read_config(Run& run, const json& config) {
    run.config = config;
    const json model = object_at(config, "model"), machine = object_at(config, "machine"), build = object_at(config, "build"),
               data = object_at(config, "data");
    run.options = object_at(config, "options");
    if (auto s = text_at(config, "attn"); !s.empty()) run.attn = s;
    for (const auto& [key, plain] : {std::pair{"norm", "layernorm"}, {"mlp", "gelu"}})          // another norm or MLP is another row
        if (auto s = text_at(config, key); !s.empty() && s != plain) run.attn += "-" + s;
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
    run.unigram = number_at(object_at(config, "record"), "unigram");
    for (auto& [key, value] : data.items())              // train_fingerprint, val_fingerprint, tokenizer_fingerprint
        if (key.ends_with("fingerprint"))
            run.fingerprint += (run.fingerprint.empty() ? "" : ", ") + key.substr(0, key.find('_')) + " " + text_at(data, key.c_str());
    for (auto& [key, value] : run.options.items())
        if (tells_rows_apart(key) && !(key == "data" && !run.fingerprint.empty())) run.identity[key] = text_at(run.options, key.c_str());
    for (const json* part : {&config, &model, &build})   // chosen when the program was built
        for (const char* key : {"norm", "mlp", "backend", "precision"})
            if (auto s = text_at(*part, key); !s.empty()) run.identity[key] = s;
}

static void read_metrics(Run& run, Problems& problems) {
    std::string path = run.dir + "/metrics.jsonl", line;
    Curve train;
    std::vector<double> speeds;
    size_t line_number = 0, broken = 0, first_broken = 0;
    std::ifstream file;
    if (fs::is_regular_file(path)) file.open(path);
    while (file.is_open() && std::getline(file, line)) {
        line_number++;
        if (line.empty()) continue;
        json m = json::parse(line, nullptr, false);
        double tokens = number_at(m, "tokens");
        if (!m.is_object() || std::isnan(tokens)) {
            if (broken++ == 0) first_broken = line_number;
            continue;
        }
        run.last_step = std::max(run.last_step, integer_at(m, "step"));
        if (double v = number_at(m, "loss"); std::isfinite(v)) {
            train.tokens.push_back(tokens);
            train.loss.push_back(v);
        }
        if (double v = number_at(m, "val_loss"); std::isfinite(v)) {
            run.val.tokens.push_back(tokens);
            run.val.loss.push_back(v);
            run.bits_per_byte = number_at(m, "bits_per_byte");
            run.accuracies.push_back(number_at(m, "accuracy"));
        }
        if (double v = number_at(m, "tokens_per_second"); std::isfinite(v)) speeds.push_back(v);
        if (double v = number_at(m, "seconds"); std::isfinite(v)) run.seconds = v;
    }
    run.train = thinned(train, TRAIN_POINTS);
    run.tokens_per_second = median(speeds);      // of the steps: pauses and other programs disturb a mean
    if (broken) problems.push_back(format("%s: %zu of %zu lines are not a metrics object (first: line %zu); they were skipped.",
                                          path.c_str(), broken, line_number, first_broken));
}

static void say_what_is_missing(const Run& run, Problems& problems) {
    if (run.train.loss.empty() && run.val.loss.empty())
        problems.push_back(run.dir + "/metrics.jsonl holds no measurement: this run has not trained, it has no loss in the table.");
    else if (run.val.loss.empty())
        problems.push_back(
            run.dir + "/metrics.jsonl holds no validation loss (every run measures one at its end): it is left out of the differences.");
    else if (!run.finished())
        problems.push_back(format("%s stopped at step %lld of %lld: its loss is shown with *, and left out of the differences.",
                                  run.name.c_str(), (long long)run.last_step, (long long)run.steps));
}

std::vector<double> read_floats(const std::string& path) {
    std::string bytes = read_text(path);
    std::vector<double> values(bytes.size() / sizeof(float));
    for (size_t i = 0; i < values.size(); i++) {
        float v;
        memcpy(&v, bytes.data() + i * sizeof v, sizeof v);
        values[i] = v;
    }
    return values;
}

// The sequences' mean is the validation loss: if not, they are another moment's or another model's.
static void read_sequences(Run& run, Problems& problems) {
    if (!run.finished()) return;
    std::vector<double> values = read_floats(run.dir + "/val_sequences.f32");
    if (values.empty()) return;
    double difference = std::abs(mean(values) - run.val_loss());
    if (difference < 1e-3) run.sequences = values;
    else
        problems.push_back(
            format("%s/val_sequences.f32: the mean of its %zu sequences is %.6f, the validation loss is %.6f: it was left out.",
                   run.dir.c_str(), values.size(), mean(values), run.val_loss()));
    values = read_floats(run.dir + "/val_positions.f32");
    if (!values.empty() && std::abs(mean(values) - run.val_loss()) < 1e-3) run.positions = values;
}

// The text of the last section of samples.txt: "=== step N, BYTES bytes ===" and so many bytes.
static std::string last_sample(const std::string& text) {
    size_t title = text.rfind("=== step ");
    if (title == std::string::npos || (title > 0 && text[title - 1] != '\n')) return "";
    long long step;
    size_t bytes, begin = text.find('\n', title);
    if (begin == std::string::npos || sscanf(text.c_str() + title, "=== step %lld, %zu bytes ===", &step, &bytes) != 2) return "";
    return text.substr(begin + 1, std::min<size_t>(bytes, 1000));
}

bool is_run_folder(const std::string& dir) { return fs::exists(dir + "/config.json") || fs::exists(dir + "/metrics.jsonl"); }

Run read_run_folder(const std::string& dir, Problems& problems) {
    Run run;
    run.dir = dir;
    fs::path path(dir);
    run.name = (path.filename().empty() ? path.parent_path() : path).filename().string();
    json config = read_json(dir + "/config.json");
    if (config.is_object()) {
        read_config(run, config);
    } else {
        problems.push_back(dir + "/config.json is missing or is not a JSON object: this run is shown by its folder's name only.");
        run.attn = run.name;
    }
    read_metrics(run, problems);
    say_what_is_missing(run, problems);
    read_sequences(run, problems);
    run.sample = last_sample(read_text(dir + "/samples.txt"));
    return run;
}

double unigram_baseline(const Run& run) {
    int64_t T = integer_at(run.options, "context"), V = int64_t(run.vocab_size), val_limit = integer_at(run.options, "val_tokens");
    std::string data = text_at(run.options, "data");
    ensure(T > 0 && run.vocab_size > 0 && run.vocab_size < 1e9 && !data.empty(), "config.json names no context, vocabulary or data folder");
    Dataset train = dataset_open(data, "train", size_t(T), size_t(V)), val = dataset_open(data, "val", size_t(T), size_t(V));
    ensure(run.train_fingerprint.empty() || run.train_fingerprint == train.fingerprint,
           "%s holds other training tokens now than the runs saw", data.c_str());
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
