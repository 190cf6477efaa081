// Every option of the trainer, a row each; see option_table.h.
#include "runtime/run/option_table.h"

#include <algorithm>

static std::vector<Field> own_fields(Options& o) {
    own_defaults(o.model, o.program.own);
    std::vector<Field> fields;
    for (const VariantOption& own : o.program.own) {
        int* value = &o.model.own[fields.size()];
        Field f{fields.empty() ? "Attention" : "", own.name, "N", own.help, value, Role::curve, AUTO, double(own.max), {}};
        if (own.kind != VariantOption::number) f.value = Own{value, &own};
        if (own.kind != VariantOption::number) f.arg = own.kind == VariantOption::flag ? "" : "NAME";
        f.choices.assign(own.choices.begin(), own.choices.end());
        fields.push_back(f);
    }
    return fields;
}

std::vector<Field> option_table(Options& o) {
    ModelConfig& m = o.model;
    const double BIG = 1e15;      // steps, tokens: any product of two that fits a run stays far from 2^63
    const auto curve = Role::curve, harmless = Role::harmless, action = Role::action;
    std::vector<Field> table = {
        {"Model", "context", "T", "longest sequence, tokens", &m.T, curve, 1, 1 << 20, {}},
        {"", "layers", "L", "blocks", &m.L, curve, 1, 1000, {}},
        {"", "width", "C", "channels of the residual stream", &m.C, curve, 1, 1 << 17, {}},
        {"", "heads", "N", "query heads", &m.NH, curve, 1, 4096, {}},
        {"", "kv-heads", "N", "key/value heads; 0: as the variant says", &m.NKV, curve, 0, 4096, {}},
        {"", "head-dim", "N", "head size; 0: width / heads", &m.HS, curve, 0, 1 << 14, {}},
        {"", "mlp-width", "N", "hidden width of the MLP; 0: 4 x width, or as the MLP says", &m.F, curve, 0, 1 << 20, {}},
        {"", "pos", "NAME", "learned | sinusoidal | rope | alibi | power | none", &m.pos, curve, 0, 0, {}},
        {"", "rope-theta", "X", "base of RoPE's wavelengths", &m.rope_theta, curve, 1, 1e12, {}},
        {"Training", "batch-tokens", "N", "tokens per optimizer step, a multiple of the context", &o.batch_tokens, curve, 1, BIG, {}},
        {"", "micro-batch", "N", "sequences per forward pass; 0: largest divisor up to 16", &o.micro_batch, curve, 0, 1 << 20, {}},
        {"", "steps", "N", "optimizer steps", &o.steps, curve, 0, BIG, {}},
        {"", "lr", "X", "peak learning rate", &o.lr, curve, 0, 1e6, {}},
        {"", "final-fraction", "X", "the schedule ends at lr times this", &o.final_fraction, curve, 0, 1, {}},
        {"", "warmup", "N", "steps of linear warm-up", &o.warmup, curve, 0, BIG, {}},
        {"", "schedule", "NAME", "cosine | wsd | linear | constant", &o.schedule, curve, 0, 0,
         {"cosine", "wsd", "linear", "constant"}},
        {"", "decay-fraction", "X", "wsd: part of the steps spent decaying", &o.decay_fraction, curve, 0, 1, {}},
        {"", "weight-decay", "X", "AdamW: decoupled decay of matrices", &o.weight_decay, curve, 0, 1e6, {}},
        {"", "beta1", "X", "AdamW: memory of the mean", &o.beta1, curve, 0, 0.9999999, {}},
        {"", "beta2", "X", "AdamW: memory of the square", &o.beta2, curve, 0, 0.9999999, {}},
        {"", "eps", "X", "AdamW: added to the square root", &o.eps, curve, 1e-30, 1, {}},
        {"", "grad-clip", "X", "largest global gradient norm; 0: off", &o.grad_clip, curve, 0, 1e9, {}},
        {"", "spike-zscore", "Z", "skip updates with a norm Z deviations above the recent mean; 0: off",
         &o.spike_zscore, curve, 0, 1e9, {}},
        {"", "stochastic-rounding", "", "bf16: unbiased stochastic rounding of the weights", &o.stochastic_rounding, curve, 0, 0, {}},
        {"", "seed", "N", "of weights and of the order of the data", &o.seed, curve, 0, 0, {}},
        {"Data", "data", "DIR", "folder with train*.bin, val*.bin", &o.data, curve, 0, 0, {}},
        {"", "tokenizer", "FILE", "tokenizer.json; default: the one in the data folder", &o.tokenizer, curve, 0, 0, {}},
        {"", "val-every", "N", "steps between validations; 0: only at the end", &o.val_every, harmless, 0, BIG, {}},
        {"", "val-tokens", "N", "validate on N tokens, spread over the split; 0: all", &o.val_tokens, curve, 0, BIG, {}},
        {"Samples", "sample-every", "N", "steps between samples of text; 0: never", &o.sample_every, harmless, 0, BIG, {}},
        {"", "sample-tokens", "N", "length of a sample", &o.sample_tokens, harmless, 1, 1 << 20, {}},
        {"", "temperature", "X", "0: always the likeliest token", &o.temperature, harmless, 0, 1e6, {}},
        {"", "top-k", "N", "draw from the k likeliest; 0: from all", &o.top_k, harmless, 0, 1 << 24, {}},
        {"", "prompt", "TEXT", "what a sample starts with", &o.prompt, harmless, 0, 0, {}},
        {"Run", "run", "NAME", "name of the run; default: ATTN-pos-seed", &o.run, harmless, 0, 0, {}},
        {"", "runs-dir", "DIR", "where runs live", &o.runs_dir, harmless, 0, 0, {}},
        {"", "resume", "", "continue the run, with its own config.json", &o.resume, action, 0, 0, {}},
        {"", "init-from", "PATH", "begin with the weights of a run or a checkpoint (build/import makes one)",
         &o.init_from, curve, 0, 0, {}},
        {"", "branch-from", "PATH", "continue from a run or a checkpoint, as a run of its own", &o.branch_from, action, 0, 0, {}},
        {"", "overwrite", "", "delete the run of this name first", &o.overwrite, action, 0, 0, {}},
        {"", "save-every", "N", "steps between checkpoints; 0: only the last", &o.save_every, harmless, 0, BIG, {}},
        {"", "keep", "N", "checkpoints kept", &o.keep, harmless, 1, 1 << 20, {}},
        {"", "stop-at", "N", "stop and save after this step; 0: off", &o.stop_at, action, 0, BIG, {}},
        {"", "threads", "N", "0: all, or OMP_NUM_THREADS", &o.threads, harmless, 0, 4096, {}},
        {"", "recompute", "N", "less memory: the MLP's hidden outputs (1), the norms' too (2) again in the backward",
         &o.recompute, harmless, 0, 2, {}},
        {"", "cuda-graphs", "NAME", "CUDA: replay a step's launches as graphs: auto | on | off", &o.cuda_graphs, harmless, 0, 0,
         {"auto", "on", "off"}},
        {"", "quiet", "", "no line per step", &o.quiet, harmless, 0, 0, {}},
        {"", "dry-run", "", "sizes, memory and FLOPs, no training", &o.dry_run, action, 0, 0, {}},
        {"", "config", "FILE", "options from a JSON file; the command line wins", &o.config_file, action, 0, 0, {}},
        {"Ranks", "zero", "N", "divided among the ranks: 0 nothing, 1 optimizer state, 2 gradients too", &o.zero, harmless, 0, 2, {}},
        {"", "deterministic-ranks", "P", "the same bits on 1, 2, 4 .. P ranks (CPU); 0: off", &o.deterministic_ranks, curve, 0, 1024, {}},
        {"", "comm-timeout", "S", "end all ranks if one is not heard from for so long; 0: never", &o.comm_timeout, harmless, 0, 1e9, {}},
        {"", "rank-logs", "", "rank N > 0 writes RUN/rank-N.log", &o.rank_logs, harmless, 0, 0, {}},
    };
    const std::vector<Field> own = own_fields(o);
    const auto training = std::find_if(table.begin(), table.end(), [](const Field& f) { return std::string(f.group) == "Training"; });
    table.insert(training, own.begin(), own.end());
    return table;
}
