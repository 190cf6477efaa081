// Between the options and the first step: how this rank runs the model, the run's folder, the checkpoint to continue
// from, the memory. All ranks call these; if one fails, all end with one message.
#pragma once
#include <filesystem>
#include <string>

#include "model/describe.h"
#include "model/gpt.h"
#include "runtime/comm/together.h"
#include "runtime/run/checkpoint.h"
#include "runtime/run/description.h"
#include "runtime/run/files.h"
#include "runtime/run/progress.h"

// How this rank runs the model.
inline RunShape run_shape(const Options& o, const BatchPlan& plan) {
    RunShape run{.max_B = plan.micro_batch, .micro_batches = int(plan.accumulation), .rank = comm_rank(), .ranks = comm_size(),
                 .zero = comm_size() > 1 ? o.zero : 0, .recompute = o.recompute};
    ensure_usage(!o.stochastic_rounding || sizeof(floatX) < sizeof(floatM),
                 "--stochastic-rounding: this program keeps its weights in %s, "
                 "there is nothing to round; build with PRECISION=bf16",
                 PRECISION_NAME);
    if (o.deterministic_ranks == 0) return run;
    const int parts = o.deterministic_ranks, ranks = comm_size();
    ensure_usage((parts & (parts - 1)) == 0 && parts % ranks == 0,
                 "--deterministic-ranks: %d must be a power of two and a multiple of the %d ranks", parts, ranks);
    ensure_usage(comm_sums_by_tree(),
                 "--deterministic-ranks: %s adds in an order of its own; use BACKEND=cpu, or leave it out",
                 comm_name());
    ensure_usage(ranks == 1 || o.zero < 2,
                 "--deterministic-ranks goes with --zero 0 or 1: zero 2 adds every micro-batch over the ranks first");
    while ((ranks << run.stashes) < parts) run.stashes++;
    return run;
}

// The checkpoint that an option names by a run's folder or its own. `option` begins a message.
inline CheckpointFound checkpoint_of_option(const std::string& path, const char* option) {
    ensure_usage(std::filesystem::is_directory(path), "%s %s: no such folder", option, path.c_str());
    ensure_usage(file_exists(path + "/state.json") || file_exists(path + "/config.json"),
                 "%s %s: is neither a run's folder nor a checkpoint's", option, path.c_str());
    const CheckpointFound found = checkpoint_at(path);
    ensure_usage(!found.dir.empty(), "%s %s: this run has no checkpoint yet", option, path.c_str());
    return found;
}

// --branch-from: a new run takes over a checkpoint and the logs up to it, and follows another plan from there: an earlier
// or a later end, another decay. It must be the run that it would have been from the start: the same options except for
// the plan, and the same learning rates in the steps already done. So budgets can share a trunk: with --schedule wsd, one
// training and a decay for each budget [Hu et al. 2024, "MiniCPM", sec. 4].
inline CheckpointFound find_branch(const Options& o, const std::string& description) {
    if (o.branch_from.empty() || (o.resume && std::filesystem::exists(o.runs_dir + "/" + o.run + "/checkpoints"))) return {};
    const CheckpointFound found = checkpoint_of_option(o.branch_from, "--branch-from");
    const std::string state_path = found.dir + "/state.json";
    check_same_run(described_in(found.state_json, state_path), description, o, comm_size(), state_path, step_of_checkpoint(found.dir));
    return found;
}

// Opens the run's folder (rank 0) and finds the checkpoint to continue from, refusing one of another experiment. Returns
// whether the run has a config.json that still describes it.
inline bool open_run(RunDir& run, CheckpointFound& found, const Options& o, const std::string& description, const GPT& planned) {
    std::string old_config;
    bool as_described = false;
    together("opening the run", [&] {
        ensure_fits(planned);
        if (comm_rank() != 0) return;
        const CheckpointFound branch = find_branch(o, description);
        rundir_open(run, o.runs_dir, o.run, o.resume, o.overwrite);
        const std::string config_path = run.dir + "/config.json";
        if (o.resume && file_exists(config_path)) old_config = file_read(config_path, 16 << 20);
        if (o.resume) found = checkpoint_find(run.dir);
        const int64_t done = found.dir.empty() ? -1 : step_of_checkpoint(found.dir);
        if (!old_config.empty()) check_same_run(old_config, description, o, comm_size(), config_path, done);
        as_described = !old_config.empty() && options_conflicts(old_config, o, comm_size(), false, config_path).empty();
        if (!found.dir.empty()) {
            const std::string state_path = found.dir + "/state.json";
            check_same_run(described_in(found.state_json, state_path), description, o, comm_size(), state_path, done);
        }
        if (found.dir.empty() && !branch.dir.empty()) {
            found = branch;
            rundir_take_logs(run, branch.dir + "/../..");
        }
    });
    comm_broadcast(found.dir, "the checkpoint's folder");
    comm_broadcast(found.state_json, "the checkpoint's state");
    if (!found.dir.empty()) found.step = step_of_checkpoint(found.dir);
    return as_described;
}

inline GPT make_model(const Options& o, const GPT& planned) {
    GPT g;
    together("allocating the model", [&] {
        try {
            g = gpt_allocate(o.model, planned.run);
        } catch (const Error& e) {                           // a limit below what the machine has: ulimit -v, a container's
            fail("%s; the run needs %s, the largest buffers: %s; a smaller --micro-batch or --recompute 2 needs less", e.what(),
                 human_bytes(double(planned_bytes(planned))).c_str(), largest_buffers(planned).c_str());
        }
    });
    return g;
}
