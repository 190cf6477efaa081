// The command line and config.json: what is accepted, what exits 2 and with which words, which source wins, what a resume may not change.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "runtime/run/options.h"
#include "test/temp_dir.h"

using nlohmann::json;

// A variant that does not exist, with one option of each kind.
static const VariantOptions OWN = {own_number("new-width", 64, "a width; -1: from the sizes"),
                                   own_flag("new-tied", "a flag"),
                                   own_choice("new-form", {"first", "second"}, "a choice")};
enum { WIDTH, TIED, FORM };
static const Program PROGRAM{.attn = "n_ew", .own = OWN, .variants = "qkv n_ew mla qv_ka"};

static Options parse(std::vector<std::string> args, const Program& program = {.attn = "qkv", .variants = "qkv n_ew mla qv_ka"}) {
    args.insert(args.begin(), "train");
    std::vector<char*> argv;
    for (std::string& a : args) argv.push_back(a.data());
    Options o;
    const bool go_on = options_parse(o, int(argv.size()), argv.data(), program);
    CHECK(go_on);
    return o;
}

// The message; checks that it is one line and exits 2.
static std::string refused(const std::vector<std::string>& args) {
    int code = -1;
    const std::string message = error_of([&] { parse(args); }, &code);
    CHECK_MESSAGE(code == EXIT_USAGE, message);
    CHECK(message.find('\n') == std::string::npos);
    return message;
}

TEST_CASE("options: both spellings, flags, the last one wins, default run name") {
    Options o = parse({"--lr", "6e-4", "--layers=6", "--pos", "alibi", "--seed", "18446744073709551615", "--prompt", "-x y",
                       "--steps", "5", "--steps", "7"});
    CHECK(o.lr == 6e-4);
    CHECK(o.model.L == 6);
    CHECK(o.model.pos == Position::alibi);
    CHECK(o.seed == ~0ull);
    CHECK(o.prompt == "-x y");
    CHECK(o.steps == 7);
    CHECK(o.run == "qkv-alibi-18446744073709551615");
    CHECK(parse({"--run", "mine"}).run == "mine");
    CHECK_FALSE(parse({"--quiet=false"}).quiet);
}

TEST_CASE("options: wrong ones exit 2, naming option and value") {
    struct { std::vector<std::string> args; std::vector<std::string> words; } cases[] = {
        {{"--lr", "3e-4x"}, {"--lr", "'3e-4x'", "not a number"}},
        {{"--lr", "nan"}, {"--lr", "'nan'"}},
        {{"--lr", "inf"}, {"--lr", "'inf'"}},
        {{"--lr", "1e999"}, {"--lr", "1e999", "out of range"}},
        {{"--lr", "-1"}, {"--lr", "-1", "out of range"}},
        {{"--lr", ""}, {"--lr", "empty"}},
        {{"--lr="}, {"--lr", "empty"}},
        {{"--lr=", "--steps", "5"}, {"--lr", "empty"}},
        {{"--lr"}, {"--lr", "value"}},
        {{"--lr", "--steps", "5"}, {"--lr", "value", "--steps"}},
        {{"--steps", "-5"}, {"--steps", "-5"}},
        {{"--steps", "1.5"}, {"--steps", "1.5", "whole number"}},
        {{"--steps", "99999999999999999999"}, {"--steps", "99999999999999999999", "out of range"}},
        {{"--context", "4294967424"}, {"--context", "4294967424", "out of range"}},       // 2^32 + 128 must not wrap
        {{"--heads", "0"}, {"--heads", "0"}},
        {{"--keep", "0"}, {"--keep", "0"}},
        {{"--seed", "-1"}, {"--seed", "-1"}},
        {{"--seed", "18446744073709551616"}, {"--seed", "out of range"}},
        {{"--batch-tokns", "5"}, {"--batch-tokns", "did you mean --batch-tokens?"}},
        {{"--stesp=5"}, {"--stesp", "did you mean --steps?"}},
        {{"--utterly-unknown"}, {"--utterly-unknown", "--help"}},
        {{"-q"}, {"-q", "unknown"}},
        {{"word"}, {"'word'"}},
        {{"--resume", "word"}, {"'word'"}},
        {{"--resume=maybe"}, {"--resume", "'maybe'"}},
        {{"--pos", "rop"}, {"--pos", "rop", "rope"}},
        {{"--schedule", "cosin"}, {"--schedule", "cosin", "cosine"}},
        {{"--mla-dc", "8"}, {"--mla-dc: an option of attention mla; this program has qkv"}},
        {{"--qvka-tied"}, {"--qvka-tied: an option of attention qv_ka; this program has qkv"}},
        {{"--new-width=8"}, {"--new-width: an option of attention n_ew; this program has qkv"}},
        {{"--width", "100", "--heads", "3"}, {"--width", "100", "--heads 3"}},
        {{"--kv-heads", "3"}, {"--kv-heads", "3", "--heads 4"}},
        {{"--resume", "--overwrite"}, {"--resume", "--overwrite"}},
        {{"--config", "/nonexistent/x.json"}, {"--config", "/nonexistent/x.json"}},
    };
    for (const auto& c : cases) {
        CAPTURE(c.args);
        const std::string message = refused(c.args);
        for (const std::string& word : c.words) CHECK_MESSAGE(has(message, word), message, " lacks ", word);
    }
}

