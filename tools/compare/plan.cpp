// See plan.h.
#include "tools/compare/plan.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <unistd.h>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tools/report/record.h"

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

static constexpr int64_t MOST_SEEDS = 3;     // that MINUTES gives by itself

std::vector<std::string> cell_arguments(const Settings& s, const Cell& c, int64_t seed, double lr) {
    const Size& z = s.size;
    std::vector<std::string> a = {"--pos", c.pos, "--seed", std::to_string(seed)};
    struct {
        const char* name;
        int64_t value;
    } numbers[] = {
        {"--layers", z.layers}, {"--width", z.width}, {"--heads", z.heads}, {"--context", z.context}, {"--batch-tokens", z.batch_tokens},
        {"--steps", c.steps}};
    for (auto [name, value] : numbers) a.insert(a.end(), {name, std::to_string(value)});
    a.insert(a.end(), {"--lr", number_word(lr), "--warmup", std::to_string(z.warmup), "--schedule", s.schedule, "--final-fraction",
                       s.final_fraction, "--val-tokens", std::to_string(z.val_tokens), "--val-every", std::to_string(z.val_every),
                       "--data", s.data});
    for (const auto* more : {&s.extra, &c.row.options, &c.matched}) a.insert(a.end(), more->begin(), more->end());
    return a;
}

static std::vector<std::string> trainer_command(const Settings& s, const Cell& c, const std::vector<std::string>& arguments) {
    std::vector<std::string> command = s.launch;
    command.push_back(s.trainer(c.row.variant));
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
}

static std::string matching_folder(const Settings& s, const std::string& matching) {
    return matching == "layout" ? s.folder() : s.folder() + "/match-" + matching;
}

Job cell_job(const Settings& s, const Cell& c, int64_t seed, const std::string& mark) {
    const std::vector<std::string> arguments = cell_arguments(s, c, seed, c.lr);
    Job job;
    job.folder = matching_folder(s, c.matching);
    job.run = c.row.file_name() + "-" + c.pos + "-" + std::to_string(seed);
    job.record = s.record(job.folder + "/" + job.run);
    job.records = s.records;
    job.label = c.row.name + ", " + c.pos + ", seed " + std::to_string(seed) + (c.matching == "layout" ? "" : ", equal " + c.matching);
    job.command = trainer_command(s, c, arguments);
    job.command.insert(job.command.end(), {"--save-every", std::to_string(std::max<int64_t>(1, c.steps / 5))});
    if (std::string from = s.branch_from; !from.empty()) {               // a shortcut, not another result: no part of the signature
        for (size_t at; (at = from.find("{run}")) != std::string::npos;) from.replace(at, 5, job.run);
        job.command.insert(job.command.end(), {"--branch-from", from});
    }
    for (const std::string& word : arguments) job.signature += word + " ";
    job.signature += "| data " + mark;
    if (!s.suffix.empty()) job.signature += " | trainer " + s.suffix;    // (older runs in fp32 name none)
    job.seconds = c.seconds;
    return job;
}

std::string data_mark(const std::string& data) {
    std::string text;
    std::error_code error;
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(data, error)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& f : files) {
        const std::string name = f.filename();
        if (name.ends_with(".bin") || name == "tokenizer.json")
            text += format("%s %llu\n", name.c_str(), (unsigned long long)fs::file_size(f, error));
        if (name == "source.txt") text += file_read(f, 1 << 20);
    }
    return hash_hex(text).substr(0, 16);
}

void ask_cells(const Settings& s, std::vector<Cell>& cells, bool probe, const Place& place) {
    std::vector<std::string> errors(cells.size());
    const size_t at_once = size_t(std::max(1, place.at_once));
    for (size_t first = 0; first < cells.size(); first += at_once) {
        std::vector<std::thread> asking;
        for (size_t i = first; i < std::min(cells.size(), first + at_once); i++)
            asking.emplace_back([&, i] {
                Cell planned = cells[i];
                if (!probe) planned.steps = 0;                   // nothing to time
                std::vector<std::string> command = trainer_command(s, planned, cell_arguments(s, planned, 1, planned.lr));
                command.insert(command.end(), {"--threads", std::to_string(place.threads)});
                ask_numbers(command, cells[i].numbers, errors[i]);
            });
        for (std::thread& t : asking) t.join();
    }
    for (size_t i = 0; i < cells.size(); i++)
        ensure_usage(errors[i].empty(), "%s, %s: %s", cells[i].row.name.c_str(), cells[i].pos.c_str(), errors[i].c_str());
    if (!probe) return;
    for (Cell& c : cells) {
        const double token = c.numbers.step_seconds / double(s.size.batch_tokens),
                     validations = 1 + (s.size.val_every > 0 ? double(c.steps) / double(s.size.val_every) : 0);
        c.seconds = 0.5 + double(c.steps) * c.numbers.step_seconds +
                    validations * double(s.size.val_tokens) * token / 3;    // a forward is a third
    }
}

// What the machine can give now: MemAvailable, in bytes; 0 when it does not say.
static double available_bytes() {
    std::ifstream file("/proc/meminfo");
    std::string key;
    for (double kib; file >> key >> kib; file.ignore(1000, '\n'))
        if (key == "MemAvailable:") return kib * 1024;
    return 0;
}

