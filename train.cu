// qv.cu: trains one GPT from token shards: options -> data -> model -> loop. The loop is `train`, below.
// The attention variant is chosen at compile time (make train ATTN=qv); everything else at run time (--help).
// There is no CUDA syntax here: the same text is compiled for the CPU (g++ -x c++) and for GPUs. The kernels are in
// layers/ and attention/.
// Under mpirun or srun every process ("rank") runs this text with the same options and the same data, but takes
// another part of each batch (runtime/comm/comm.h). Only rank 0 prints, logs and writes files. What may fail on one
// rank alone is done `together`, so that all ranks end with one message.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "dataloader/data.h"
#include "model/describe.h"
#include "model/evaluate.h"
#include "model/generate.h"
#include "model/gpt.h"
#include "model/graphs.h"
#include "model/init_from.h"
#include "model/open.h"
#include "model/program.h"
#include "model/state.h"
#include "runtime/comm/together.h"
#include "runtime/run/inject.h"
#include "runtime/run/options.h"
#include "runtime/run/rundir.h"
#include "runtime/run/schedule.h"
#include "runtime/run/signals.h"

// All that a training run holds.
struct Training {
    Options o;
    BatchPlan plan;                              // how a step's batch is cut: ranks, micro-batches
    Data data;
    GPT g;
    StepGraphs graphs;                           // what of a step is queued again and again
    RunDir run;                                  // the folder; open on rank 0
    std::string description;                     // config.json
    CheckpointFound origin;                      // --init-from's
    Schedule schedule;
    Progress at;                                 // steps and samples so far
    int64_t saved_step = -1;
    Console console;
    bool stop = false;                           // all ranks agree on it
};

// ---------------------------------------------------------------------------------------------- the loop

// What the step's loss is a mean over: its tokens or, with masks, those that count as targets (their average number,
// so that it is the same in every step).
static double counted_targets(const Training& t) { return double(t.o.batch_tokens) * t.data.train.counted_share; }

struct StepEnd { double loss, norm; };           // the mean loss over all ranks; the gradient's norm before clipping

// Puts together what the ranks know about the step. Waits for the device. Also agrees on a request to stop.
static StepEnd gather_step(Training& t) {
    GPT& g = t.g;
    const size_t micro_batches = size_t(g.run.micro_batches), losses = size_t(comm_size()) * micro_batches;
    const StepResults mine = gpt_results(g, size_t(g.max_B) * g.c.T);
    // One exchange: every micro-batch's loss in its place, to be added in the order of the samples; rank 0's norm; stop requests.
    std::vector<double> all(losses + 2);
    for (size_t i = 0; i < micro_batches; i++) all[size_t(comm_rank()) * micro_batches + i] = mine.losses[i];
    all[losses] = comm_rank() == 0 ? mine.norm : 0;
    all[losses + 1] = stop_requested();
    comm_sum(all.data(), all.size(), "the step's losses");
    t.stop = all[losses + 1] > 0;
    double sum = 0;
    for (size_t i = 0; i < losses; i++) sum += all[i];
    return {sum / counted_targets(t), all[losses]};
}

