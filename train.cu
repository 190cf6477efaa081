// qv.cu: trains one GPT from token shards, top to bottom: options -> data -> model -> loop.
// The attention variant is chosen at compile time (make train ATTN=qv); everything else at run time (--help).
// There is no CUDA syntax here: the same text is compiled for the CPU (g++ -x c++) and for GPUs; kernels live in layers/ and attention/.
// Started by mpirun or srun, every process ("rank") runs this text: same options, same data, another part of each batch (runtime/comm/comm.h).
// Rank 0 alone prints, logs and writes files. What may fail on one rank only is done `together`, so that all end with one message.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "dataloader/dataloader.h"
#include "model/gpt.h"
#include "runtime/run/build_info.h"
#include "runtime/run/checkpoint.h"
#include "runtime/comm/comm.h"
#include "runtime/run/files.h"
#include "runtime/run/inject.h"
#include "runtime/run/options.h"
#include "runtime/run/rundir.h"
#include "runtime/run/schedule.h"
#include "runtime/run/signals.h"
#include "runtime/run/spike.h"
#include "tokenizer/tokenizer.h"

using json = nlohmann::ordered_json;

static double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

static bool everyone_knows = false;              // of the error that is on its way to main

// Runs `work` on every rank; when it failed anywhere, all ranks throw the same error.
template <class Work> static void together(const char* phase, Work work) {
    std::string error;
    int code = EXIT_FAILED;
    try {
        work();
    } catch (const Error& e) {
        error = e.what(), code = e.exit_code;
    } catch (const std::bad_alloc&) {
        error = "out of memory; --dry-run lists what takes it, a smaller --micro-batch or --context needs less";
    } catch (const std::exception& e) {
        error = e.what();
    }
    everyone_knows = true;
    comm_agree(error.c_str(), code, phase);
    everyone_knows = false;
}

// ---------------------------------------------------------------------------------------------- data

struct Data {
    Dataset train, val;
    Tokenizer tokenizer;
    bool has_tokenizer = false;
    std::vector<float> token_bytes;              // bytes of text that each token stands for, for bits per byte
    int64_t val_samples = 0;                     // the same first samples in every run
};

static Data open_data(Options& o) {
    Data d;
    std::string path = o.tokenizer.empty() ? o.data + "/tokenizer.json" : o.tokenizer;
    if (!o.tokenizer.empty() || access(path.c_str(), R_OK) == 0) {
        d.tokenizer = tokenizer_load(path);
        d.has_tokenizer = true;
        o.model.V = int(d.tokenizer.vocab_size());
        for (const std::string& bytes : d.tokenizer.token_bytes) d.token_bytes.push_back(float(bytes.size()));
    } else {
        ensure(access(o.data.c_str(), R_OK) == 0, "%s: no such data folder; `make data` makes one and ends with its name, for --data; build/tokenizer encode makes one of your text", o.data.c_str());
        fail("%s: not found, and without it the vocabulary's size is unknown; give --tokenizer FILE", path.c_str());
    }
    d.train = dataset_open(o.data, "train", size_t(o.model.T), size_t(o.model.V));
    d.val = dataset_open(o.data, "val", size_t(o.model.T), size_t(o.model.V));
    d.val_samples = int64_t(d.val.samples);
    if (o.val_tokens > 0) d.val_samples = std::clamp<int64_t>(o.val_tokens / o.model.T, 1, d.val_samples);
    return d;
}

// ---------------------------------------------------------------------------------------------- evaluation and samples

struct Evaluation { double loss, bits_per_byte; bool stopped; };

// Mean loss over the fixed validation samples, in batches that the ranks take in turn; a stop request cuts it short (loss NaN). The
// batches' sums are added in their order: how many ranks there were changes nothing.
static Evaluation evaluate(GPT& g, const Data& d) {
    const int T = g.c.T, ranks = comm_size();
    std::vector<int> inputs(size_t(g.max_B) * T), targets(inputs.size());
    const int64_t batches = (d.val_samples + g.max_B - 1) / g.max_B;
    std::vector<double> sums(size_t(2 * batches));           // nats and bytes of each batch
    gpt_wait_for_weights(g);
    for (int64_t first = 0; first < batches; first += ranks) {
        if (comm_any(stop_requested(), "validation")) return {NAN, NAN, true};
        int64_t batch = first + comm_rank(), i = batch * g.max_B;
        if (batch >= batches) continue;
        int B = int(std::min<int64_t>(g.max_B, d.val_samples - i));
        for (int b = 0; b < B; b++) dataset_read(d.val, size_t(i + b), &inputs[size_t(b) * T], &targets[size_t(b) * T]);
        sums[size_t(2 * batch)] = gpt_loss(g, inputs.data(), targets.data(), B, T);
        for (int k = 0; k < B * T; k++) sums[size_t(2 * batch + 1)] += d.token_bytes[size_t(targets[size_t(k)])];
    }
    comm_sum(sums.data(), sums.size(), "validation losses");
    double nats = 0, bytes = 0;
    for (int64_t batch = 0; batch < batches; batch++) nats += sums[size_t(2 * batch)], bytes += sums[size_t(2 * batch + 1)];
    return {nats / double(d.val_samples * T), nats / std::log(2.0) / bytes, false};
}

