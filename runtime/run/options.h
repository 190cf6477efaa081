// Every option of the trainer, with its default. The same names (dashes as underscores) are the keys of config.json, so a run's
// config.json repeats it: --config runs/NAME/config.json. The command line wins over the file.
#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "runtime/run/config.h"
#include "runtime/run/schedule.h"

struct Options {
    Program program;                         // whose options these are
    ModelConfig model;                       // --context --layers --width --heads --kv-heads --head-dim --mlp-width --pos
                                             // --rope-theta, and the variant's own (program.own)
    // training
    int64_t batch_tokens = 4096;             // tokens per optimizer step
    int micro_batch = 0;                     // sequences per forward pass; 0: the largest divisor of the batch that is at most 16
    int64_t steps = 1000;
    double lr = 1e-3, final_fraction = 0.1;  // peak; the schedule ends at lr * final_fraction
    int64_t warmup = 50;                     // steps
    std::string schedule = "cosine";         // cosine | wsd | linear | constant
    double decay_fraction = 0.2;             // wsd: the last part of the steps, spent decaying
    double weight_decay = 0.1, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, grad_clip = 1.0;   // grad_clip 0: off
    // Skip updates whose gradient norm is this many deviations above the recent mean (spike.h); 0: off.
    double spike_zscore = 0;
    bool stochastic_rounding = false;        // bf16: weights are rounded from the master copy stochastically, without bias (adamw.h)
    uint64_t seed = 1;
    // data
    std::string data = "data/tinyshakespeare";   // folder with train*.bin, val*.bin, tokenizer.json
    std::string tokenizer;                   // default: DATA/tokenizer.json when it is there
    int64_t val_every = 100;                 // steps; 0: only at the end
    int64_t val_tokens = 0;                  // this many tokens of the validation split, spread evenly over it; 0: all of it
    // samples of text
    int64_t sample_every = 0;                // 0: never
    int sample_tokens = 200;
    double temperature = 0.8;                // 0: greedy
    int top_k = 0;                           // 0: all
    std::string prompt = "\n";
    // the run
    std::string run;                         // name; default: ATTN-pos-seed
    std::string runs_dir = "runs";
    bool resume = false, overwrite = false;
    std::string init_from;                   // begin with the weights of this run, checkpoint or folder (model/init_from.h)
    std::string branch_from;                 // continue from this run or checkpoint, as a run of its own (model/open.h)
    int64_t save_every = 0;                  // 0: only the last one
    int keep = 2;                            // checkpoints kept
    int64_t stop_at = 0;                     // stop (and save) after this step, as a signal would; 0: off
    int threads = 0;                         // 0: all
    std::string cuda_graphs = "auto";        // auto | on | off (model/graphs.h)
    int recompute = 0;                       // computed again in the backward: 1, the MLP's hidden outputs; 2, the norms' too
    // several processes (mpirun, srun)
    int zero = 1;                            // 0: all replicated; 1: optimizer state divided among the ranks; 2: gradients too
    // Add gradients as this many ranks would, so that any power of two up to it gives the same bits; 0: off.
    int deterministic_ranks = 0;
    double comm_timeout = 600;               // seconds to wait for a rank before all ranks end; 0: for ever
    bool rank_logs = false;                  // ranks other than 0 write RUN/rank-N.log
    bool quiet = false, dry_run = false;
    std::string config_file;
};

// Parses argv. Later wins over earlier: defaults, with --resume the run's own config.json (when it exists), --config, the command line.
// On --help or --version prints and returns false. Fails (exit 2) on anything wrong, one line with the nearest
// option as a suggestion. Checks ranges and that the sizes divide; an indivisible --batch-tokens names the nearest valid ones.
bool options_parse(Options& o, int argc, char** argv, const Program& program);

// All options as JSON text (an object), and back: keys that are missing keep their value, an unknown key or a wrong type fails.
// Left out: resume, overwrite, dry_run, stop_at, config, which belong to one invocation (a file must not delete a run).
// Reads a flat object, or one with "options" (a run's config.json). The keys attn, norm and mlp are accepted and ignored,
// and so are other variants' own options: one file serves several variants.
std::string options_to_json(const Options& o);
void options_from_json(Options& o, const std::string& json_text, const std::string& where);

// What a resumed run must not change, as "key: old -> new": everything that decides the loss curve (sizes, batch, schedule,
// seed, data, the validation set; micro_batch too, as it changes rounding). Not: threads, val_every, sample_*, save_every,
// keep, names. Compares options as given: a default of 0 differs from the same size given outright.
// ranks: how many the run continues with; if their number has changed, the micro-batch may differ.
// done: the number of steps done, -1 if unknown. The steps to come may then follow another plan (steps, schedule,
// decay_fraction, final_fraction), if the steps done have the same rates under both: a longer run, an earlier decay.
std::vector<std::string> options_conflicts(const std::string& old_json, const Options& now, int ranks = 1, bool same_ranks = true,
                                           const std::string& where = "the run's config.json", int64_t done = -1);

Schedule schedule_of(const Options& o);

// Sequences per optimizer step, of all ranks; micro-batch and accumulation steps of each. Fails with the nearest valid values.
struct BatchPlan { int64_t sequences = 0; int micro_batch = 0; int64_t accumulation = 0; };
BatchPlan batch_plan(const Options& o, int ranks = 1);

// Fails if options exclude each other or do not fit together. options_parse calls it.
void options_check(const Options& o);

// The nearest name by edit distance, "" if none is near.
std::string nearest_name(const std::string& wrong, const std::vector<std::string>& names);