// The gradients are complete: takes their norm over all ranks, clips, and runs AdamW. A norm that is not finite, or a
// spike, updates nothing.
static StepEnd update(Training& t, double lr) {
    const Options& o = t.o;
    Progress& at = t.at;
    AdamW hyper{lr, o.beta1, o.beta2, o.eps, o.weight_decay, o.grad_clip, at.step + 1 - at.skipped, 0};
    hyper.rounding = {o.stochastic_rounding, o.seed};
    const bool look_first = o.spike_zscore > 0;              // the decision then needs the norm on the host
    if (look_first) gpt_gradient_norm(t.g);
    else device_repeat(t.graphs.update, [&] {
        gpt_gradient_norm(t.g);
        gpt_adamw(t.g, hyper);                               // refuses a norm that is not finite by itself
    });
    const StepEnd end = gather_step(t);
    const char* skip = nullptr;
    if (!std::isfinite(end.norm)) skip = "not finite";
    else if (look_first && spike_seen(at.spikes, end.norm, o.spike_zscore)) skip = "far above the recent ones";
    if (look_first && !skip) gpt_adamw(t.g, hyper);
    at.not_finite_in_a_row = std::isfinite(end.norm) ? 0 : at.not_finite_in_a_row + 1;
    if (!skip) return end;
    at.skipped++;
    console_message(t.console, format("step %lld: loss %g, gradient norm %g is %s: not updated", (long long)at.step + 1,
                                      end.loss, end.norm, skip));
    if (at.not_finite_in_a_row >= 5)
        throw AgreedError(EXIT_FAILED,
                          format("step %lld: the gradient was not finite 5 times in a row; a lower --lr may help; "
                                 "the last checkpoint is intact",
                                 (long long)at.step + 1));
    return end;
}

static void console_note(Training& t, const std::string& note) {
    if (!note.empty() && comm_rank() == 0) console_message(t.console, note);
}

static bool due(const Training& t, int64_t every) { return every > 0 && t.at.step % every == 0; }

// What follows an update: validation and a sample of text when they are due, and a line in the logs. If a request to
// stop cuts it short, the resumed run does it instead, so that nothing is missing from the logs.
static void record(Training& t, StepMetrics& m) {
    const Options& o = t.o;
    Progress& at = t.at;
    const bool last = at.step == o.steps;
    const bool validate = last || due(t, o.val_every);
    const bool sample = o.sample_every > 0 && at.step > 0 && (last || due(t, o.sample_every));
    m.tokens = m.step * o.batch_tokens;
    at.unlogged.reset();
    Evaluation e;
    std::string text;
    if (validate) {
        e = evaluate(t.g, t.data);
        m.val_loss = e.loss;
        m.bits_per_byte = e.bits_per_byte;
        m.accuracy = e.accuracy;
        if (e.loss < at.best_val_loss) at.best_val_loss = e.loss;
    }
    bool cut = e.stopped;
    if (sample) {
        gpt_wait_for_weights(t.g);
        if (!cut && comm_rank() == 0)
            text = generate_text(t.g, t.data.tokenizer,
                                 {o.prompt, o.sample_tokens, {o.temperature, o.top_k}, o.seed, m.step});
        cut = comm_any(cut || stop_requested(), "a sample of text");
    }
    if (cut) {
        at.unlogged = m;
        t.stop = true;
        return;
    }
    if (comm_rank() != 0) return;
    rundir_log(t.run, m);
    if (last) rundir_write_losses(t.run, e.by_sequence, e.by_position);
    if (!sample) return;
    rundir_sample(t.run, m.step, text);
    console_message(t.console, format("--- sample at step %lld\n", (long long)m.step) + text + "\n---");
}

static void save(Training& t) {
    const double start = now_s();
    const std::string dir = save_checkpoint(t.run, t.o.keep, t.g, t.at, t.description);
    t.saved_step = t.at.step;
    if (comm_rank() == 0)
        console_message(t.console, format("saved %s, %s in %.2f s", dir.c_str(),
                                          human_bytes(checkpoint_bytes(dir)).c_str(), now_s() - start));
}

static StepMetrics step_metrics(const Training& t, const StepEnd& end, double lr, double step_s) {
    StepMetrics m;
    m.step = t.at.step;
    m.seconds = t.at.seconds;
    m.loss = end.loss;
    m.lr = lr;
    m.grad_norm = end.norm;
    m.tokens_per_second = double(t.o.batch_tokens) / step_s;
    const double peak = device_facts().peak_flops * comm_size();
    if (peak > 0) {
        m.mfu = flops_per_token(t.g) * m.tokens_per_second / peak;
        m.mfu_causal = flops_per_token(t.g, true) * m.tokens_per_second / peak;
    }
    return m;
}

