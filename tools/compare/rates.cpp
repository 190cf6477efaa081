// See rates.h.
#include "tools/compare/rates.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tools/compare/parabola.h"
#include "tools/report/record.h"

using json = nlohmann::ordered_json;

static constexpr int64_t TUNE_SEED = 1000;   // for rates alone
static constexpr int MOST_STEPS = 8;         // of sqrt 2 away from the preset's rate: a factor of 16

double final_loss(const std::string& run_folder) {
    double loss = NAN;
    std::ifstream file(run_folder + "/metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
        const nlohmann::json m = nlohmann::json::parse(line, nullptr, false);
        if (m.is_object() && m.contains("val_loss") && m["val_loss"].is_number()) loss = m["val_loss"];
    }
    return loss;
}

// ---- stored rates

static json conditions(const Settings& s, const std::string& pos, const std::string& mark) {
    const Size& z = s.size;
    std::string extra;
    for (const std::string& word : s.extra) extra += (extra.empty() ? "" : " ") + word;
    return {{"layers", z.layers},
            {"width", z.width},
            {"heads", z.heads},
            {"context", z.context},
            {"batch_tokens", z.batch_tokens},
            {"steps", s.tune_steps},
            {"warmup", z.warmup},
            {"schedule", s.schedule},
            {"final_fraction", s.final_fraction},
            {"extra", extra},
            {"pos", pos},
            {"suffix", read_suffix(s.suffix).parts},         // bf16 wants the same rates as fp32 (docs/LOG.md)
            {"text", s.data},
            {"data", mark}};
}

struct Stored { double lr = 0; bool same_data = false; };

// The rate of a row in a file of entries {"conditions", "rates"}: the row's own, else its variant's.
static Stored look_up(const std::string& path, const Settings& s, const Cell& c, const std::string& mark, bool other_data) {
    std::ifstream file(path);
    const json entries = json::parse(file, nullptr, false);
    if (!entries.is_array()) return {};
    const json want = conditions(s, c.pos, mark);
    Stored found;
    for (const json& e : entries) {
        if (!e.is_object() || !e.contains("conditions") || !e.contains("rates")) continue;
        bool same = true;
        for (const auto& [key, value] : want.items())
            same = same && (key == "data" || key == "text" || (e["conditions"].contains(key) && e["conditions"][key] == value));
        const bool same_data = e["conditions"].value("data", "") == mark;
        if (!same || (!same_data && !other_data) || (found.lr > 0 && !same_data)) continue;
        const json& rates = e["rates"];
        for (const std::string& name : {c.row.name, c.row.variant}) {
            if (!rates.contains(name) || !rates[name].is_number()) continue;
            if (name != c.row.name && !other_data) continue;     // for tuning, only the row itself counts
            found = {rates[name], same_data};
            break;
        }
    }
    return found;
}

static void store(const std::string& path, const Settings& s, const Cell& c, const std::string& mark, double lr, const json& tried) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ifstream file(path);
    json entries = json::parse(file, nullptr, false);
    if (!entries.is_array()) entries = json::array();
    const json want = conditions(s, c.pos, mark);
    for (json& e : entries) {
        if (e.value("conditions", json()) != want) continue;
        e["rates"][c.row.name] = lr;
        e["tried"][c.row.name] = tried;
        file_replace(path, entries.dump(1) + "\n");
        return;
    }
    entries.push_back({{"conditions", want}, {"rates", {{c.row.name, lr}}}, {"tried", {{c.row.name, tried}}}});
    file_replace(path, entries.dump(1) + "\n");
}

// ---- the search

struct Search {
    Cell* cell;
    std::map<int, double> losses;            // by grid step; NaN: not trained yet, infinity: diverged
};

static double grid_rate(const Settings& s, int step) {
    char text[32];
    snprintf(text, sizeof text, "%.3g", s.size.lr * std::pow(2.0, step / 2.0));
    return strtod(text, nullptr);
}

static Job tune_job(const Settings& s, const Cell& cell, int step, const std::string& mark) {
    Settings quiet = s;
    quiet.size.val_every = 0;                                    // the end is all that counts
    quiet.branch_from = "";
    Cell at = cell;
    at.lr = grid_rate(s, step);
    at.steps = s.tune_steps;
    at.seconds *= double(at.steps) / double(cell.steps);
    Job job = cell_job(quiet, at, TUNE_SEED, mark);
    job.folder = s.folder() + "/tune";
    job.run = cell.row.file_name() + "-" + cell.pos + "-lr" + number_word(at.lr);
    job.record = s.record(job.folder + "/" + job.run);
    job.label = cell.row.name + ", " + cell.pos + ", lr " + number_word(at.lr) + " (tuning)";
    job.may_fail = true;
    return job;
}