Place choose_place(const Settings& s, const std::vector<Cell>& cells, size_t runs) {
    const int cores = int(std::max(1u, std::thread::hardware_concurrency()));
    Place p;
    p.fresh = s.fresh;
    p.keep_going = s.keep_going;
    p.threads = s.threads;
    const bool alone = !s.launch.empty() || s.suffix.find("cuda") != std::string::npos;      // ranks, or a GPU: one trainer has it all
    if (s.at_once > 0) p.at_once = s.at_once;
    else if (alone) p.at_once = 1;
    else p.at_once = int(std::min<size_t>(size_t(std::max(1, cores / std::max(1, s.threads))), std::max<size_t>(1, runs)));
    std::vector<double> needs;
    for (const Cell& c : cells) needs.push_back(double(c.numbers.memory_bytes));
    std::sort(needs.rbegin(), needs.rend());
    const double have = 0.9 * available_bytes();
    auto need_of = [&](int n) {                                  // the n hungriest, each as often as it must
        double sum = 0;
        for (int i = 0; i < n; i++) sum += needs.empty() ? 0 : needs[size_t(i) % needs.size()];
        return sum;
    };
    if (have > 0 && s.suffix.find("cuda") == std::string::npos) {
        while (p.at_once > 1 && need_of(p.at_once) > have) p.at_once--;
        ensure(need_of(1) <= have,
               "a run needs %.1f GiB of memory and the machine has %.1f GiB free; a smaller EXTRA=\"--micro-batch N\" needs less",
               need_of(1) / 0x1p30, have / 0x1p30);
    }
    if (p.threads == 0 && !alone) p.threads = std::max(1, cores / p.at_once);
    return p;
}

OneSeed one_seed(const Settings& s, const std::vector<Cell>& cells) {
    OneSeed all;
    std::set<std::pair<std::string, std::string>> seen;
    for (const Cell& c : cells) {
        const Job job = cell_job(s, c, s.first_seed, "");
        if (!seen.insert({job.run, job.signature}).second) continue;
        all.runs++;
        all.seconds += c.seconds;
    }
    return all;
}

int64_t choose_seeds(const Settings& s, const std::vector<Cell>& cells, const Place& place) {
    if (s.seeds > 0) return s.seeds;
    // An unfinished comparison goes on as it was planned, however fast the machine is now.
    std::ifstream file(s.folder() + "/comparison.json");
    const json old = json::parse(file, nullptr, false);
    if (!s.fresh && old.is_object() && old.contains("seeds") && old["seeds"].is_array() && !old["seeds"].empty())
        return int64_t(old["seeds"].size());
    const double each = one_seed(s, cells).seconds / place.at_once;
    return std::clamp<int64_t>(int64_t(60 * s.minutes / std::max(each, 1e-9)), 1, MOST_SEEDS);
}

// What makes this comparison again, from what the environment sets; not where it runs, or how many trainers at once.
static std::string make_command(const Settings& s) {
    std::vector<std::string> words;
    for (const char* name : {"NAME", "SIZE", "VARIANTS", "POS", "SEEDS", "LOOKS", "FIRST_SEED", "MINUTES", "MATCH",
                             "CACHE", "BASELINE", "LR", "TUNE", "TUNE_STEPS", "RATES", "LAYERS", "WIDTH", "HEADS",
                             "CONTEXT", "BATCH_TOKENS", "STEPS", "WARMUP", "VAL_TOKENS", "VAL_EVERY", "SCHEDULE",
                             "FINAL_FRACTION", "DATA", "VOCAB", "EXTRA", "BRANCH_FROM", "LAUNCH", "NORM", "MLP"})
        if (const char* value = getenv(name); value && *value) words.push_back(std::string(name) + "=" + shell_words({value}));
    for (char** at = environ; *at; at++) {
        const std::string word = *at;
        const size_t equals = word.find('=');
        if (word.starts_with("OPTIONS_") && equals + 1 < word.size())
            words.push_back(word.substr(0, equals + 1) + shell_words({word.substr(equals + 1)}));
    }
    const Suffix trainers = read_suffix(s.suffix);
    if (trainers.backend != "cpu") words.push_back("BACKEND=" + trainers.backend);
    words.push_back("PRECISION=" + trainers.precision);          // else it is the machine's choice
    std::string command;
    for (const std::string& word : words) command += word + " ";
    return command + "make compare";
}

void write_comparison(const Settings& s, const std::string& folder, const std::string& matching, const std::vector<Cell>& cells,
                      int64_t seeds, const std::string& plan, size_t finished, size_t total) {
    json j;
    j["rows"] = json::array();
    std::vector<std::string> seen;
    for (const Cell& c : cells) {
        if (c.matching != matching) continue;
        if (std::find(seen.begin(), seen.end(), c.row.name) != seen.end()) continue;
        seen.push_back(c.row.name);
        std::vector<std::string> options = c.row.options;
        options.insert(options.end(), c.matched.begin(), c.matched.end());
        j["rows"].push_back({{"row", c.row.name}, {"variant", c.row.variant}, {"options", options}});
    }
    j["positions"] = s.positions;
    j["seeds"] = json::array();
    for (int64_t i = 0; i < seeds; i++) j["seeds"].push_back(s.first_seed + i);
    if (!s.looks.empty()) j["looks"] = s.looks.size();
    j["baseline"] = s.baseline;
    j["text"] = s.data;
    j["matching"] = matching;
    j["plan"] = plan;
    j["command"] = make_command(s);
    j["finished"] = finished;
    j["total"] = total;
    j["runs"] = json::array();                                   // which folder belongs to which row
    for (const Cell& c : cells)
        for (int64_t i = 0; c.matching == matching && i < seeds; i++)
            j["runs"].push_back({{"run", cell_job(s, c, s.first_seed + i, "").run},
                                 {"row", c.row.name},
                                 {"pos", c.pos},
                                 {"seed", s.first_seed + i},
                                 {"lr", c.lr}});
    fs::create_directories(folder);
    file_replace(folder + "/comparison.json", j.dump(1) + "\n");
    if (!s.records.empty()) write_record_json(s.record(folder) + "/comparison.json", j);
}