// One token from softmax(logits / temperature) over the top_k largest; u uniform in [0, 1). temperature 0: the largest.
static int sample_token(const std::vector<floatX>& logits, double temperature, int top_k, double u) {
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return float(logits[size_t(a)]) > float(logits[size_t(b)]); });
    if (temperature == 0) return order[0];
    if (top_k > 0 && size_t(top_k) < order.size()) order.resize(size_t(top_k));
    std::vector<double> weight;
    double sum = 0, top = double(logits[size_t(order[0])]);
    for (int id : order) {
        weight.push_back(std::exp((double(logits[size_t(id)]) - top) / temperature));
        sum += weight.back();
    }
    for (size_t i = 0; i < order.size(); i++) {
        u -= weight[i] / sum;
        if (u < 0) return order[i];
    }
    return order.back();
}

// Text that the model continues from the prompt; the last T tokens are its context. The numbers depend on (seed, step) only.
static std::string generate(GPT& g, const Options& o, const Data& d, int64_t step) {
    std::vector<uint32_t> ids = tokenizer_encode(d.tokenizer, o.prompt, true);
    if (ids.empty()) ids.push_back(0);
    std::vector<floatX> logits;
    for (int i = 0; i < o.sample_tokens && !stop_requested(); i++) {
        size_t n = std::min(ids.size(), size_t(g.c.T));
        std::vector<int> context(ids.end() - int64_t(n), ids.end());
        gpt_next_logits(g, context.data(), int(n), logits);
        ids.push_back(uint32_t(sample_token(logits, o.temperature, o.top_k, philox_uniform(o.seed, rng_stream("sample"), uint64_t(step) << 20 | uint64_t(i)))));
    }
    return tokenizer_decode(d.tokenizer, ids.data(), ids.size());
}

// ---------------------------------------------------------------------------------------------- the run's record

static json describe_run(const Options& o, const GPT& g, const Data& d) {
    DeviceFacts device = device_facts();
    BuildInfo build = build_info();
    json j;
    j["attn"] = ATTENTION_NAME;
    j["options"] = json::parse(options_to_json(o));
    j["model"] = {{"parameters", count_params(g, true)}, {"parameters_non_embedding", count_params(g, false)},
                  {"cache_bytes_per_token", cache_bytes_per_token(g)}, {"flops_per_token", flops_per_token(g)},
                  {"flops_per_token_causal", flops_per_token(g, true)}, {"vocab_size", g.c.V}, {"kv_heads", g.c.NKV}, {"head_dim", g.c.HS},
                  {"mlp_width", g.c.F}, {"qvka_dctx", g.c.qvka_dctx}, {"mla_dc", g.c.mla_dc}, {"mla_dr", g.c.mla_dr}, {"mla_dcq", g.c.mla_dcq}};
    j["build"] = {{"backend", backend_name()}, {"precision", PRECISION_NAME}, {"commit", build.commit}, {"compiler", build.compiler}, {"flags", build.flags}};
    j["machine"] = {{"cpu", device.name}, {"threads", device.threads}, {"ranks", comm_size()}, {"communication", comm_name()}};
    j["data"] = {{"train_tokens", d.train.tokens}, {"val_tokens", d.val_samples * o.model.T}, {"train_fingerprint", d.train.fingerprint},
                 {"val_fingerprint", d.val.fingerprint}, {"tokenizer_fingerprint", tokenizer_fingerprint(d.tokenizer)}};
    return j;
}

// A resumed run must be the same experiment: options, build, data. The old description is config.json, and again the checkpoint's own.
static void check_same_run(const std::string& config_text, const json& now, const Options& o, const std::string& dir) {
    json old = json::parse(config_text);
    const bool same_ranks = old.value("machine", json::object()).value("ranks", 1) == comm_size();
    std::vector<std::string> differ = options_conflicts(config_text, o, comm_size(), same_ranks);
    auto compare = [&](const char* part, const char* key) {
        std::string a = old.contains(part) && old[part].contains(key) ? old[part][key].dump() : "?", b = now[part][key].dump();
        if (a != b) differ.push_back(std::string(part) + "." + key + ": " + a + " -> " + b);
    };
    if (old.value("attn", "?") != ATTENTION_NAME) differ.push_back("attn: " + old.value("attn", "?") + " -> " + ATTENTION_NAME);
    for (const char* key : {"backend", "precision", "flags"}) compare("build", key);
    for (const char* key : {"train_fingerprint", "val_fingerprint", "tokenizer_fingerprint"}) compare("data", key);
    std::string list;
    for (const std::string& s : differ) list += (list.empty() ? "" : ", ") + s;
    ensure_usage(differ.empty(), "%s: cannot resume a different run (%s); give another --run, or put these back", dir.c_str(), list.c_str());
}

