// Many runs -> sections -> rows -> differences. A section is what may be ranked together: the same data, the same way of being equal
// (layout, params, cache, flops). A row is one setting of one variant, with one run per seed. Every row has at most one baseline row:
// the baseline variant at the same position and with the same other options; runs are joined to it by seed.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tools/report/inference.h"
#include "tools/report/run.h"

// comparison.json, written by the script that trains. Every field may be missing.
struct PlannedRow { std::string row, variant; std::map<std::string, std::string> options; };
struct Plan {
    std::vector<PlannedRow> rows;
    std::map<std::string, std::string> row_of;            // folder's name -> row
    std::set<std::string> matched;                        // options that a matching set, of some row: rows may differ in them
    std::string baseline, text, command, note;
    int64_t finished = -1, total = -1, started = -1;      // runs; seconds since 1970
    int64_t looks = 1;                                    // how often the differences are looked at before more seeds are trained, at most
    bool running() const { return total > 0 && finished >= 0 && finished < total; }
};

struct Row {
    std::string attn, pos, label, settings;      // label: the planned row's name, or the variant; settings: "lr=0.004 mla-dc=64"
    std::map<std::string, std::string> identity;
    std::vector<Run> runs;                       // by seed
    int base = -1;                               // index of its baseline row in the section
    std::string name() const { return settings.empty() ? label : label + " " + settings; }
};

enum class Verdict { none, baseline, too_few_seeds, not_told_apart, better, worse };
struct Difference {                              // of a row to its baseline row, final validation loss
    PairedDifference seeds{0, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED};
    double half = NOT_MEASURED, corrected_half = NOT_MEASURED, corrected_p = NOT_MEASURED;
    BlockMean text{0, 0, NOT_MEASURED, NOT_MEASURED};
    size_t text_seeds = 0, sequences = 0;        // pairs of runs in it
    size_t seeds_needed = 0;                     // to tell DELTA; 0: unknown, or more than 10000
    Verdict verdict = Verdict::none;
};

struct Section {
    std::string matching, data;                  // data: text of the fingerprints
    std::vector<Row> rows;                       // by position, then by loss, paired where there are pairs (sort_rows)
    std::vector<Difference> differences;         // one per row
    size_t tests = 0;                            // differences that have an interval over seeds: what Holm's correction counts
    double paired_sd = NOT_MEASURED, seed_sd = NOT_MEASURED;      // pooled over the rows: of paired differences; within rows
};

struct Comparison {
    Plan plan;
    std::string name, baseline;
    double alpha = 0.05;
    std::vector<Section> sections;
    std::vector<Run> tune;                       // learning-rate runs: for their picture only
    std::map<std::string, double> rates;         // chosen learning rates by row
    std::vector<std::string> different_data;     // more than one: the data that the runs saw
};

inline constexpr double DELTA = 0.01;            // nats: the difference that seeds_needed is about
inline constexpr size_t SEEDS_FOR_VERDICT = 3;   // two have one degree of freedom: an interval, but no verdict

struct Selection { std::vector<std::string> folders; std::string baseline; double alpha = 0.05; };
Comparison load_comparison(const Selection& s, Problems& problems);

// The steps of load_comparison, for tests.
std::vector<Row> group_runs(std::vector<Run> runs, const Plan& plan, Problems& problems);
void find_baselines(std::vector<Row>& rows, const std::string& baseline, const Plan& plan, Problems& problems);
void sort_rows(std::vector<Row>& rows);
void analyse(Section& section, double alpha);
Plan read_plan(const nlohmann::json& j);

const Run* run_of_seed(const Row& row, int64_t seed);          // finished, or null
const Row* base_of(const Section& s, const Row& row);
std::string short_name(const Section& s, const Row& row);      // the label where that is enough, else with the settings
std::vector<double> finished_losses(const Row& row);           // one per seed
double row_loss(const Row& row);                               // mean over finished runs, else over all
double row_mean(const Row& row, double Run::*field);
size_t seeds_of(const Row& row);                               // distinct seeds
bool several_seeds(const Section& s);
std::string row_of(const Run& run, const Plan& plan);          // "" when it was not planned