TEST_CASE("options of a variant's own: as any other, and refused or passed over by the other variants") {
    Options o = parse({}, PROGRAM);
    CHECK(o.model.own[WIDTH] == AUTO);
    CHECK(o.model.own[TIED] == 0);
    CHECK(o.model.own[FORM] == 0);
    o = parse({"--new-width", "0", "--new-tied", "--new-form=second"}, PROGRAM);
    CHECK(o.model.own[WIDTH] == 0);
    CHECK(o.model.own[TIED] == 1);
    CHECK(o.model.own[FORM] == 1);
    const json j = json::parse(options_to_json(o));
    CHECK(j.at("new_width") == 0);
    CHECK(j.at("new_tied") == true);
    CHECK(j.at("new_form") == "second");
    CHECK(parse({"--new-tied", "--new-tied=false"}, PROGRAM).model.own[TIED] == 0);
    CHECK(parse({"--new-width", "-1"}, PROGRAM).model.own[WIDTH] == AUTO);
    struct { std::vector<std::string> args; const char* words;
    } wrong[] = {{{"--new-width", "65"}, "--new-width: 65 is out of range (-1 to 64)"},
                 {{"--new-width", "x"}, "--new-width: 'x' is not a whole number"},
                 {{"--new-form", "third"}, "--new-form: 'third' is unknown; choose one of: first, second"},
                 {{"--new-tied=1"}, "--new-tied: '1' is not true or false"},
                 {{"--new-widht", "3"}, "--new-widht: unknown option; did you mean --new-width?"},
                 {{"--mla-dc", "3"}, "--mla-dc: an option of attention mla; this program has n_ew"}};
    for (const auto& w : wrong) {
        const std::string message = error_of([&] { parse(w.args, PROGRAM); });
        CHECK_MESSAGE(has(message, w.words), message);
    }
    // A file may hold all variants' options (an older run's, a comparison's). A program reads its own, and reports their errors.
    options_from_json(o, R"({"mla_dc": 0, "qvka_tied": false, "new_width": 3})", "f");
    CHECK(o.model.own[WIDTH] == 3);
    CHECK(has(error_of([&] { options_from_json(o, R"({"new_widht": 3})", "f"); }), "did you mean 'new_width'"));
    CHECK(has(error_of([&] { options_from_json(o, R"({"new_form": "third"})", "f"); }), "f: new_form"));
    CHECK(has(error_of([&] { options_from_json(o, R"({"new_tied": 1})", "f"); }), "f: new_tied"));
    CHECK(has(error_of([&] { options_from_json(o, R"({"gqa_dc": 1})", "f"); }), "f: unknown option 'gqa_dc'"));
    Options now = o;
    now.model.own[TIED] = 0;
    const std::vector<std::string> conflicts = options_conflicts(options_to_json(o), now);
    REQUIRE(conflicts.size() == 1);
    CHECK(conflicts[0] == "new_tied: true -> false");
}