// The ranks must be the same experiment too: what rank 0 is goes to all, and each compares.
static void check_same_on_all_ranks(const json& description) {
    std::string text = description.dump();
    comm_broadcast(text, "the run's description");
    together("the comparison of builds, options and data", [&] {
        json first = json::parse(text), mine = description;
        for (json* j : {&first, &mine}) {
            j->erase("machine");
            (*j)["build"].erase("commit"), (*j)["build"].erase("compiler");
        }
        std::string list;
        for (const auto& [part, value] : mine.items()) {
            if (!value.is_object() && first[part] != value) list += " " + part + ": " + first[part].dump() + " -> " + value.dump();
            if (value.is_object())
                for (const auto& [key, x] : value.items())
                    if (first[part][key] != x) list += " " + part + "." + key + ": " + first[part][key].dump() + " -> " + x.dump();
        }
        ensure_usage(list.empty(), "differs from rank 0 (rank 0's -> this one's):%s; start the same program with the same options and data everywhere", list.c_str());
    });
}

static void print_plan(const Options& o, const GPT& g, const Data& d, const BatchPlan& plan) {
    const ModelConfig& c = g.c;
    printf("%s  %s, %s  %s\n", ATTENTION_NAME, backend_name(), PRECISION_NAME, device_facts().name.c_str());
    printf("model     L %d  C %d  NH %d  NKV %d  HS %d  T %d  V %d (padded %d)  positions %s\n", c.L, c.C, c.NH, c.NKV, c.HS, c.T, c.V, c.Vp(), position_name(c.pos));
    printf("          %s parameters, %s without embeddings; cache %zu bytes per token; %s FLOPs per token\n", human_count(double(count_params(g, true))).c_str(),
           human_count(double(count_params(g, false))).c_str(), cache_bytes_per_token(g), human_count(flops_per_token(g)).c_str());
    printf("data      %s: %s training tokens, %s for validation\n", o.data.c_str(), human_count(double(d.train.tokens)).c_str(), human_count(double(d.val_samples * c.T)).c_str());
    std::string ranks = comm_size() > 1 ? format("%d ranks x ", comm_size()) : "";
    printf("batch     %lld tokens = %s%lld x micro-batch %d x context %d;  %lld steps = %s tokens, %.2f epochs\n", (long long)o.batch_tokens, ranks.c_str(),
           (long long)plan.accumulation, plan.micro_batch, c.T, (long long)o.steps, human_count(double(o.steps * o.batch_tokens)).c_str(), double(o.steps * o.batch_tokens) / double(d.train.samples * size_t(c.T)));
    // Besides the buffers: the program as it stands now, and about 14 MiB to come (compiled products, packed blocks, the checkpoint's write buffer).
    size_t program = peak_memory_bytes() + (size_t(14) << 20);
    if (comm_size() > 1)
        printf("ranks     %d, by %s: zero %d%s\n", comm_size(), comm_name(), g.run.zero,
               o.deterministic_ranks > 0 ? format(", sums as of %d ranks", o.deterministic_ranks).c_str() : "");
    printf("memory    %s%s: %s in buffers, the rest for the program and its libraries\n", comm_size() > 1 ? "per rank " : "", human_bytes(double(planned_bytes(g) + program)).c_str(),
           human_bytes(double(planned_bytes(g))).c_str());
    fflush(stdout);
}

// Memory by buffer, the layers' activations summed; the largest first.
static std::vector<std::pair<std::string, size_t>> memory_groups(const GPT& planned) {
    std::vector<std::pair<std::string, size_t>> groups;
    for (const Buffer& b : planned.buffers) {
        bool layer = b.name.rfind("h.", 0) == 0;
        std::string name = layer ? "all layers: " + b.name.substr(b.name.find(' ') + 1) : b.name;
        auto it = std::find_if(groups.begin(), groups.end(), [&](auto& x) { return x.first == name; });
        if (it == groups.end()) groups.push_back({name, b.bytes});
        else it->second += b.bytes;
    }
    std::stable_sort(groups.begin(), groups.end(), [](auto& a, auto& b) { return a.second > b.second; });
    return groups;
}

static std::string largest_buffers(const GPT& planned) {
    auto groups = memory_groups(planned);
    std::string text;
    for (size_t i = 0; i < std::min<size_t>(3, groups.size()); i++) text += (i ? ", " : "") + groups[i].first + " " + human_bytes(double(groups[i].second));
    return text;
}

