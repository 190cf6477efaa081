// The option table, and all that follows from it: parsing the command line and config.json, help, range checks, conflicts
// on resume. To add an option, add a row here and a member to struct Options; a variant's own options are rows in its file.
// CLI11 splits the command line into names and values; the values are read here, in the same way from either source.
#include "runtime/run/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <variant>

#include "runtime/run/error.h"
#include "runtime/run/files.h"

using nlohmann::json;

// What an option means for a run that is resumed.
enum class Role {
    curve,       // decides the loss curve: must not change on resume
    harmless,    // may change on resume
    action       // belongs to one invocation: not kept in config.json
};

// A flag or a choice of a variant's own: 0, 1, .. in ModelConfig::own.
struct Own {
    int* value;
    const VariantOption* option;
};

struct Field {
    const char *group, *name, *arg, *help;
    std::variant<int*, int64_t*, uint64_t*, double*, bool*, std::string*, Position*, Own> value;
    Role role;
    double min = 0, max = 0;             // of numbers, inclusive
    std::vector<std::string> choices;    // of words
    bool is_flag() const {
        const Own* own = std::get_if<Own>(&value);
        return std::holds_alternative<bool*>(value) || (own && own->option->kind == VariantOption::flag);
    }
};

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

static std::vector<Field> option_table(Options& o) {
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
        {"", "threads", "N", "0: all", &o.threads, harmless, 0, 4096, {}},
        {"", "recompute", "N", "less memory: the MLP's hidden outputs (1), the norms' too (2) again in the backward",
         &o.recompute, harmless, 0, 2, {}},
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

static std::string json_key(const Field& f) { return json_key(f.name); }

// The variant that this option belongs to: "mla-dc" and "mla_dc" are mla's. "" if it begins with no variant's name.
static std::string variant_of_option(const Program& program, const std::string& option) {
    std::string first = option.substr(0, option.find_first_of("-_"));
    std::istringstream names(program.variants);
    for (std::string name; names >> name;) {
        std::string squeezed = name;
        std::erase(squeezed, '_');
        if (squeezed == first) return name;
    }
    return "";
}

static json field_to_json(const Field& f) {
    return std::visit([&](auto v) -> json {
        using V = decltype(v);
        if constexpr (std::is_same_v<V, Position*>) return position_name(*v);
        else if constexpr (std::is_same_v<V, Own>) return f.is_flag() ? json(*v.value != 0) : json(v.option->choices[size_t(*v.value)]);
        else return *v;
    }, f.value);
}

// On one line, with invalid UTF-8 replaced: a command line may hold any bytes.
static std::string json_text(const json& j) { return j.dump(-1, ' ', true, json::error_handler_t::replace); }

// ---- setting one value, from text or from JSON. `where` names it in the message: "--lr" or "config.json: lr".

static std::string number_text(double x) { return std::abs(x) < 1e15 && x == std::floor(x) ? format("%.0f", x) : format("%g", x); }

template <class V> static void set_number(V& out, V x, const Field& f, const std::string& where, const std::string& shown) {
    if constexpr (!std::is_same_v<V, uint64_t>)       // the seed: all of its 64 bits are valid
        ensure_usage(double(x) >= f.min && double(x) <= f.max, "%s: %s is out of range (%s to %s)", where.c_str(), shown.c_str(),
                     number_text(f.min).c_str(), number_text(f.max).c_str());
    out = x;
}

static void set_word(const Field& f, const std::string& word, const std::string& where) {
    if (!f.choices.empty() && std::find(f.choices.begin(), f.choices.end(), word) == f.choices.end()) {
        std::string all;
        for (const std::string& c : f.choices) all += (all.empty() ? "" : ", ") + c;
        fail_usage("%s: '%s' is unknown; choose one of: %s", where.c_str(), printable(word).c_str(), all.c_str());
    }
    if (auto* text = std::get_if<std::string*>(&f.value)) **text = word;
    else if (auto* own = std::get_if<Own>(&f.value))
        *own->value = int(std::find(f.choices.begin(), f.choices.end(), word) - f.choices.begin());
    else {
        try {
            *std::get<Position*>(f.value) = position_from_name(word);
        } catch (const Error& e) {
            fail_usage("%s: %s", where.c_str(), e.what());
        }
    }
}

template <class V> static constexpr bool IS_NUMBER = std::is_arithmetic_v<V> && !std::is_same_v<V, bool>;

static void set_flag(const Field& f, bool on) {
    if (auto* own = std::get_if<Own>(&f.value)) *own->value = on;
    else *std::get<bool*>(f.value) = on;
}

static void set_from_text(const Field& f, const std::string& text, const std::string& where) {
    ensure_usage(!text.empty(), "%s: the value is empty", where.c_str());
    if (f.is_flag()) {
        ensure_usage(text == "true" || text == "false", "%s: '%s' is not true or false", where.c_str(), printable(text).c_str());
        set_flag(f, text == "true");
        return;
    }
    std::visit([&](auto v) {
        using V = std::remove_pointer_t<decltype(v)>;
        if constexpr (IS_NUMBER<V>) {
            V x{};
            auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
            const char* kind = std::is_floating_point_v<V> ? "a number"
                             : std::is_unsigned_v<V>       ? "a whole number, 0 or more"
                                                           : "a whole number";
            ensure_usage(error != std::errc::result_out_of_range, "%s: '%s' is out of range", where.c_str(), printable(text).c_str());
            ensure_usage(error == std::errc() && end == text.data() + text.size() && std::isfinite(double(x)), "%s: '%s' is not %s",
                         where.c_str(), printable(text).c_str(), kind);
            set_number(*v, x, f, where, text);
        } else {
            set_word(f, text, where);
        }
    }, f.value);
}

static void set_from_json(const Field& f, const json& j, const std::string& where) {
    auto wrong = [&](const char* expected) {
        fail_usage("%s: expected %s, found %s", where.c_str(), expected, printable(json_text(j)).c_str());
    };
    if (f.is_flag()) {
        if (!j.is_boolean()) wrong("true or false");
        set_flag(f, j.get<bool>());
        return;
    }
    std::visit([&](auto v) {
        using V = std::remove_pointer_t<decltype(v)>;
        if constexpr (IS_NUMBER<V>) {
            const bool right = std::is_floating_point_v<V> ? j.is_number()
                             : std::is_unsigned_v<V>       ? j.is_number_unsigned()
                                                           : j.is_number_integer();
            if (!right) wrong(std::is_floating_point_v<V> ? "a number" : "a whole number");
            // Through text, so that a number too large for the type is seen and not wrapped.
            set_from_text(f, j.dump(), where);
        } else {
            if (!j.is_string()) wrong("a text");
            if (auto* text = std::get_if<std::string*>(&f.value); text && f.choices.empty()) **text = j.get<std::string>();
            else set_word(f, j.get<std::string>(), where);
        }
    }, f.value);
}

// ---- JSON

std::string options_to_json(const Options& o) {
    Options copy = o;
    nlohmann::ordered_json j;
    for (const Field& f : option_table(copy))
        if (f.role != Role::action) j[json_key(f)] = field_to_json(f);
    return j.dump(2, ' ', false, json::error_handler_t::replace);
}

// A run's config.json holds more (build, machine, hashes); its options are under "options".
static constexpr const char* CHOICES[] = {"attn", "norm", "mlp"};       // made when the program was built
static json options_object(const std::string& text, const std::string& where) {
    json j = json_parse(text, where);
    ensure_usage(j.is_object(), "%s: expected a JSON object with options", where.c_str());
    if (!j.contains("options")) return j;
    ensure_usage(j["options"].is_object(), "%s: options: expected an object", where.c_str());
    json options = j["options"];
    for (const char* choice : CHOICES)
        if (j.contains(choice) && !options.contains(choice)) options[choice] = j[choice];
    return options;
}

void options_from_json(Options& o, const std::string& text, const std::string& where) {
    json j = options_object(text, where);
    std::vector<Field> table = option_table(o);
    for (const auto& item : j.items()) {
        const std::string& key = item.key();
        if (std::count(std::begin(CHOICES), std::end(CHOICES), key)) continue;       // for information
        auto f = std::find_if(table.begin(), table.end(), [&](const Field& f) { return json_key(f) == key; });
        if (f == table.end()) {
            std::string owner = variant_of_option(o.program, key);
            if (!owner.empty() && owner != o.program.attn) continue;
            std::vector<std::string> keys;
            for (const Field& g : table) if (g.role != Role::action) keys.push_back(json_key(g));
            std::string near = nearest_name(key, keys);
            fail_usage("%s: unknown option '%s'%s", where.c_str(), printable(key).c_str(),
                       near.empty() ? "" : ("; did you mean '" + near + "'?").c_str());
        }
        ensure_usage(f->role != Role::action, "%s: '%s' belongs on the command line", where.c_str(), key.c_str());
        set_from_json(*f, item.value(), where + ": " + key);
    }
}

// Whether both plans give the steps done so far the same rates.
static bool same_rates(const Options& a, const Options& b, int64_t done) {
    if (done < 0 || done > a.steps || done > b.steps) return false;
    const Schedule one = schedule_of(a), other = schedule_of(b);
    for (int64_t step = 0; step < done; step++)
        if (schedule_lr(one, step) != schedule_lr(other, step)) return false;
    return true;
}

std::vector<std::string> options_conflicts(const std::string& old_json, const Options& now, int ranks, bool same_ranks,
                                           const std::string& where, int64_t done) {
    Options before, after = now;
    before.program = now.program;
    options_from_json(before, old_json, where);
    // 0 means "choose": compare what was chosen.
    if (same_ranks) {
        before.micro_batch = batch_plan(before, ranks).micro_batch;
        after.micro_batch = batch_plan(after, ranks).micro_batch;
    } else {
        before.micro_batch = after.micro_batch;
    }
    std::vector<Field> old_table = option_table(before), new_table = option_table(after);
    std::vector<std::string> conflicts;
    const bool planned_ahead = same_rates(before, after, done);
    for (size_t i = 0; i < old_table.size(); i++) {
        if (old_table[i].role != Role::curve) continue;
        const std::string name = old_table[i].name;
        if (planned_ahead && (name == "steps" || name == "schedule" || name == "final-fraction" || name == "decay-fraction")) continue;
        // A constant rate does not depend on the number of steps: such a run may be made longer.
        if (done < 0 && name == "steps" && before.schedule == "constant" && after.schedule == "constant") continue;
        json was = field_to_json(old_table[i]), is = field_to_json(new_table[i]);
        if (was != is) conflicts.push_back(json_key(old_table[i]) + ": " + json_text(was) + " -> " + json_text(is));
    }
    return conflicts;
}

// ---- the command line

static void print_help(const char* file, const Program& program) {
    Options defaults;
    defaults.program = program;
    printf("%s [options]    trains a GPT with attention '%s'    --help, --version\n", file, program.name().c_str());
    for (const Field& f : option_table(defaults)) {
        const json value = field_to_json(f);
        std::string shown = value.is_boolean() ? "" : value.dump();
        if (value.is_string() && shown.find('\\') == std::string::npos) shown = value;      // quotes only where they help: "\n"
        printf("%-10s--%-14s %-5s %s%s\n", f.group, f.name, f.arg, f.help, shown.empty() ? "" : (" [" + shown + "]").c_str());
    }
    printf("Exit codes: 0 done, 75 stopped by a signal or --stop-at and saved (continue with --resume), 2 wrong options, 1 failure\n");
}

bool options_parse(Options& o, int argc, char** argv, const Program& program) {
    const char* attn_name = program.attn;
    o.program = program;
    const Options defaults = o;
    std::vector<Field> table = option_table(o);
    std::vector<std::string> names = {"--help", "--version"};
    for (const Field& f : table) names.push_back(std::string("--") + f.name);
    // CLI11 would take the next word as the value of `--lr=`; below, `--resume` as the value of `--run --resume`.
    auto is_option = [&](const std::string& text) { return std::find(names.begin(), names.end(), text) != names.end(); };
    for (int i = 1; i < argc; i++) {
        std::string arg = argv[i], name = arg.substr(0, arg.find('='));
        ensure_usage(arg != name + "=" || !is_option(name), "%s: the value is empty", name.c_str());
    }

    CLI::App app;
    app.set_help_flag();
    app.allow_extras();
    CLI::Option* help = app.add_flag("-h,--help");
    CLI::Option* version = app.add_flag("--version");
    std::vector<CLI::Option*> given;
    for (const Field& f : table) {
        std::string name = std::string("--") + f.name;
        given.push_back(f.is_flag() ? app.add_flag(name) : app.add_option(name)->type_name("")->take_last());
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        std::string name = std::string(e.what()).substr(0, std::string(e.what()).find_first_of(": "));
        fail_usage("%s (--help lists the options)",
                   is_option(name) ? (name + ": needs a value").c_str() : printable(e.what(), 200).c_str());
    }
    if (help->count() > 0) return print_help(argv[0], program), false;
    if (version->count() > 0) return printf("qv.cu, attention %s, norm %s, mlp %s\n", attn_name, program.norm, program.mlp), false;
    for (size_t i = 0; i < table.size(); i++)
        if (given[i]->count() > 0 && is_option(given[i]->results().back()))
            fail_usage("--%s: needs a value, found the option %s", table[i].name, given[i]->results().back().c_str());
    for (const std::string& extra : app.remaining()) {
        if (!extra.starts_with("-")) continue;       // may be the value of an unknown option, which comes first
        std::string name = extra.substr(0, extra.find('=')), near = nearest_name(name, names);
        std::string owner = name.starts_with("--") ? variant_of_option(program, name.substr(2)) : "";
        ensure_usage(owner.empty() || owner == attn_name, "%s: an option of attention %s; this program has %s",
                     printable(name).c_str(), owner.c_str(), attn_name);
        std::string advice = near.empty() ? "--help lists them" : "did you mean " + near + "?";
        fail_usage("%s: unknown option; %s", printable(name).c_str(), advice.c_str());
    }
    ensure_usage(app.remaining().empty(), "'%s': unexpected argument; options begin with --", printable(app.remaining()[0]).c_str());

    auto apply_command_line = [&] {
        for (size_t i = 0; i < table.size(); i++) {
            if (given[i]->count() == 0) continue;
            set_from_text(table[i], given[i]->results().back(), std::string("--") + table[i].name);
        }
    };
    const uint64_t CONFIG_MAX = 1 << 20;
    auto apply_file_and_command_line = [&] {
        try {
            if (!o.config_file.empty()) options_from_json(o, file_read(o.config_file, CONFIG_MAX), o.config_file);
        } catch (const Error& e) {
            fail_usage("--config: %s", e.what());
        }
        apply_command_line();
    };
    apply_command_line();                            // finds --config, --resume, --run
    apply_file_and_command_line();
    auto default_run = [&] { return format("%s-%s-%llu", program.name().c_str(), position_name(o.model.pos), (unsigned long long)o.seed); };
    std::string run = o.run.empty() ? default_run() : o.run;
    std::string run_config = o.runs_dir + "/" + run + "/config.json";
    if (o.resume && file_exists(run_config)) {
        // Again from the start: defaults, the run's own options, --config, command line.
        std::string text = file_read(run_config, CONFIG_MAX), config_file = o.config_file, runs_dir = o.runs_dir;
        const json options = options_object(text, run_config);
        const Program plain;                         // (older runs name no norm and no MLP)
        const struct { const char *key, *word, *ours, *if_missing; } choices[] = {
            {"attn", "attention", attn_name, attn_name}, {"norm", "norm", program.norm, plain.norm},
            {"mlp", "MLP", program.mlp, plain.mlp}};
        for (const auto& c : choices) {
            const json was = options.value(c.key, json(c.if_missing));
            ensure_usage(was == json(c.ours), "--resume: run %s was trained with %s %s, this program has \"%s\"",
                         run.c_str(), c.word, json_text(was).c_str(), c.ours);
        }
        o = defaults;
        options_from_json(o, text, run_config);
        o.config_file = config_file;
        apply_file_and_command_line();
        o.runs_dir = runs_dir;                       // the folder may have been moved or renamed since
    }
    o.run = run;
    options_check(o);
    return true;
}
