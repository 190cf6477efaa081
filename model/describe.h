// A run before its first step, in words and numbers: what config.json records, what is printed, the memory by buffer,
// and a short trial (--dry-run).
#pragma once
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "dataloader/data.h"
#include "model/gpt.h"
#include "runtime/run/clock.h"
#include "runtime/run/description.h"
#include "runtime/run/rundir.h"
#include "runtime/run/signals.h"

// The sizes after defaults are filled in, with the variant's own from its table.
inline std::vector<std::pair<std::string, int>> resolved_sizes(const ModelConfig& c) {
    std::vector<std::pair<std::string, int>> sizes = {{"vocab_size", c.V}, {"kv_heads", c.NKV}, {"head_dim", c.HS}, {"mlp_width", c.F}};
    for (size_t i = 0; i < ATTENTION_OPTIONS.size(); i++)
        if (ATTENTION_OPTIONS[i].kind == VariantOption::number) sizes.push_back({json_key(ATTENTION_OPTIONS[i].name), c.own[i]});
    return sizes;
}

inline RunFacts run_facts(const Options& o, const GPT& g, const Data& d) {
    const DeviceFacts device = device_facts();
    return {.parameters = count_params(g, true),
            .parameters_non_embedding = count_params(g, false),
            .cache_bytes_per_token = cache_bytes_per_token(g),
            .flops_per_token = flops_per_token(g),
            .flops_per_token_causal = flops_per_token(g, true),
            .sizes = resolved_sizes(g.c),
            .backend = backend_name(),
            .precision = PRECISION_NAME,
            .cpu = device.name,
            .threads = device.threads,
            .ranks = comm_size(),
            .communication = comm_name(),
            .train_tokens = d.train.tokens,
            .val_tokens = uint64_t(d.val_samples * o.model.T),
            .train_fingerprint = d.train.fingerprint,
            .val_fingerprint = d.val.fingerprint,
            .tokenizer_fingerprint = tokenizer_fingerprint(d.tokenizer)};
}

// What a run takes besides its buffers and what the program takes already: compiled products, packed blocks, the
// checkpoint's write buffer.
inline constexpr size_t PROGRAM_BYTES = size_t(14) << 20;

inline void print_plan(const Options& o, const GPT& g, const Data& d, const BatchPlan& plan) {
    const ModelConfig& c = g.c;
    const int ranks = comm_size();
    const double tokens = double(o.steps * o.batch_tokens), epoch = double(d.train.samples * size_t(c.T));
    printf("%s  %s, %s  %s\n", o.program.name().c_str(), backend_name(), PRECISION_NAME, device_facts().name.c_str());
    printf("model     L %d  C %d  NH %d  NKV %d  HS %d  T %d  V %d (padded %d)  positions %s\n", c.L, c.C, c.NH, c.NKV,
           c.HS, c.T, c.V, c.Vp(), position_name(c.pos));
    printf("          %s parameters, %s without embeddings; cache %zu bytes per token; %s FLOPs per token\n",
           human_count(double(count_params(g, true))).c_str(), human_count(double(count_params(g, false))).c_str(),
           cache_bytes_per_token(g), human_count(flops_per_token(g)).c_str());
    printf("data      %s: %s training tokens, %s for validation\n", o.data.c_str(), human_count(double(d.train.tokens)).c_str(),
           human_count(double(d.val_samples * c.T)).c_str());
    printf("batch     %lld tokens = %s%lld x micro-batch %d x context %d;  %lld steps = %s tokens, %.2f epochs\n",
           (long long)o.batch_tokens, ranks > 1 ? format("%d ranks x ", ranks).c_str() : "",
           (long long)plan.accumulation, plan.micro_batch, c.T, (long long)o.steps, human_count(tokens).c_str(),
           tokens / epoch);
    if (ranks > 1)
        printf("ranks     %d, by %s: zero %d%s\n", ranks, comm_name(), g.run.zero,
               o.deterministic_ranks > 0 ? format(", sums as of %d ranks", o.deterministic_ranks).c_str() : "");
    const double buffers = double(planned_bytes(g)), program = double(peak_memory_bytes() + PROGRAM_BYTES);
    printf("memory    %s%s: %s in buffers, the rest for the program and its libraries\n", ranks > 1 ? "per rank " : "",
           human_bytes(buffers + program).c_str(), human_bytes(buffers).c_str());
    fflush(stdout);
}