// --dry-run: memory by buffer and the expected time from three trial micro-batches.
static void dry_run(const Options& o, const GPT& planned, const BatchPlan& plan) {
    for (const auto& [name, bytes] : memory_groups(planned)) printf("  %12s  %s\n", human_bytes(double(bytes)).c_str(), name.c_str());
    size_t need = planned_bytes(planned), have = device_facts().memory_bytes;
    if (comm_any(need > have, "--dry-run")) {
        printf("this machine has %s: too little; a smaller --micro-batch shrinks all that is per token\n", human_bytes(double(have)).c_str());
        return;
    }
    GPT g = gpt_allocate(o.model, planned.run);
    gpt_init(g, o.seed);
    std::vector<int> tokens(size_t(plan.micro_batch) * g.c.T, 1);
    double best = 1e30;
    for (int i = 0; i < 3 && !stop_requested(); i++) {
        double t = now_s();
        gpt_forward_backward(g, tokens.data(), tokens.data(), plan.micro_batch, g.c.T, 1.0 / double(o.batch_tokens), i > 0);
        best = std::min(best, now_s() - t);
    }
    double t = now_s();
    gpt_update(g, {0, o.beta1, o.beta2, o.eps, 0, o.grad_clip, 1, 0});
    double step_s = best * double(plan.accumulation) + now_s() - t;
    printf("time      %.0f ms a step, %s tokens/s, %s in all (from a short probe, without validation)\n", step_s * 1e3, human_count(double(o.batch_tokens) / step_s).c_str(),
           human_time(step_s * double(o.steps)).c_str());
    printf("memory    %s used at most by the probe\n", human_bytes(double(peak_memory_bytes())).c_str());
    gpt_free(g);
}

// ---------------------------------------------------------------------------------------------- checkpoints

struct Progress {                                // all that decides the future besides the tensors and the options
    int64_t step = 0;                            // optimizer steps done
    uint64_t samples = 0;                        // training samples consumed
    double seconds = 0, best_val_loss = INFINITY;
    int64_t skipped = 0;                         // of these steps, without an update: AdamW counts updates
    int not_finite_in_a_row = 0;
    SpikeWindow spikes;
    std::optional<StepMetrics> unlogged;         // the last step, when a stop cut its validation or sample short: done after resuming
};

// The three kinds of state in a checkpoint. Where the ranks share them, each holds its ranges (owned_ranges).
enum StateKind { WEIGHTS, MOMENT1, MOMENT2 };
static const char* state_prefix(int kind) { return kind == WEIGHTS ? "" : kind == MOMENT1 ? "moment1." : "moment2."; }
static floatM* state_of(const GPT& g, int kind) {
    if (kind != WEIGHTS) return kind == MOMENT1 ? g.moment1 : g.moment2;
    return g.master ? g.master : reinterpret_cast<floatM*>(g.weights);       // without a master copy they are the same type, and whole on every rank
}

// Elements [begin, end) of the flat buffers' state, from whichever ranks have them.
static void read_state(const GPT& g, int kind, size_t begin, size_t end, floatM* out) {
    const floatM* mine = state_of(g, kind);
    if (kind == WEIGHTS && !g.master) {
        copy_to_host(out, mine + begin, (end - begin) * sizeof(floatM));
        return;
    }
    for (const Owned& o : owned_ranges(g, begin, end)) {
        size_t bytes = (o.end - o.begin) * sizeof(floatM);
        if (o.owner == comm_rank()) copy_to_host(out + (o.begin - begin), mine + o.state, bytes);
        else comm_fetch(o.owner, kind, o.state * sizeof(floatM), bytes, out + (o.begin - begin));
    }
}

static std::vector<TensorToWrite> tensors_of(const GPT& g, int kind) {
    std::vector<TensorToWrite> list;
    for (const Param& p : g.params) {
        if (p.size == 0) continue;
        list.push_back({state_prefix(kind) + p.spec.name, sizeof(floatM) == 8 ? "F64" : "F32", p.spec.shape,
                        [&g, &p, kind](uint64_t offset, size_t bytes, void* out) {
                            floatM* first = static_cast<floatM*>(out);
                            const floatM* last = first + bytes / sizeof(floatM);
                            size_t begin = p.offset + size_t(offset) / sizeof(floatM);
                            read_state(g, kind, begin, begin + bytes / sizeof(floatM), first);
                            floatM sum = 0;                                  // x - x is 0, or NaN when x is not finite; a sum vectorises
#pragma omp simd reduction(+ : sum)
                            for (const floatM* x = first; x < last; x++) sum += *x - *x;
                            const floatM* bad = sum == 0 ? last : std::find_if(static_cast<const floatM*>(first), last, [](floatM x) { return !std::isfinite(x); });
                            ensure(bad == last, "tensor %s holds %g at element %zu: training diverged, a lower --lr may help", p.spec.name.c_str(), double(*bad),
                                   size_t(offset) / sizeof(floatM) + size_t(bad - first));
                        }});
    }
    return list;
}