TEST_CASE("a program's name, and its runs': norm and MLP where they are not the defaults") {
    CHECK(Program{.attn = "qv"}.name() == "qv");
    CHECK(Program{.attn = "qv", .norm = "rmsnorm"}.name() == "qv-rmsnorm");
    CHECK(Program{.attn = "qv", .norm = "rmsnorm", .mlp = "swiglu"}.name() == "qv-rmsnorm-swiglu");
    CHECK(parse({}, {.attn = "qv", .mlp = "swiglu"}).run == "qv-swiglu-rope-1");
}

TEST_CASE("batch_plan: divides, and names the nearest valid values") {
    CHECK(has(refused({"--batch-tokens", "1000"}), "896 or 1024"));
    CHECK(has(refused({"--batch-tokens", "100"}), "nearest: 128"));
    CHECK(has(refused({"--batch-tokens", "4096", "--micro-batch", "5"}), "3840 or 4480"));
    struct { int T; int64_t tokens; int micro; BatchPlan expected; } cases[] = {
        {128, 4096, 0, {32, 16, 2}}, {128, 4096, 8, {32, 8, 4}}, {128, 128, 0, {1, 1, 1}}, {7, 7 * 17, 0, {17, 1, 17}},
        {7, 7 * 34, 0, {34, 2, 17}}, {64, 64 * 12, 0, {12, 12, 1}}, {128, int64_t(1) << 40, 0, {int64_t(1) << 33, 16, int64_t(1) << 29}}};
    for (const auto& c : cases) {
        Options o;
        o.model.T = c.T, o.batch_tokens = c.tokens, o.micro_batch = c.micro;
        const BatchPlan plan = batch_plan(o);
        CHECK(plan.sequences == c.expected.sequences);
        CHECK(plan.micro_batch == c.expected.micro_batch);
        CHECK(plan.accumulation == c.expected.accumulation);
    }
}

TEST_CASE("json: all options there and back, bit for bit") {
    Options o;
    o.lr = 0.1 + 0.2;
    o.eps = 1e-30 * 3;
    o.seed = ~0ull;
    o.batch_tokens = 999999999999999;
    o.prompt = "\"quotes\"\n\tand ü";
    o.model.pos = Position::power;
    o.program = PROGRAM;
    o.model.own[FORM] = o.model.own[TIED] = 1;
    o.model.own[WIDTH] = 64;
    Options back;
    back.program = PROGRAM;
    options_from_json(back, options_to_json(o), "test");
    CHECK(options_to_json(back) == options_to_json(o));
    CHECK(back.lr == o.lr);
    CHECK(back.eps == o.eps);
    CHECK(back.seed == o.seed);
    CHECK(back.prompt == o.prompt);
    CHECK(back.model.pos == Position::power);
    CHECK(std::equal(back.model.own, back.model.own + MAX_OWN, o.model.own));
    // Nothing that belongs to one invocation may come back: --config of an old run must not overwrite it.
    o.overwrite = o.resume = o.dry_run = true;
    o.stop_at = 5;
    CHECK(options_to_json(back) == options_to_json(o));
    const json j = json::parse(options_to_json(o));
    for (const char* key : {"context", "layers", "width", "heads", "kv_heads", "head_dim", "mlp_width", "pos", "batch_tokens", "val_every"})
        CHECK(j.contains(key));
}

