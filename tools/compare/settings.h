// What a comparison is: read from the environment, as `make compare VARIANTS=... SEEDS=...` gives it. scripts/compare.sh lists them all.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

// One line of the table: a variant with options of its own. "mla:dc=64" is train-mla with --mla-dc 64.
struct RowSpec {
    std::string name, variant;
    std::vector<std::string> options;
    std::string file_name() const;           // the name with nothing in it that a shell or a plot would read
};

struct Size {                                // of the models and the training, the preset's or the user's
    int64_t layers, width, heads, context, batch_tokens, steps;
    double lr;
    int64_t warmup, val_tokens, val_every;
};

inline constexpr int64_t LEAST_LOOK = 3;     // LOOKS begin here: fewer seeds give no verdict

struct Settings {
    std::vector<std::string> words;          // VARIANTS as given; rows follow when the trainers are there
    std::vector<std::string> positions, matchings;
    int64_t seeds = 0, first_seed = 1;       // seeds 0: as many as MINUTES allows, or by looks
    std::vector<int64_t> looks;              // SEEDS=auto: after how many seeds it is asked whether more are needed (looks.h)
    double minutes = 10;
    int64_t tune_steps = 0;                  // that rates are measured and looked up for
    Size size;
    std::string size_name, schedule, final_fraction, data, suffix, name, build, runs_dir, baseline, records, rates_file;
    std::vector<std::string> extra, launch;
    std::string branch_from;                 // a checkpoint for every run; {run} stands for its name
    int threads = 0, at_once = 0;            // 0: chosen
    int64_t cache_bytes = 0;                 // MATCH=cache: the target; 0: half the baseline's
    bool lr_given = false, tune = false, fresh = false, keep_going = false, dry_run = false, report = true;
    std::string folder() const { return runs_dir + "/" + name; }
    std::string record(const std::string& path) const {
        return records.empty() ? "" : records + path.substr(runs_dir.size());
    }    // of RUNS_DIR/path
    std::string trainer(const std::string& variant) const { return build + "/train-" + variant + suffix; }
};

// What a suffix of trainers says: "-rmsnorm-swiglu-cuda-bf16" is the parts "-rmsnorm-swiglu" on "cuda" in "bf16"; "" is "cpu" in "fp32".
struct Suffix { std::string parts, backend = "cpu", precision = "fp32"; };
Suffix read_suffix(const std::string& suffix);

Settings read_settings();                    // fails (exit 2) on what cannot be
std::vector<std::string> split_words(const std::string& text);
std::string number_word(double x);           // 0.004, 2048: the shortest that reads back as x