// Rank 0 writes; the others hand over what it asks for. Logs first: a checkpoint must not know more steps than they do.
static void save(RunDir& run, const Options& o, GPT& g, const Progress& at, const json& description, Console& console) {
    gpt_wait_for_weights(g);
    if (comm_rank() != 0) {
        std::string error = comm_serve([&](int kind, uint64_t offset, size_t bytes, void* out) { copy_to_host(out, reinterpret_cast<const char*>(state_of(g, kind)) + offset, bytes); });
        everyone_knows = !error.empty();
        ensure(error.empty(), "%s", error.c_str());
        return;
    }
    double start = now_s();
    std::string dir;
    try {
        rundir_sync(run);
        std::vector<TensorToWrite> optimizer = tensors_of(g, MOMENT1), second = tensors_of(g, MOMENT2);
        optimizer.insert(optimizer.end(), second.begin(), second.end());
        json state = {{"step", at.step}, {"samples", at.samples}, {"seconds", at.seconds}, {"skipped", at.skipped}, {"not_finite_in_a_row", at.not_finite_in_a_row},
                      {"spike_window", at.spikes.norms}, {"run", description}};
        if (std::isfinite(at.best_val_loss)) state["best_val_loss"] = at.best_val_loss;
        if (const auto& m = at.unlogged)
            state["unlogged"] = {{"loss", m->loss}, {"lr", m->lr}, {"grad_norm", m->grad_norm}, {"tokens_per_second", m->tokens_per_second}, {"mfu", m->mfu}};
        dir = checkpoint_save({run.dir, o.keep}, at.step, tensors_of(g, WEIGHTS), optimizer, state.dump(2));
    } catch (const std::exception& e) {
        comm_serve_end(e.what());
        everyone_knows = true;
        throw;
    }
    comm_serve_end("");
    console_message(console, format("saved %s, %s in %.2f s", dir.c_str(), human_bytes(double(std::filesystem::file_size(dir + "/model.safetensors") + std::filesystem::file_size(dir + "/optimizer.safetensors"))).c_str(), now_s() - start));
}

// Every rank reads from the file what it holds, whatever number of ranks wrote it.
static void restore_tensors(GPT& g, const std::string& path, int kind) {
    SafetensorsFile f = safetensors_open(path);
    std::vector<floatM> host;
    for (const Param& p : g.params) {
        if (p.size == 0) continue;
        const TensorInfo* t = f.find(state_prefix(kind) + p.spec.name);
        ensure(t, "%s: tensor %s is missing; the checkpoint is of another model", path.c_str(), (state_prefix(kind) + p.spec.name).c_str());
        ensure(t->shape == p.spec.shape && dtype_bytes(t->dtype) == sizeof(floatM), "%s: tensor %s has another shape or type than this model's", path.c_str(), t->name.c_str());
        if (kind == WEIGHTS) {                                               // all of them, for the kernels
            host.resize(p.size);
            safetensors_read(f, *t, host.data());
            set_weights(g, p, host);
            continue;
        }
        for (const Owned& o : owned_ranges(g, p.offset, p.offset + p.size)) {
            if (o.owner != comm_rank()) continue;
            host.resize(o.end - o.begin);
            safetensors_read_range(f, *t, (o.begin - p.offset) * sizeof(floatM), host.size() * sizeof(floatM), host.data());
            copy_to_device(state_of(g, kind) + o.state, host.data(), host.size() * sizeof(floatM));
        }
    }
}

static Progress restore(GPT& g, const CheckpointFound& found) {
    restore_tensors(g, found.dir + "/model.safetensors", WEIGHTS);
    restore_tensors(g, found.dir + "/optimizer.safetensors", MOMENT1);
    restore_tensors(g, found.dir + "/optimizer.safetensors", MOMENT2);
    json state = json::parse(found.state_json);
    Progress at{state.at("step"), state.at("samples"), state.at("seconds"), state.value("best_val_loss", double(INFINITY)), state.at("skipped"),
                state.at("not_finite_in_a_row"), {state.at("spike_window")}, {}};
    if (state.contains("unlogged")) {
        auto number = [&](const char* key) { return state["unlogged"][key].is_number() ? state["unlogged"][key].get<double>() : NAN; };
        StepMetrics m;
        m.step = at.step;
        m.seconds = at.seconds;
        m.loss = number("loss"), m.lr = number("lr"), m.grad_norm = number("grad_norm");
        m.tokens_per_second = number("tokens_per_second"), m.mfu = number("mfu");
        at.unlogged = m;
    }
    return at;
}

