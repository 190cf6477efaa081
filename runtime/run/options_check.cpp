// What follows from several options together, and the checks of that: how a step's batch is cut, the schedule. See options.h.
// The range of a single option is in its row of the table (option_table.cpp).
#include "runtime/run/options.h"

#include <algorithm>

#include "runtime/run/error.h"

Schedule schedule_of(const Options& o) { return {o.schedule, o.lr, o.final_fraction, o.decay_fraction, o.warmup, o.steps}; }

BatchPlan batch_plan(const Options& o, int ranks) {
    const int64_t T = o.model.T, parts = std::max(ranks, o.deterministic_ranks), unit = T * std::max(o.micro_batch, 1) * parts;
    if (o.batch_tokens % unit != 0) {
        int64_t below = o.batch_tokens / unit * unit, above = below + unit;
        std::string unit_text = format("the context %lld", (long long)T);
        if (o.micro_batch > 0) unit_text += format(" x the micro-batch %d", o.micro_batch);
        if (parts > 1) unit_text += format(" x %lld %s", (long long)parts, parts == ranks ? "ranks" : "parts (--deterministic-ranks)");
        std::string nearest = std::to_string(above);
        if (below > 0) nearest = std::to_string(below) + " or " + nearest;
        fail_usage("--batch-tokens: %lld is not a multiple of %s; the nearest: %s", (long long)o.batch_tokens, unit_text.c_str(),
                   nearest.c_str());
    }
    int64_t sequences = o.batch_tokens / T, each = sequences / parts;
    int64_t micro_batch = o.micro_batch;
    if (micro_batch == 0)
        for (micro_batch = std::min<int64_t>(16, each); each % micro_batch != 0;) micro_batch--;
    return {sequences, int(micro_batch), sequences / micro_batch / ranks};
}

void options_check(const Options& o) {
    const ModelConfig& m = o.model;
    ensure_usage(m.HS > 0 || m.C % m.NH == 0, "--width: %d is not a multiple of --heads %d; change one, or give --head-dim", m.C, m.NH);
    ensure_usage(m.NKV == 0 || m.NH % m.NKV == 0, "--kv-heads: %d does not divide --heads %d", m.NKV, m.NH);
    int64_t tokens;
    ensure_usage(!__builtin_mul_overflow(o.steps, o.batch_tokens, &tokens),
                 "--steps: %lld of --batch-tokens %lld are more than 2^63 tokens", (long long)o.steps,
                 (long long)o.batch_tokens);
    ensure_usage(o.stop_at <= o.steps, "--stop-at: %lld is beyond the last step, --steps %lld", (long long)o.stop_at, (long long)o.steps);
    ensure_usage(!(o.resume && o.overwrite), "--resume and --overwrite exclude each other");
    ensure_usage(o.init_from.empty() || o.branch_from.empty(),
                 "--init-from takes weights only and begins at step 0, --branch-from goes on from a step: choose one");
    ensure_usage(!o.data.empty() && !o.runs_dir.empty(), "%s: the value is empty", o.data.empty() ? "--data" : "--runs-dir");
    batch_plan(o);
}