static void train(Training& t) {
    const Options& o = t.o;
    Progress& at = t.at;
    const int B = t.plan.micro_batch, T = t.g.c.T;
    std::vector<int> inputs(size_t(B) * T), targets(size_t(B) * T);
    while (at.step < o.steps && !t.stop) {
        const double start = now_s(), lr = schedule_lr(t.schedule, at.step);
        const double scale = 1.0 / counted_targets(t) * injected_gradient_factor(at.step + 1, comm_rank());
        comm_at_step(at.step + 1);

        // 1. forward and backward: gradients add up over this rank's micro-batches. A step's samples are shared out in their order.
        const uint64_t first = at.samples + uint64_t(comm_rank() * t.plan.accumulation * B);
        int64_t micro = 0;
        for (; micro < t.plan.accumulation; micro++) {
            if (comm_size() == 1 && stop_requested()) break;
            dataset_batch(t.data.train, o.seed, first + uint64_t(micro * B), size_t(B), inputs.data(), targets.data());
            Repeat& pass = micro == 0 ? t.graphs.first_pass : t.graphs.next_pass;
            device_repeat(pass, [&] { gpt_micro_batch(t.g, inputs.data(), targets.data(), B, T, scale, int(micro)); });
        }
        if (micro < t.plan.accumulation) break;              // half a step changes nothing: the resumed run does it whole

        // 2. norm, clip, update
        const StepEnd end = update(t, lr);
        const double step_s = now_s() - start;
        at.step++;
        at.samples += uint64_t(t.plan.sequences);
        at.seconds += step_s;
        if (!t.graphs.decided) console_note(t, decide_graphs(t.graphs, t.g, o));

        // 3. once in a while validate, sample, save
        StepMetrics m = step_metrics(t, end, lr, step_s);
        record(t, m);
        console_step(t.console, m, step_s * 1e3, flops_per_token(t.g) * m.tokens_per_second / 1e9, at.seconds);
        if (due(t, o.save_every)) save(t);
        if (o.stop_at > 0 && at.step >= o.stop_at) break;
    }
}

// ---------------------------------------------------------------------------------------------- before and after it

static void open_console(Training& t, const CheckpointFound& found) {
    if (comm_rank() != 0 && t.o.rank_logs) {
        const std::string path = format("%s/%s/rank-%d.log", t.o.runs_dir.c_str(), t.o.run.c_str(), comm_rank());
        if (!freopen(path.c_str(), "a", stdout)) fprintf(stderr, "%s: cannot be written, this rank's log is lost\n", path.c_str());
    }
    t.console = console_open(t.o.steps, t.o.quiet, comm_size() == 1);
    if (found.dir.empty()) return;
    for (const std::string& note :
         rounding_notes(described_in(found.state_json, found.dir + "/state.json"), t.description, t.o))
        console_message(t.console, note);
    console_message(t.console, "resumed from " + found.dir);
    if (t.at.step >= t.o.steps && !t.at.unlogged)
        console_message(t.console, "the run is already finished, at step " + std::to_string(t.at.step) +
                                       ": there is nothing to train, validate or sample");
}

// Model and folder as they were, or new ones; then what is owed from before the first step: its validation, or what a stop cut short.
static void start(Training& t, const GPT& planned) {
    const Options& o = t.o;
    CheckpointFound found;
    const bool had_config = open_run(t.run, found, o, t.description, planned);
    t.g = make_model(o, planned);
    std::string taken_over;
    together("the first weights", [&] {
        if (!found.dir.empty()) t.at = restore_checkpoint(t.g, found, t.plan.sequences, {o.stochastic_rounding, o.seed});
        else gpt_init(t.g, o.seed);
        if (!found.dir.empty() || o.init_from.empty()) return;
        if (t.origin.dir.empty()) t.origin = init_from_checkpoint(o, t.data);        // a resumed run without a checkpoint
        taken_over = init_from(t.g, t.origin);
    });
    open_console(t, found);
    fputs(backend_keep_choices(o.runs_dir + "/" + o.run).c_str(), stderr);
    if (!taken_over.empty()) console_message(t.console, taken_over);
    if (comm_rank() == 0) {
        if (!had_config) rundir_write_config(t.run, t.description);
        // the lines from here on are written again
        if (o.resume || !o.branch_from.empty()) rundir_trim(t.run, t.at.step == 0 || t.at.unlogged ? t.at.step - 1 : t.at.step);
    }
    t.schedule = schedule_of(o);
    t.saved_step = found.dir.empty() || t.at.unlogged ? -1 : t.at.step;
    t.stop = comm_any(stop_requested(), "the first step");
    StepMetrics m;                                           // step 0, the starting point: a loss of about ln V
    if (t.at.unlogged) m = *t.at.unlogged;
    if (t.at.unlogged || (t.at.step == 0 && o.val_every > 0)) record(t, m);
}