// Memory by buffer, the layers' activations summed; the largest first.
inline std::vector<std::pair<std::string, size_t>> memory_groups(const GPT& planned) {
    std::vector<std::pair<std::string, size_t>> groups;
    for (const Buffer& b : planned.buffers) {
        const bool layer = b.name.rfind("h.", 0) == 0;
        const std::string name = layer ? "all layers: " + b.name.substr(b.name.find(' ') + 1) : b.name;
        auto it = std::find_if(groups.begin(), groups.end(), [&](auto& x) { return x.first == name; });
        if (it == groups.end()) groups.push_back({name, b.bytes});
        else it->second += b.bytes;
    }
    std::stable_sort(groups.begin(), groups.end(), [](auto& a, auto& b) { return a.second > b.second; });
    return groups;
}

inline std::string largest_buffers(const GPT& planned) {
    const auto groups = memory_groups(planned);
    std::string text;
    for (size_t i = 0; i < std::min<size_t>(3, groups.size()); i++)
        text += (i ? ", " : "") + groups[i].first + " " + human_bytes(double(groups[i].second));
    return text;
}

// Refuses what cannot fit in memory, naming the largest buffers.
inline void ensure_fits(const GPT& planned) {
    const size_t need = planned_bytes(planned), have = device_facts().memory_bytes;
    ensure(need <= have, "this run needs %s and the machine has %s; the largest: %s; a smaller --micro-batch shrinks all that is per token",
           human_bytes(double(need)).c_str(), human_bytes(double(have)).c_str(), largest_buffers(planned).c_str());
}

// For programs: exact counts, one JSON object after the word "numbers".
inline void print_numbers(const GPT& planned) {
    printf(
        "numbers   {\"parameters\":%zu,\"parameters_non_embedding\":%zu,"
        "\"cache_bytes_per_token\":%zu,\"flops_per_token\":%.17g,\"memory_bytes\":%zu}\n",
        count_params(planned, true), count_params(planned, false), cache_bytes_per_token(planned),
        flops_per_token(planned), planned_bytes(planned) + peak_memory_bytes() + PROGRAM_BYTES);
}

// --dry-run: memory by buffer, and the time to expect from three trial micro-batches (none with --steps 0).
inline void dry_run(const Options& o, const GPT& planned, const BatchPlan& plan) {
    print_numbers(planned);
    if (o.steps == 0) return;
    for (const auto& [name, bytes] : memory_groups(planned)) printf("  %12s  %s\n", human_bytes(double(bytes)).c_str(), name.c_str());
    const size_t need = planned_bytes(planned), have = device_facts().memory_bytes;
    if (comm_any(need > have, "--dry-run")) {
        printf("this machine has %s: too little; a smaller --micro-batch shrinks all that is per token\n",
               human_bytes(double(have)).c_str());
        return;
    }
    GPT g = gpt_allocate(o.model, planned.run);
    gpt_init(g, o.seed);
    std::vector<int> tokens(size_t(plan.micro_batch) * g.c.T, 1);
    double best = 1e30;
    for (int i = 0; i < 3 && !stop_requested(); i++) {
        const double start = now_s();
        gpt_forward_backward(g, tokens.data(), tokens.data(), plan.micro_batch, g.c.T, 1.0 / double(o.batch_tokens), i > 0);
        best = std::min(best, now_s() - start);
    }
    const double start = now_s();
    gpt_update(g, {0, o.beta1, o.beta2, o.eps, 0, o.grad_clip, 1, 0});
    const double step_s = best * double(plan.accumulation) + now_s() - start;
    printf("time      %.0f ms a step, %s tokens/s, %s in all (from a short probe, without validation)\n", step_s * 1e3,
           human_count(double(o.batch_tokens) / step_s).c_str(), human_time(step_s * double(o.steps)).c_str());
    printf("numbers   {\"step_seconds\":%.6g}\n", step_s);
    printf("memory    %s used at most by the probe\n", human_bytes(double(peak_memory_bytes())).c_str());
    gpt_free(g);
}