// ---------------------------------------------------------------------------------------------- the loop

// The step's end: norm, update unless the gradient is not finite or a spike, and its numbers: the mean loss over all ranks, the norm.
// Also agrees on a stop request.
struct StepEnd { double loss, norm; bool stop; };
static StepEnd finish_step(GPT& g, const Options& o, Progress& at, double lr, Console& console) {
    const size_t rows = size_t(g.max_B) * g.c.T, micro_batches = size_t(g.run.micro_batches), ranks = size_t(comm_size());
    AdamW hyper{lr, o.beta1, o.beta2, o.eps, o.weight_decay, o.grad_clip, at.step + 1 - at.skipped, 0};
    hyper.rounding = {o.stochastic_rounding, o.seed};
    gpt_gradient_norm(g);
    const bool look_first = o.spike_zscore > 0;              // the decision needs the norm on the host
    if (!look_first) gpt_adamw(g, hyper);                    // itself refuses a norm that is not finite
    StepResults mine = gpt_results(g, rows);
    // One exchange for all: every micro-batch's loss in its place, to be added in the order of the samples; rank 0's norm; stop requests.
    std::vector<double> all(ranks * micro_batches + 2);
    for (size_t i = 0; i < micro_batches; i++) all[size_t(comm_rank()) * micro_batches + i] = mine.losses[i];
    all[ranks * micro_batches] = comm_rank() == 0 ? mine.norm : 0;
    all[ranks * micro_batches + 1] = stop_requested();
    comm_sum(all.data(), all.size(), "the step's losses");
    StepEnd end{0, all[ranks * micro_batches], all[ranks * micro_batches + 1] > 0};
    for (size_t i = 0; i < ranks * micro_batches; i++) end.loss += all[i];
    end.loss /= double(o.batch_tokens);

    const char* skip = nullptr;
    if (!std::isfinite(end.norm)) skip = "not finite";
    else if (look_first && spike_seen(at.spikes, end.norm, o.spike_zscore)) skip = "far above the recent ones";
    if (look_first && !skip) gpt_adamw(g, hyper);
    at.not_finite_in_a_row = std::isfinite(end.norm) ? 0 : at.not_finite_in_a_row + 1;
    if (skip) {
        at.skipped++;
        console_message(console, format("step %lld: loss %g, gradient norm %g is %s: not updated", (long long)at.step + 1, end.loss, end.norm, skip));
    }
    everyone_knows = at.not_finite_in_a_row >= 5;
    ensure(at.not_finite_in_a_row < 5, "step %lld: the gradient was not finite 5 times in a row; a lower --lr may help; the last checkpoint is intact", (long long)at.step + 1);
    return end;
}

static const char* stop_reason(const Options& o, int64_t step) {
    return stop_requested() ? stop_signal_name() : o.stop_at > 0 && step >= o.stop_at ? "--stop-at" : "a signal to another rank";
}

// How this rank runs the model.
static RunShape run_shape(const Options& o, const BatchPlan& plan) {
    RunShape run{plan.micro_batch, true, int(plan.accumulation), comm_rank(), comm_size(), comm_size() > 1 ? o.zero : 0, 0, o.recompute};
    ensure_usage(!o.stochastic_rounding || sizeof(floatX) < sizeof(floatM), "--stochastic-rounding: this program keeps its weights in %s, there is nothing to round; build with PRECISION=bf16", PRECISION_NAME);
    if (o.deterministic_ranks == 0) return run;
    const int parts = o.deterministic_ranks, ranks = comm_size();
    ensure_usage((parts & (parts - 1)) == 0 && parts % ranks == 0, "--deterministic-ranks: %d must be a power of two and a multiple of the %d ranks", parts, ranks);
    ensure_usage(comm_sums_by_tree(), "--deterministic-ranks: %s adds in an order of its own; use BACKEND=cpu, or leave it out", comm_name());
    ensure_usage(ranks == 1 || o.zero < 2, "--deterministic-ranks goes with --zero 0 or 1: zero 2 adds every micro-batch over the ranks first");
    while ((ranks << run.stashes) < parts) run.stashes++;
    return run;
}