static const char* stop_reason(const Options& o, int64_t step) {
    return stop_requested() ? stop_signal_name() : o.stop_at > 0 && step >= o.stop_at ? "--stop-at" : "a signal to another rank";
}

static int finish(Training& t) {
    const bool stopped = t.at.step < t.o.steps || t.at.unlogged;
    if (t.saved_step != t.at.step) save(t);
    console_close(t.console);
    if (stopped)
        console_message(t.console, format("stopped at step %lld (%s); continue with --resume --run %s", (long long)t.at.step,
                                          stop_reason(t.o, t.at.step), t.o.run.c_str()));
    else if (!t.o.quiet)
        console_message(t.console, format("%s done: best validation loss %.4f nats, %s of training, at most %s of memory",
                                          t.o.run.c_str(), t.at.best_val_loss, human_time(t.at.seconds).c_str(),
                                          human_bytes(double(peak_memory_bytes())).c_str()));
    gpt_free(t.g);
    return stopped ? EXIT_STOPPED_AND_SAVED : EXIT_DONE;
}

static int run(const Options& options) {
    Training t;
    Options& o = t.o = options;
    GPT planned;
    comm_set_timeout(o.comm_timeout);
    together("start-up", [&] {
        backend_init(o.threads > 0 || comm_size() == 1 ? o.threads : comm_threads());
        t.plan = batch_plan(o, comm_size());
        t.data = data_open({.dir = o.data, .tokenizer = o.tokenizer, .context = o.model.T, .val_tokens = o.val_tokens});
        o.model.V = int(t.data.tokenizer.vocab_size());
    });
    if (comm_rank() == 0 && !t.data.note.empty()) fprintf(stderr, "%s\n", t.data.note.c_str());
    comm_start_devices();
    if (comm_any(stop_requested(), "start-up")) {
        printf("stopped by %s while the data was read; nothing has changed\n", stop_reason(o, 0));
        return EXIT_STOPPED_AND_SAVED;
    }
    together("planning", [&] {
        planned = gpt_plan(o.model, run_shape(o, t.plan));
        t.description = describe_run(run_facts(o, planned, t.data), o);
        if (!o.init_from.empty() && !o.resume) t.origin = init_from_checkpoint(o, t.data);      // refused before anything is written
    });
    std::string rank_0 = t.description;
    comm_broadcast(rank_0, "the run's description");
    together("the comparison of builds, options and data", [&] { check_same_as_rank_0(rank_0, t.description); });
    if (!o.quiet || o.dry_run) print_plan(o, planned, t.data, t.plan);
    if (o.dry_run) {
        dry_run(o, planned, t.plan);
        return EXIT_DONE;
    }
    signals_quit_at_once(false);                                             // from here on there is something to save
    start(t, planned);
    train(t);
    return finish(t);
}

int main(int argc, char** argv) {
    backend_prepare(argv);
    return on_every_rank([&] {
        Options o;
        bool go = false;
        together("reading the options", [&] { go = options_parse(o, argc, argv, this_program()); });
        return go ? run(o) : EXIT_DONE;
    });
}