// Steps that are still wanted: three around the preset, then one more beyond an edge that is best.
static std::vector<int> wanted_steps(const Search& search) {
    if (search.losses.empty()) return {-1, 0, 1};
    auto best = search.losses.begin();
    for (auto it = search.losses.begin(); it != search.losses.end(); ++it)
        if (it->second < best->second || !std::isfinite(best->second)) best = it;
    const int low = search.losses.begin()->first, high = search.losses.rbegin()->first;
    if (!std::isfinite(best->second)) return low > -MOST_STEPS ? std::vector<int>{low - 1} : std::vector<int>{};    // all diverged: go down
    if (best->first == low && low > -MOST_STEPS) return {low - 1};
    if (best->first == high && high < MOST_STEPS) return {high + 1};
    return {};
}

// A run that was trained before its row's rate was searched has another one. Said before the search, not after it.
static void refuse_runs_of_other_rates(const Settings& s, const std::vector<Search>& searches, const std::string& mark) {
    for (const Search& search : searches) {
        const Job job = cell_job(s, *search.cell, s.first_seed, mark);
        if (s.fresh || !job_begun(job) || job_begun(tune_job(s, *search.cell, 0, mark))) continue;
        fail_usage("%s/%s was trained before its rate is searched: choose another NAME=..., or train it again with FRESH=1",
                   job.folder.c_str(), job.run.c_str());
    }
}

static bool search_rates(const Settings& s, std::vector<Search>& searches, const Place& place, const std::string& mark) {
    for (;;) {
        std::vector<Job> jobs;
        std::vector<std::pair<Search*, int>> of_job;
        for (Search& search : searches)
            for (int step : wanted_steps(search)) {
                jobs.push_back(tune_job(s, *search.cell, step, mark));
                of_job.push_back({&search, step});
            }
        if (jobs.empty()) return true;
        const JobsResult result = run_jobs(jobs, place, [](const Job&) {});
        if (result.stopped || !result.failures.empty()) return false;
        for (size_t i = 0; i < jobs.size(); i++) {
            const double loss = final_loss(jobs[i].folder + "/" + jobs[i].run);
            of_job[i].first->losses[of_job[i].second] = std::isfinite(loss) ? loss : INFINITY;
        }
    }
}

static void write_folder_rates(const Settings& s, const std::vector<Cell>& cells, const std::string& mark) {
    json rates = json::object();
    for (const Cell& c : cells) rates[s.positions.size() == 1 ? c.row.name : c.row.name + ", " + c.pos] = c.lr;
    const json all = {{"conditions", conditions(s, s.positions[0], mark)}, {"rates", rates}};
    std::filesystem::create_directories(s.folder());
    file_replace(s.folder() + "/learning_rates.json", all.dump(1) + "\n");
    if (!s.records.empty()) write_record_json(s.record(s.folder()) + "/learning_rates.json", all);
}

bool settle_rates(const Settings& s, std::vector<Cell>& cells, const Place& place, const std::string& mark) {
    const std::string own = s.runs_dir + "/learning_rates.json";
    std::vector<Search> searches;
    std::string said_preset, said_other;
    for (Cell& c : cells) {
        c.lr = s.size.lr;
        if (s.lr_given) continue;
        Stored found;
        if (!s.tune || !s.fresh) {
            found = look_up(own, s, c, mark, false);
            if (found.lr <= 0) found = look_up(s.rates_file, s, c, mark, !s.tune);
        }
        if (found.lr > 0) c.lr = found.lr;
        else if (s.tune) searches.push_back({&c, {}});
        if (found.lr > 0 && !found.same_data) said_other += " " + c.row.name;
        if (found.lr <= 0 && !s.tune) said_preset += " " + c.row.name;
    }
    if (!said_other.empty())
        fprintf(stderr, "compare: learning rates measured on another text:%s (TUNE=1 measures them on this one)\n", said_other.c_str());
    if (!said_preset.empty())
        fprintf(stderr, "compare: lr %s, not tuned for these settings:%s (TUNE=1 measures each one's)\n", number_word(s.size.lr).c_str(),
                said_preset.c_str());
    if (!searches.empty()) {
        refuse_runs_of_other_rates(s, searches, mark);
        fprintf(stderr, "compare: TUNE=1: %zu rows, at rates a factor sqrt 2 apart around %s, seed %lld, which is not used afterwards\n",
                searches.size(), number_word(s.size.lr).c_str(), (long long)TUNE_SEED);
        if (!search_rates(s, searches, place, mark)) return false;
    }
    for (Search& search : searches) {
        std::vector<int> steps;
        std::vector<double> losses;
        json tried = json::array();
        for (const auto& [step, loss] : search.losses) {
            steps.push_back(step);
            losses.push_back(loss);
            tried.push_back({grid_rate(s, step), std::isfinite(loss) ? json(loss) : json()});
        }
        const double best = best_grid_step(steps, losses);
        char text[32];
        snprintf(text, sizeof text, "%.3g", s.size.lr * std::pow(2.0, best / 2));
        search.cell->lr = strtod(text, nullptr);
        fprintf(stderr, "compare: %s, %s: lr %s\n", search.cell->row.name.c_str(), search.cell->pos.c_str(), text);
        store(own, s, *search.cell, mark, search.cell->lr, tried);
        if (!s.records.empty()) store(s.records + "/learning_rates.json", s, *search.cell, mark, search.cell->lr, tried);
    }
    write_folder_rates(s, cells, mark);
    return true;
}