TEST_CASE("json: missing keys keep their value; wrong ones are named") {
    Options o;
    options_from_json(o, R"({"attn": "mla", "lr": 1, "steps": 3})", "f");
    CHECK(o.lr == 1.0);
    CHECK(o.steps == 3);
    CHECK(o.model.C == 128);
    options_from_json(o, R"({"options": {"steps": 4}, "build": {"lr": 7}})", "f");
    CHECK(o.steps == 4);
    struct { const char* text; const char* words; } cases[] = {
        {R"({"stesp": 3})", "did you mean 'steps'"}, {R"({"steps": "3"})", "f: steps"}, {R"({"steps": 3.5})", "f: steps"},
        {R"({"steps": -3})", "f: steps"}, {R"({"steps": 1e30})", "f: steps"}, {R"({"layers": 4294967297})", "f: layers"},
        {R"({"lr": null})", "f: lr"}, {R"({"lr": "x"})", "f: lr"}, {R"({"lr": 1e999})", "f"}, {R"({"pos": 3})", "f: pos"},
        {R"({"pos": "up"})", "f: pos"}, {R"({"schedule": ""})", "f: schedule"}, {R"({"quiet": 1})", "f: quiet"},
        {R"({"seed": -1})", "f: seed"}, {R"({"overwrite": true})", "command line"}, {R"({"steps": 1, "steps": 2})", "twice"},
        {R"([1])", "object"}, {R"({"options": 3})", "object"},
        {"{", "JSON"}, {"", "JSON"}};
    for (const auto& c : cases) {
        CAPTURE(c.text);
        const std::string message = error_of([&] { options_from_json(o, c.text, "f"); });
        CHECK_MESSAGE(has(message, c.words), message);
    }
    const std::string deep = "{\"lr\": " + std::string(100000, '[');
    CHECK(has(error_of([&] { options_from_json(o, deep, "f"); }), "nested"));
}

TEST_CASE("options: the command line wins over --config") {
    TempDir dir;
    spill(dir.path + "/c.json", R"({"lr": 0.5, "steps": 11, "quiet": true})");
    const Options o = parse({"--lr", "0.25", "--config", dir.path + "/c.json", "--quiet=false"});
    CHECK(o.lr == 0.25);
    CHECK(o.steps == 11);
    CHECK_FALSE(o.quiet);
    spill(dir.path + "/c.json", R"({"lr": "fast"})");
    const std::string message = refused({"--config", dir.path + "/c.json"});
    CHECK(has(message, "c.json: lr"));
    CHECK(has(message, "fast"));
}

TEST_CASE("options: --resume takes the run's own options, then --config, then the command line") {
    TempDir dir;
    std::filesystem::create_directories(dir.path + "/a");
    Options first = parse({"--lr", "0.5", "--steps", "11", "--layers", "2", "--run", "a"});
    spill(dir.path + "/a/config.json", json{{"options", json::parse(options_to_json(first))}, {"attn", "qkv"}}.dump());
    Options o = parse({"--resume", "--run", "a", "--runs-dir", dir.path, "--steps", "12"});
    CHECK(o.lr == 0.5);
    CHECK(o.steps == 12);
    CHECK(o.model.L == 2);
    CHECK(o.resume);
    CHECK(o.runs_dir == dir.path);
    CHECK(parse({"--run", "a", "--runs-dir", dir.path}).lr == 1e-3);               // not without --resume
    CHECK(parse({"--resume", "--run", "b", "--runs-dir", dir.path}).lr == 1e-3);   // nothing to resume: a new run
    spill(dir.path + "/c.json", R"({"lr": 0.125, "steps": 13})");
    o = parse({"--resume", "--run", "a", "--runs-dir", dir.path, "--config", dir.path + "/c.json", "--steps", "12"});
    CHECK(o.lr == 0.125);
    CHECK(o.steps == 12);
    // A renamed run keeps its new name; a run of another variant is refused.
    std::filesystem::rename(dir.path + "/a", dir.path + "/z");
    CHECK(parse({"--resume", "--run", "z", "--runs-dir", dir.path}).run == "z");
    const std::string message = error_of([&] { parse({"--resume", "--run", "z", "--runs-dir", dir.path}, {.attn = "mla"}); });
    CHECK(has(message, "qkv"));
    CHECK(has(message, "mla"));
    // So is one with another norm or MLP; a run that names none has the defaults.
    for (const Program& other : {Program{.attn = "qkv", .norm = "rmsnorm"}, Program{.attn = "qkv", .mlp = "swiglu"}}) {
        const std::string words = error_of([&] { parse({"--resume", "--run", "z", "--runs-dir", dir.path}, other); });
        CHECK_MESSAGE(has(words, std::string(other.norm) == "rmsnorm"
                                     ? "trained with norm \"layernorm\", this program has \"rmsnorm\""
                                     : "trained with MLP \"gelu\", this program has \"swiglu\""),
                      words);
    }
    // The default name is found, too.
    std::filesystem::rename(dir.path + "/z", dir.path + "/qkv-rope-1");
    CHECK(parse({"--resume", "--runs-dir", dir.path}).lr == 0.5);
}