static int train(Options& o) {
    Data data;
    BatchPlan plan;
    comm_set_timeout(o.comm_timeout);
    together("start-up", [&] {
        backend_init(o.threads > 0 || comm_size() == 1 ? o.threads : comm_threads());
        plan = batch_plan(o, comm_size());
        data = open_data(o);
    });
    comm_start_devices();
    if (comm_any(stop_requested(), "start-up")) {
        printf("stopped by %s while the data was read; nothing has changed\n", stop_reason(o, 0));
        return EXIT_STOPPED_AND_SAVED;
    }
    GPT planned;
    json description;
    const size_t have = device_facts().memory_bytes;
    together("planning", [&] {
        planned = gpt_plan(o.model, run_shape(o, plan));
        description = describe_run(o, planned, data);
    });
    check_same_on_all_ranks(description);
    if (!o.quiet || o.dry_run) print_plan(o, planned, data, plan);
    if (o.dry_run) {
        dry_run(o, planned, plan);
        return EXIT_DONE;
    }

    RunDir run;
    std::string old_config;
    CheckpointFound found;
    GPT g;
    together("opening the run", [&] {
        ensure(planned_bytes(planned) <= have, "this run needs %s and the machine has %s; the largest: %s; a smaller --micro-batch shrinks all that is per token",
               human_bytes(double(planned_bytes(planned))).c_str(), human_bytes(double(have)).c_str(), largest_buffers(planned).c_str());
        if (comm_rank() != 0) return;
        rundir_open(run, o.runs_dir, o.run, o.resume, o.overwrite);
        std::string config_path = run.dir + "/config.json";
        if (o.resume && file_exists(config_path)) old_config = file_read(config_path, 16 << 20);
        if (!old_config.empty()) check_same_run(old_config, description, o, run.dir);
        if (o.resume) found = checkpoint_find(run.dir);
        if (!found.dir.empty()) check_same_run(json::parse(found.state_json).at("run").dump(), description, o, found.dir);
    });
    comm_broadcast(found.dir, "the checkpoint's folder");
    comm_broadcast(found.state_json, "the checkpoint's state");
    Progress at;
    together("allocating the model", [&] {
        try {
            g = gpt_allocate(o.model, planned.run);
        } catch (const Error& e) {                                           // a limit below what the machine has: ulimit -v, a container's
            fail("%s; the run needs %s, the largest buffers: %s; a smaller --micro-batch or --recompute 2 needs less", e.what(),
                 human_bytes(double(planned_bytes(planned))).c_str(), largest_buffers(planned).c_str());
        }
        if (found.dir.empty()) gpt_init(g, o.seed);
        else at = restore(g, found);
    });
    if (comm_rank() != 0 && o.rank_logs) {
        std::string path = format("%s/%s/rank-%d.log", o.runs_dir.c_str(), o.run.c_str(), comm_rank());
        if (!freopen(path.c_str(), "a", stdout)) fprintf(stderr, "%s: cannot be written, this rank's log is lost\n", path.c_str());
    }
    Console console = console_open(o.steps, o.quiet);
    if (!found.dir.empty()) {
        json old = json::parse(found.state_json)["run"];
        for (const auto& [part, key] : {std::pair{"build", "commit"}, {"build", "compiler"}, {"machine", "cpu"}, {"machine", "ranks"}}) {
            if (old[part].value(key, description[part][key]) == description[part][key]) continue;
            if (std::string(key) == "ranks" && o.deterministic_ranks > 0) continue;
            console_message(console, format("note: %s was %s and is %s: rounding may differ from a run that was not interrupted", key,
                                            old[part][key].dump().c_str(), description[part][key].dump().c_str()));
        }
        console_message(console, "resumed from " + found.dir);
    }
    if (comm_rank() == 0) {
        if (old_config.empty()) rundir_write_config(run, description.dump(2));
        if (o.resume) rundir_trim(run, at.step == 0 || at.unlogged ? at.step - 1 : at.step);   // those lines are written (again) below
    }

    Schedule schedule{o.schedule, o.lr, o.final_fraction, o.decay_fraction, o.warmup, o.steps};
    const double peak = device_facts().peak_flops * comm_size();
    const int T = g.c.T, B = plan.micro_batch;
    std::vector<int> inputs(size_t(B) * T), targets(size_t(B) * T);
    int64_t saved_step = found.dir.empty() || at.unlogged ? -1 : at.step;
    bool stop = comm_any(stop_requested(), "the first step");

    // What follows an update. Cut short by a stop request, it is left to the resumed run, so that the logs miss nothing.
    auto log_step = [&](StepMetrics& m, bool validate, bool sample) {
        m.tokens = m.step * o.batch_tokens;
        at.unlogged.reset();
        bool cut = false;
        if (validate) {
            Evaluation e = evaluate(g, data);
            m.val_loss = e.loss;
            m.bits_per_byte = e.bits_per_byte;
            if (e.loss < at.best_val_loss) at.best_val_loss = e.loss;
            cut = e.stopped;
        }
        if (sample) gpt_wait_for_weights(g);
        std::string text = sample && !cut && comm_rank() == 0 ? generate(g, o, data, m.step) : "";
        if (sample) cut = comm_any(cut || stop_requested(), "a sample of text");
        if (cut) {
            at.unlogged = m;
            stop = true;
            return;
        }
        if (comm_rank() != 0) return;
        rundir_log(run, m);
        if (!sample) return;
        rundir_sample(run, m.step, text);
        console_message(console, format("--- sample at step %lld\n", (long long)m.step) + text + "\n---");
    };
    auto due = [&](int64_t every) { return every > 0 && at.step % every == 0; };
    auto validation_due = [&] { return at.step == o.steps || due(o.val_every); };
    auto sample_due = [&] { return o.sample_every > 0 && at.step > 0 && (at.step == o.steps || due(o.sample_every)); };
    if (at.step == 0 && o.val_every > 0) {                                   // the starting point: about ln V
        StepMetrics m;
        log_step(m, true, false);
    } else if (at.unlogged) {
        StepMetrics m = *at.unlogged;
        log_step(m, validation_due(), sample_due());
    }

    while (at.step < o.steps && !stop) {
        double start = now_s(), lr = schedule_lr(schedule, at.step);
        comm_at_step(at.step + 1);
        const double scale = 1.0 / double(o.batch_tokens) * injected_gradient_factor(at.step + 1, comm_rank());
        const uint64_t mine = at.samples + uint64_t(comm_rank() * plan.accumulation * B);          // a step's samples, in their order, rank by rank
        int64_t micro = 0;
        for (; micro < plan.accumulation; micro++) {
            if (comm_size() == 1 && stop_requested()) break;
            dataset_batch(data.train, o.seed, mine + uint64_t(micro * B), size_t(B), inputs.data(), targets.data());
            gpt_micro_batch(g, inputs.data(), targets.data(), B, T, scale, int(micro));
        }
        if (micro < plan.accumulation) break;                                // half a step changes nothing: the resumed run does it whole
        StepEnd end = finish_step(g, o, at, lr, console);
        stop = end.stop;
        double step_s = now_s() - start;
        at.step++;
        at.samples += uint64_t(plan.sequences);
        at.seconds += step_s;
        StepMetrics m;
        m.step = at.step;
        m.seconds = at.seconds;
        m.loss = end.loss;
        m.lr = lr;
        m.grad_norm = end.norm;
        m.tokens_per_second = double(o.batch_tokens) / step_s;
        double flops_per_second = flops_per_token(g) * m.tokens_per_second;
        if (peak > 0) m.mfu = flops_per_second / peak, m.mfu_causal = flops_per_token(g, true) * m.tokens_per_second / peak;
        log_step(m, validation_due(), sample_due());
        console_step(console, m, step_s * 1e3, flops_per_second / 1e9, at.seconds);
        if (due(o.save_every)) save(run, o, g, at, description, console), saved_step = at.step;
        if (o.stop_at > 0 && at.step >= o.stop_at) break;
    }
    bool stopped = at.step < o.steps || at.unlogged;
    if (saved_step != at.step) save(run, o, g, at, description, console);
    console_close(console);
    if (stopped) {
        printf("stopped at step %lld (%s); go on with --resume --run %s\n", (long long)at.step, stop_reason(o, at.step), o.run.c_str());
    } else if (!o.quiet) {
        printf("%s done: best validation loss %.4f nats, %s of training, at most %s of memory\n", o.run.c_str(), at.best_val_loss, human_time(at.seconds).c_str(),
               human_bytes(double(peak_memory_bytes())).c_str());
    }
    gpt_free(g);
    return stopped ? EXIT_STOPPED_AND_SAVED : EXIT_DONE;
}

