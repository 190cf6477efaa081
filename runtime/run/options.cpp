// What follows from the option table: parsing the command line and config.json, help, range checks, conflicts on resume.
// CLI11 splits the command line into names and values; the values are read here, in the same way from either source.
#include "runtime/run/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "runtime/run/option_table.h"

using nlohmann::json;

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