TEST_CASE("options_conflicts: what decides the curve, and nothing else") {
    const Options before;
    const std::string old_json = json{{"options", json::parse(options_to_json(before))}}.dump();
    CHECK(options_conflicts(old_json, before).empty());
    Options now = before;
    now.threads = 2, now.quiet = true, now.val_every = 7, now.sample_every = 3, now.prompt = "x", now.save_every = 5, now.keep = 9;
    now.stop_at = 4, now.runs_dir = "elsewhere", now.run = "b", now.resume = true, now.micro_batch = 16;      // 16: what 0 chooses
    CHECK(options_conflicts(old_json, now).empty());
    now.lr = 0.5;
    now.micro_batch = 8;
    now.model.pos = Position::none;
    const std::vector<std::string> conflicts = options_conflicts(old_json, now);
    REQUIRE(conflicts.size() == 3);
    CHECK(conflicts[0] == "pos: \"rope\" -> \"none\"");
    CHECK(conflicts[1] == "micro_batch: 16 -> 8");
    CHECK(conflicts[2] == "lr: 0.001 -> 0.5");
    // More steps: fine only when the schedule does not depend on their number.
    now = before, now.steps = 2000;
    CHECK(options_conflicts(old_json, now).size() == 1);
    Options constant;
    constant.schedule = "constant";
    now = constant, now.steps = 2000;
    CHECK(options_conflicts(options_to_json(constant), now).empty());
    // wsd, 1000 steps, decay over the last 200: after 400 steps the end may be moved to where the decay has not begun, and no further.
    Options wsd;
    wsd.schedule = "wsd";
    auto conflicts_after = [&](int64_t done, int64_t steps) {
        now = wsd, now.steps = steps;
        return options_conflicts(options_to_json(wsd), now, 1, true, "", done).size();
    };
    CHECK(conflicts_after(400, 2000) == 0);
    CHECK(conflicts_after(400, 500) == 0);
    CHECK(conflicts_after(402, 500) == 1);
    CHECK(conflicts_after(802, 2000) == 1);
    CHECK(conflicts_after(-1, 2000) == 1);
    now = wsd, now.schedule = "constant";
    CHECK(options_conflicts(options_to_json(wsd), now, 1, true, "", 400).empty());
    now.warmup += 1;
    CHECK(options_conflicts(options_to_json(wsd), now, 1, true, "", 400).size() == 2);
}

TEST_CASE("nearest_name") {
    const std::vector<std::string> names = {"--lr", "--layers", "--heads", "--kv-heads"};
    CHECK(nearest_name("--layer", names) == "--layers");
    CHECK(nearest_name("--haeds", names) == "--heads");
    CHECK(nearest_name("--kvheads", names) == "--kv-heads");
    CHECK(nearest_name("--completely-different", names) == "");
    CHECK(nearest_name(std::string(100000, 'x'), names) == "");
    CHECK(nearest_name("x", {}) == "");
}

TEST_CASE("positions: names there and back") {
    for (Position p : {Position::learned, Position::sinusoidal, Position::rope, Position::alibi, Position::power, Position::none})
        CHECK(position_from_name(position_name(p)) == p);
    CHECK(has(error_of([] { position_from_name("Rope"); }), "learned, sinusoidal, rope, alibi, power, none"));
}