// One line, from rank 0 where all ranks know of the error; else from the rank that has it, which then ends the others.
static int report(const char* what, int code) {
    if (comm_size() == 1 || (everyone_knows && comm_rank() == 0)) fprintf(stderr, "error: %s\n", what);
    else if (!everyone_knows) fprintf(stderr, "error: rank %d: %s\n", comm_rank(), what);
    fflush(stdout);
    if (comm_size() > 1 && !everyone_knows) comm_abort(code);
    return code;
}

int main(int argc, char** argv) {
    backend_prepare(argv);
    signals_install();                                                       // before MPI starts threads of its own
    int code = EXIT_DONE;
    try {
        comm_init();
        if (comm_rank() != 0 && !freopen("/dev/null", "w", stdout)) return EXIT_FAILED;
        Options o;
        bool run = false;
        together("reading the options", [&] { run = options_parse(o, argc, argv, ATTENTION_NAME); });
        if (run) code = train(o);
    } catch (const Error& e) {
        code = report(e.what(), e.exit_code);
    } catch (const std::bad_alloc&) {
        code = report("out of memory; --dry-run lists what takes it, a smaller --micro-batch or --context needs less", EXIT_FAILED);
    } catch (const std::exception& e) {
        code = report(e.what(), EXIT_FAILED);
    }
    comm_finalize();
    return code;
}
