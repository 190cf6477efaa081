// A run's folder: runs/NAME/ with config.json, metrics.jsonl, metrics.csv, samples.txt, checkpoints/; and the console line.
// Only one process may own it (an flock on runs/NAME/lock, released by the kernel however the process dies).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

struct StepMetrics {             // one line of metrics.jsonl; NaN: not measured at this step (null in JSON, empty in CSV)
    int64_t step = 0;            // optimizer steps done so far, so the first line is 1 (0: before training)
    int64_t tokens = 0;          // tokens consumed so far
    double seconds = 0;          // training time so far, over all resumed parts
    double loss, val_loss, bits_per_byte, lr, grad_norm, tokens_per_second;
    // Share of the counted targets that the likeliest token gets right; for masked text only, and only in metrics.jsonl.
    double accuracy;
    double mfu, mfu_causal;      // of the nominal peak: counting all T keys per query, and half of them; the second is not logged
    StepMetrics();               // every double NaN
};

struct RunDir {
    std::string dir;
    int lock_fd = -1;
    FILE* jsonl = nullptr;
    FILE* csv = nullptr;
    RunDir() = default;
    RunDir(const RunDir&) = delete;
    RunDir& operator=(const RunDir&) = delete;
    ~RunDir();
};

// Creates the folder and locks it. An existing run needs resume (kept) or overwrite (removed, whole); otherwise exit 2, and
// nothing in it is touched. A run locked by another process is refused.
void rundir_open(RunDir& r, const std::string& runs_dir, const std::string& name, bool resume, bool overwrite);
void rundir_write_config(RunDir& r, const std::string& json_text);      // config.json, atomically
// The last validation in detail, as 32-bit floats, little endian. val_sequences.f32: mean nats per token of each sample, in their order;
// val_positions.f32: mean nats at each position of the context (not written when there are none, as with masked targets).
void rundir_write_losses(RunDir& r, const std::vector<float>& by_sequence, const std::vector<float>& by_position);
void rundir_trim(RunDir& r, int64_t last_step);                         // drops log lines past a resumed step (jsonl, csv, samples)
void rundir_take_logs(RunDir& r, const std::string& from);               // another run's logs, for a branch of it
void rundir_log(RunDir& r, const StepMetrics& m);                       // one line each into jsonl and csv, flushed
void rundir_sync(RunDir& r);                                            // the lines so far survive a power cut; before each checkpoint
void rundir_sample(RunDir& r, int64_t step, const std::string& text);   // appends to samples.txt

// The console. On a terminal it is one live line, rewritten; elsewhere a plain line now and then (at most one per second, and
// at every validation). Shows step/total, %, smoothed loss, lr, grad norm, ms per step, tok/s, GFLOP/s or MFU, elapsed, ETA.
struct Console {
    bool tty = false, quiet = false;         // quiet: no step lines; messages stay
    int64_t total_steps = 0;
    double smoothed = 0, weight = 0, last_print = 0;
    size_t last_width = 0;
    double smoothed_ms = 0;                  // for the ETA
    double val_loss = NAN;                   // the last one, shown until the next
    FILE* out = nullptr;
};
// live: one line that is written over on a terminal. Not for ranks: mpirun gives each a terminal, wherever its own output goes.
Console console_open(int64_t total_steps, bool quiet, bool live = true);
void console_step(Console& c, const StepMetrics& m, double step_ms, double gflops, double elapsed_s);
std::string console_line(const Console& c, const StepMetrics& m, double step_ms, double gflops, double elapsed_s);
void console_message(Console& c, const std::string& line);              // a line of its own above the live line
void console_close(Console& c);

std::string human_count(double n);       // 12.3M
std::string human_bytes(double n);       // 1.2 GiB
std::string human_time(double seconds);  // 1m05s
