// What the report says of runs, on made-up run folders: who is compared with whom, what is ranked, which sentences follow; and its
// tolerance of broken runs. The arithmetic is tested in test_report_stats.cpp, the program as a whole in test_scripts.sh.
#include <algorithm>
#include <doctest/doctest.h>
#include <filesystem>

#include "test/temp_dir.h"
#include "tools/report/document.h"
#include "tools/report/reading.h"
#include "tools/report/record.h"
#include "tools/report/tables.h"
#include "tools/report/text.h"

namespace fs = std::filesystem;

namespace {
struct Made {                          // a run whose validation loss falls from `loss` + 1 to `loss` in four lines
    const char* attn = "qkv";
    int seed = 1;
    double loss = 2;
    const char *pos = "rope", *more = "", *fingerprint = "f";
    int stopped_at = 40;
    std::vector<double> sequences = {};      // differences of each sequence to `loss`
};

void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(path).parent_path());
    spill(path, text);
}

void make(const std::string& dir, const Made& m) {
    write(dir + "/config.json", format(R"({"attn": "%s",
        "options": {"pos": "%s", "seed": %d, "steps": 40, "batch_tokens": 100, "context": 16, "runs_dir": "/home/me/runs"%s},
        "build": {"precision": "fp32", "backend": "cpu", "commit": "abc"}, "model": {"parameters": 5000,
        "parameters_non_embedding": 4000, "cache_bytes_per_token": 64, "flops_per_token": 24000, "vocab_size": 7},
        "data": {"train_tokens": 1000, "val_tokens": 256, "train_fingerprint": "%s"}})",
        m.attn, m.pos, m.seed, m.more, m.fingerprint));
    std::string lines;
    for (int step : {0, 4, 20, 38, 40})
        if (step <= m.stopped_at) lines += format(R"({"step": %d, "tokens": %d, "seconds": 1, "loss": %s, "val_loss": %.6f, )"
                                                  R"("bits_per_byte": null, "tokens_per_second": 100})",
                                                  step, step * 100, step ? "2.5" : "null", m.loss + 1.0 - step / 40.0) + "\n";
    write(dir + "/metrics.jsonl", lines);
    std::string bytes;
    for (double d : m.sequences) {
        float v = float(m.loss + d);
        bytes.append(reinterpret_cast<const char*>(&v), sizeof v);
    }
    if (!bytes.empty()) write(dir + "/val_sequences.f32", bytes);
}

Comparison load(const TempDir& t, Problems& problems, const char* baseline = "qkv") {
    return load_comparison({{t.path}, baseline, 0.05}, problems);
}

const Row* find(const Section& s, const std::string& name) {
    for (auto& row : s.rows)
        if (row.name() == name) return &row;
    return nullptr;
}
const Difference& difference(const Section& s, const std::string& name) {
    const Row* row = find(s, name);
    REQUIRE_MESSAGE(row, name);
    return s.differences[size_t(row - s.rows.data())];
}
std::string terminal(const Comparison& c) {
    return for_terminal({c, {}, std::vector<double>(c.sections.size(), NOT_MEASURED), {}, {}, "again"}, false);
}
}  // namespace

// Issue: with several runs of one variant and seed, each was joined to the first baseline run of that seed.
TEST_CASE("report: a sweep joins each run to the baseline run with the same other options") {
    TempDir t;
    make(t.path + "/a", {.attn = "qkv", .loss = 5.9361, .more = R"(, "lr": 0.001)"});
    make(t.path + "/b", {.attn = "qkv", .loss = 5.6019, .more = R"(, "lr": 0.004)"});
    make(t.path + "/c", {.attn = "qv", .loss = 5.9500, .more = R"(, "lr": 0.001)"});
    make(t.path + "/d", {.attn = "qv", .loss = 5.6112, .more = R"(, "lr": 0.004)"});
    Problems problems;
    Comparison c = load(t, problems);
    REQUIRE(c.sections.size() == 1);
    const Section& s = c.sections[0];
    CHECK(s.rows.size() == 4);
    CHECK(difference(s, "qv lr=0.004").seeds.mean == doctest::Approx(5.6112 - 5.6019));
    CHECK(difference(s, "qv lr=0.001").seeds.mean == doctest::Approx(5.9500 - 5.9361));
    CHECK(difference(s, "qv lr=0.004").seeds.n == 1);                  // not "3 paired seeds" of one seed
    CHECK(seeds_of(*find(s, "qv lr=0.004")) == 1);
    CHECK(has(table_for_markdown(results_table(s, c)), "| qv | lr=0.004 | 5.6112 | +0.0093 | one seed |"));
    CHECK(problems.empty());
}

TEST_CASE("report: rows are keyed by every option in which the runs differ, and show it") {
    for (const char* option : {"width", "kv_heads", "norm", "mlp", "rope_theta", "steps", "weight_decay"}) {
        CAPTURE(option);
        TempDir t;
        std::string one = format(R"(, "%s": "11")", option), two = format(R"(, "%s": "22")", option);
        make(t.path + "/a", {.attn = "qkv", .loss = 3.0, .more = one.c_str()});
        make(t.path + "/b", {.attn = "qkv", .loss = 2.0, .more = two.c_str()});
        make(t.path + "/c", {.attn = "qv", .loss = 3.1, .more = one.c_str()});
        make(t.path + "/d", {.attn = "qv", .loss = 2.2, .more = two.c_str()});
        Problems problems;
        const Section s = load(t, problems).sections[0];
        std::string shown = option;
        std::replace(shown.begin(), shown.end(), '_', '-');
        CHECK(s.rows.size() == 4);
        CHECK(difference(s, "qv " + shown + "=11").seeds.mean == doctest::Approx(0.1));
        CHECK(difference(s, "qv " + shown + "=22").seeds.mean == doctest::Approx(0.2));
    }
}

TEST_CASE("report: a baseline that agrees in nothing else, or is not the only one, is not used") {
    TempDir t;
    make(t.path + "/a", {.attn = "qkv", .loss = 3.0, .more = R"(, "width": 64)"});
    make(t.path + "/b", {.attn = "qv", .loss = 2.0, .more = R"(, "width": 128)"});
    Problems problems;
    CHECK(load(t, problems).sections[0].differences[0].seeds.n == 0);
    REQUIRE(problems.size() == 1);
    CHECK(has(problems[0], "No difference is taken for: qv width=128."));
    // Two baselines, equally near: no guess.
    TempDir u;
    make(u.path + "/a", {.attn = "qkv", .loss = 3.0, .more = R"(, "lr": 1)"});
    make(u.path + "/b", {.attn = "qkv", .loss = 3.5, .more = R"(, "lr": 3)"});
    make(u.path + "/c", {.attn = "qv", .loss = 2.0, .more = R"(, "lr": 2)"});
    problems.clear();
    CHECK(difference(load(u, problems).sections[0], "qv lr=2").seeds.n == 0);
    CHECK(has(join(problems, "\n"), "No difference is taken for: qv lr=2."));
}

TEST_CASE("report: own options, sizes and a tuned learning rate do not hinder a difference, and are shown") {
    TempDir t;
    make(t.path + "/a", {.attn = "qkv", .loss = 3.0, .more = R"(, "lr": 0.004, "mla_dc": 0, "kv_heads": 0)"});
    make(t.path + "/b", {.attn = "mla", .loss = 3.2, .more = R"(, "lr": 0.002, "mla_dc": 64, "kv_heads": 0)"});
    make(t.path + "/c", {.attn = "gqa", .loss = 3.1, .more = R"(, "lr": 0.004, "mla_dc": 0, "kv_heads": 1)"});
    Problems problems;
    Comparison c = load(t, problems);
    const Section& s = c.sections[0];
    CHECK(difference(s, "mla lr=0.002").seeds.mean == doctest::Approx(0.2));       // the only mla: its mla-dc tells nothing apart
    CHECK(difference(s, "gqa kv-heads=1 lr=0.004").seeds.mean == doctest::Approx(0.1));
    CHECK(has(terminal(c), "Learning rates differ: mla 0.002 (qkv 0.004)"));
    make(t.path + "/d", {.attn = "mla", .loss = 3.3, .more = R"(, "lr": 0.002, "mla_dc": 32, "kv_heads": 0)"});
    problems.clear();
    CHECK(difference(load(t, problems).sections[0], "mla lr=0.002 mla-dc=32").seeds.mean == doctest::Approx(0.3));
}

TEST_CASE("report: other data are not ranked against each other, and that is said first") {
    TempDir t;
    make(t.path + "/a", {.attn = "qkv", .loss = 3.0, .fingerprint = "one"});
    make(t.path + "/b", {.attn = "qv", .loss = 2.0, .fingerprint = "two"});
    Problems problems;
    Comparison c = load(t, problems);
    REQUIRE(c.sections.size() == 2);
    for (auto& s : c.sections)
        for (auto& d : s.differences) CHECK(d.seeds.n == 0);
    std::string text = terminal(c), md = for_markdown({c, {}, {NOT_MEASURED, NOT_MEASURED}, {}, {}, ""});
    CHECK(text.find("Not ranked against each other: the runs saw 2 different data sets") < text.find("variant"));
    CHECK(md.find("Not ranked against each other") < md.find("| variant"));
    // The same data, other validation tokens.
    TempDir u;
    make(u.path + "/a", {.attn = "qkv"});
    make(u.path + "/b", {.attn = "qv"});
    std::string config = slurp(u.path + "/b/config.json");
    config.replace(config.find("\"val_tokens\": 256"), 17, "\"val_tokens\": 512");
    write(u.path + "/b/config.json", config);
    CHECK(load(u, problems).sections.size() == 2);
}

TEST_CASE("report: pairs are matched by seed and counted as they are; unfinished runs are left out") {
    TempDir t;
    for (int seed : {1, 2, 3}) make(t.path + format("/qkv-%d", seed), {.attn = "qkv", .seed = seed, .loss = 2.0 * seed});
    make(t.path + "/qv-1", {.attn = "qv", .seed = 1, .loss = 2.25});
    make(t.path + "/qv-3", {.attn = "qv", .seed = 3, .loss = 6.75});
    make(t.path + "/qv-2", {.attn = "qv", .seed = 2, .loss = 99, .stopped_at = 20});
    make(t.path + "/qv-3-again", {.attn = "qv", .seed = 3, .loss = 50});
    Problems problems;
    Comparison c = load(t, problems);
    const Section& s = c.sections[0];
    const Difference& d = difference(s, "qv");
    CHECK(d.seeds.n == 2);
    CHECK(d.seeds.mean == doctest::Approx(0.5));
    CHECK(d.verdict == Verdict::too_few_seeds);                    // an interval, but no verdict from one degree of freedom
    CHECK(!std::isnan(d.half));
    std::string all = join(problems, "\n");
    CHECK(has(all, "qv-2 stopped at step 20 of 40"));
    CHECK(has(all, "qv-3-again are the same variant, options and seed: only the first is counted"));
    CHECK(row_loss(*find(s, "qv")) == doctest::Approx(4.5));
    CHECK(has(terminal(c), "4.5000 ± 3.1820*"));
    CHECK(has(table_for_terminal(differences_table(s, c), false), "2 of 3"));
    CHECK(has(read_differences(s, c), "Too few seeds for a verdict against qkv: qv +0.5000 [-2.6766, +3.6766]"));
}

TEST_CASE("report: while seeds are missing, rows are ranked by their paired differences") {
    TempDir t;
    make(t.path + "/a1", {.attn = "qkv", .seed = 1, .loss = 3.00});
    make(t.path + "/b1", {.attn = "qv", .seed = 1, .loss = 3.01});
    make(t.path + "/b2", {.attn = "qv", .seed = 2, .loss = 2.90});          // an easy seed: the mean over two is lower than qkv's one
    Problems problems;
    Comparison c = load(t, problems);
    CHECK(c.sections[0].rows[0].attn == "qkv");
    CHECK(c.sections[0].rows[1].base == 0);
    CHECK(c.sections[0].differences[1].seeds.mean == doctest::Approx(0.01));
}

TEST_CASE("report: verdicts follow from the corrected interval") {
    TempDir t;
    const double noise[] = {0, 0.004, -0.004};
    for (int seed : {1, 2, 3}) {
        double level = 3 + 0.02 * seed;
        make(t.path + format("/a%d", seed), {.attn = "qkv", .seed = seed, .loss = level});
        make(t.path + format("/b%d", seed), {.attn = "qv", .seed = seed, .loss = level + 0.08 + 0.5 * noise[seed - 1]});
        make(t.path + format("/c%d", seed), {.attn = "gqa", .seed = seed, .loss = level - 0.001 + noise[seed - 1]});
        make(t.path + format("/d%d", seed), {.attn = "gta", .seed = seed, .loss = level - 0.05 + 0.25 * noise[seed - 1]});
    }
    make(t.path + "/e1", {.attn = "mla", .seed = 1, .loss = 3.5});
    Problems problems;
    Comparison c = load(t, problems);
    const Section& s = c.sections[0];
    CHECK(s.tests == 3);
    CHECK(difference(s, "qv").verdict == Verdict::worse);
    CHECK(difference(s, "gta").verdict == Verdict::better);
    CHECK(difference(s, "gqa").verdict == Verdict::not_told_apart);
    CHECK(difference(s, "mla").verdict == Verdict::too_few_seeds);
    CHECK(std::isnan(difference(s, "mla").half));
    CHECK(s.paired_sd == doctest::Approx(0.004 * std::sqrt((0.25 + 1 + 0.0625) / 3)));
    CHECK(s.seed_sd == doctest::Approx(0.0199).epsilon(0.05));
    std::string reading = join(honest_reading(s, c, NOT_MEASURED), "\n");
    CHECK(has(reading, "worse: qv +0.0800"));
    CHECK(has(reading, "better: gta -0.0500"));
    CHECK(has(reading, "not told apart: gqa -0.0010 [-0.0109, +0.0089] (the interval holds 0)"));
    CHECK(has(reading, "Too few seeds for a verdict against qkv: mla +0.4800. "));      // no interval where there is one seed
    CHECK(has(reading, "seeds would tell a difference of 0.01 nats with 80% probability"));
    CHECK(!has(reading, "SIZE=tiny"));                             // a spread measured elsewhere is not needed
    std::string markdown = table_for_markdown(results_table(s, c)), colours = table_for_terminal(results_table(s, c), true);
    CHECK(!has(markdown, "**"));                                   // nobody is called the winner by bold type
    CHECK(colours.find("\033[32m") == colours.rfind("\033[32m"));  // green for gta alone: the first row, and really better
    CHECK(colours.find("\033[32mgta") != std::string::npos);
}

TEST_CASE("report: one seed gives no verdict, and says whence its idea of the spread comes") {
    TempDir t;
    make(t.path + "/a", {.attn = "qkv", .loss = 2.0});
    make(t.path + "/b", {.attn = "qv", .loss = 2.03});
    make(t.path + "/c", {.attn = "mqa", .loss = 2.2});
    make(t.path + "/d", {.attn = "mla", .loss = 2.2, .pos = "learned"});
    Problems problems;
    Comparison c = load(t, problems);
    const Section& s = c.sections[0];
    CHECK(s.rows[0].attn == "mla");                                // rows by position, then by loss
    CHECK(s.rows[1].attn == "qkv");
    CHECK(s.rows[3].attn == "mqa");
    std::string reading = join(honest_reading(s, c, 2.1), "\n");
    CHECK(has(reading, "Too few seeds for a verdict against qkv: qv +0.0300, mqa +0.2000."));
    CHECK(has(reading, "The spread between seeds was not measured here."));
    CHECK(has(reading, "docs/LOG.md"));
    CHECK(!has(reading, "excludes zero"));
    CHECK(has(reading, "learned: No qkv run"));
    CHECK(has(reading, "(unigram baseline): mla (learned), mqa (rope)"));
    CHECK(!has(table_for_markdown(results_table(s, c)), "better"));
}

TEST_CASE("report: the cache column says of which type its bytes are") {
    TempDir t;
    make(t.path + "/a", {.attn = "qkv"});
    Problems problems;
    CHECK(has(table_for_markdown(results_table(load(t, problems).sections[0], load(t, problems))), "cache B/token, fp32 |"));
    make(t.path + "/b", {.attn = "qv"});
    std::string config = slurp(t.path + "/b/config.json");
    config.replace(config.find("fp32"), 4, "bf16");
    write(t.path + "/b/config.json", config);
    Comparison c = load(t, problems);
    std::string table = table_for_markdown(results_table(c.sections[0], c));
    CHECK(has(table, "| cache B/token |"));
    CHECK(has(table, "| 64 bf16 |"));
    CHECK(has(table, "| 64 fp32 |"));
}

TEST_CASE("report: curves, as they are read") {
    TempDir t;
    make(t.path + "/a", {.attn = "qkv", .loss = 2.0});
    Problems problems;
    Comparison c = load(t, problems);
    std::string text = read_curves(c.sections[0], {&c.sections[0].rows[0]});
    CHECK(has(text, "qkv -0.676"));                                // 0.05 nats over log2(40/38) = 0.074 doublings
    CHECK(has(text, "not flattened"));
}

TEST_CASE("report: the interval over text pairs the sequences, and is kept apart from the one over seeds") {
    TempDir t;
    std::vector<double> base(64, 0.0), other(64, 0.0);
    for (size_t i = 0; i < 64; i++) {
        base[i] = i % 2 ? 0.5 : -0.5;                              // sequences differ much, the pairs little
        other[i] = base[i] + (i / 8 % 2 ? 0.01 : -0.01);
    }
    make(t.path + "/a", {.attn = "qkv", .loss = 2.0, .sequences = base});
    make(t.path + "/b", {.attn = "qv", .loss = 2.04, .sequences = other});
    make(t.path + "/c", {.attn = "gqa", .loss = 2.0, .sequences = std::vector<double>(64, 0.7)});      // not this run's: the mean is off
    Problems problems;
    Comparison c = load(t, problems);
    const Section& s = c.sections[0];
    const Difference& d = difference(s, "qv");
    CHECK(d.text.blocks == 8);
    CHECK(d.sequences == 64);
    CHECK(d.text.mean == doctest::Approx(0.04).epsilon(1e-3));
    CHECK(d.text.half_width == doctest::Approx(2.364624 * 0.01 * std::sqrt(8.0 / 7) / std::sqrt(8.0)).epsilon(0.01));
    CHECK(std::isnan(d.half));
    CHECK(d.verdict == Verdict::too_few_seeds);                    // the text says nothing about another training
    CHECK(std::isnan(difference(s, "gqa").text.half_width));
    CHECK(has(join(problems, "\n"), "/c/val_sequences.f32: the mean of its 64 sequences is 2.7"));
    std::string reading = read_text_interval(s, c);
    CHECK(has(reading, "blocks of 8 neighbouring sequences (128 tokens)"));
    CHECK(has(reading, "It excludes 0 for all 1."));
    CHECK(has(table_for_markdown(differences_table(s, c)), "| +0.0400 | 1 | - | - | - | [+0.03"));
}

TEST_CASE("report: comparison.json names rows, baseline, progress; matchings get a table and the layout's baseline") {
    TempDir t;
    write(t.path + "/comparison.json", R"({"baseline": "qkv", "finished": 3, "total": 12, "looks": 2,
        "rows": [{"row": "qkv", "variant": "qkv", "options": []}, {"row": "mla:dc=64", "variant": "mla", "options": ["--mla-dc", "64"]},
        {"row": "mla:dc=32", "variant": "mla", "options": ["--mla-dc", "32"]}]})");
    write(t.path + "/learning_rates.json", R"({"conditions": {}, "rates": {"qkv": 0.004, "mla:dc=64": 0.0028}})");
    make(t.path + "/a", {.attn = "qkv", .loss = 2.0, .more = R"(, "lr": 0.004, "mla_dc": 0)"});
    make(t.path + "/b", {.attn = "mla", .loss = 2.1, .more = R"(, "lr": 0.0028, "mla_dc": 64)"});
    make(t.path + "/c", {.attn = "mla", .loss = 2.2, .more = R"(, "lr": 0.0028, "mla_dc": 32)"});
    make(t.path + "/match-params/b", {.attn = "mla", .loss = 2.05, .more = R"(, "lr": 0.0028, "mla_dc": 64, "mlp_width": 600)"});
    write(t.path + "/match-cache/comparison.json", R"({"rows": [{"row": "qkv", "variant": "qkv", "options": ["--heads", "2"]}]})");
    make(t.path + "/match-cache/a", {.attn = "qkv", .loss = 2.0, .more = R"(, "lr": 0.004, "heads": 2)"});
    make(t.path + "/match-cache/b", {.attn = "mla", .loss = 2.25, .more = R"(, "lr": 0.004, "mla_dc": 64, "heads": 4)"});
    make(t.path + "/match-flops/a", {.attn = "qkv", .loss = 2.0, .more = R"(, "lr": 0.004, "steps": 10)"});
    make(t.path + "/match-flops/b", {.attn = "mla", .loss = 2.5, .more = R"(, "lr": 0.004, "mla_dc": 64, "steps": 9)"});
    make(t.path + "/tune/x", {.attn = "mla", .seed = 9, .loss = 2.15, .more = R"(, "lr": 0.0028, "mla_dc": 64)"});
    make(t.path + "/tune/y", {.attn = "mla", .seed = 9, .loss = 2.25, .more = R"(, "lr": 0.004, "mla_dc": 64)"});
    Problems problems;
    Comparison c = load(t, problems, "");
    REQUIRE(c.sections.size() == 4);
    CHECK(c.alpha == 0.025);                                       // two looks: each at half the chance of a false verdict
    CHECK(c.baseline == "qkv");
    CHECK(difference(c.sections[0], "mla:dc=64 lr=0.0028").seeds.mean == doctest::Approx(0.1));
    CHECK(difference(c.sections[0], "mla:dc=32 lr=0.0028").seeds.mean == doctest::Approx(0.2));
    CHECK(c.sections[1].matching == "params");
    CHECK(difference(c.sections[1], "mla:dc=64 lr=0.0028 mlp-width=600").seeds.mean == doctest::Approx(0.05));
    CHECK(difference(c.sections[2], "mla:dc=64 heads=4").seeds.mean == doctest::Approx(0.25));     // heads: set by the matching
    CHECK(difference(c.sections[3], "mla:dc=64 steps=9").seeds.mean == doctest::Approx(0.5));
    CHECK(c.tune.size() == 2);
    CHECK(c.rates.at("mla:dc=64") == 0.0028);
    CHECK(problems.empty());
    Gallery g = draw(c);
    CHECK(g.cache.size() == 1);
    CHECK(g.rates.size() == 1);
    CHECK(has(g.cache[0].body, "same params"));                    // one mark for each matching
    CHECK(has(g.rates[0].body, "chosen 0.0028"));
    CHECK(progress_words(c, 0) == "3 of 12 runs, about 9s left");
    std::string page = for_html({c, g, {NOT_MEASURED, NOT_MEASURED}, {}, {}, "build/report x"}, 0);
    CHECK(has(page, "http-equiv=\"refresh\""));
    CHECK(has(page, "3 of 12 runs, about 9s left"));
    c.plan.finished = 12;
    page = for_html({c, g, {NOT_MEASURED, NOT_MEASURED}, {}, {}, "build/report x"}, 0);
    CHECK(!has(page, "http-equiv=\"refresh\""));
    for (const char* outside : {"http://", "https://", "src=", "@import", "url("}) CHECK_MESSAGE(!has(page, outside), outside);
}

TEST_CASE("report: from the records alone comes the same report") {
    TempDir t, r;
    std::string from = t.path + "/runs/x", to = r.path + "/x";
    std::vector<double> sequences;
    for (int i = 0; i < 64; i++) sequences.push_back(0.3 * std::sin(i) - 0.3 * std::sin(i + 0.5) / 64);
    double offset = mean(sequences);
    for (double& v : sequences) v -= offset;
    write(from + "/comparison.json", R"({"baseline": "qkv", "text": "/home/me/data/kjv", "finished": 7, "total": 7})");
    for (int seed : {1, 2, 3}) {
        make(from + format("/a%d", seed), {.attn = "qkv", .seed = seed, .loss = 2 + 0.013 * seed, .sequences = sequences});
        make(from + format("/b%d", seed), {.attn = "qv", .seed = seed, .loss = 2.0417 + 0.0131 * seed, .sequences = sequences});
    }
    std::string probe = slurp(from + "/b3/metrics.jsonl");
    for (size_t at = 0; (at = probe.find("\"bits", at)) != std::string::npos; at += 20) probe.insert(at, "\"accuracy\": 0.5, ");
    write(from + "/b3/metrics.jsonl", probe);
    make(from + "/match-cache/b1", {.attn = "qv", .seed = 1, .loss = 1.9});
    make(from + "/tune/b9", {.attn = "qv", .seed = 9, .loss = 2.2});
    make(from + "/half", {.attn = "mqa", .seed = 1, .loss = 2.2, .stopped_at = 20});
    write(from + "/a1/samples.txt", "=== step 40, 5 bytes ===\nHello\n\n");
    Problems problems;
    CHECK(write_records(from, to, problems) == 8);
    const auto written = fs::last_write_time(to + "/a1/metrics.jsonl");
    CHECK(write_records(from, to, problems) == 8);
    CHECK(fs::last_write_time(to + "/a1/metrics.jsonl") == written);      // nothing has changed: nothing is written
    const std::string kept = slurp(to + "/b3/metrics.jsonl");
    CHECK(std::count(kept.begin(), kept.end(), 'y') == 5 + 1);           // accuracy at each of five validations, bits_per_byte at the end
    for (const char* run : {"/match-cache/b1", "/tune/b9"}) CHECK(fs::exists(to + run + "/config.json"));
    CHECK(!fs::exists(to + "/half"));
    CHECK(!has(slurp(to + "/a1/config.json"), "/home/me"));
    CHECK(!has(slurp(to + "/comparison.json"), "/home/me"));
    CHECK(has(slurp(to + "/comparison.json"), "\"text\": \"kjv\""));
    fs::remove_all(from + "/half");
    problems.clear();
    auto document = [&](const std::string& folder) {
        Document d;
        d.comparison = load_comparison({{folder}, "", 0.05}, d.problems);
        d.gallery = draw(d.comparison);
        d.unigram.assign(d.comparison.sections.size(), NOT_MEASURED);
        return d;
    };
    Document runs = document(from), records = document(to);
    CHECK(for_markdown(runs) == for_markdown(records));
    CHECK(for_csv(runs.comparison) == for_csv(records.comparison));
    CHECK(svg_file("x", runs.gallery.cache, 1) == svg_file("x", records.gallery.cache, 1));
    CHECK(svg_file("x", runs.gallery.differences, 1) == svg_file("x", records.gallery.differences, 1));
    CHECK(svg_file("x", runs.gallery.curves, 1) == svg_file("x", records.gallery.curves, 1));
    CHECK(has(for_html(records, 0), "Hello"));
    CHECK(!std::isnan(records.comparison.sections[0].differences[1].text.half_width));
}

TEST_CASE("report: broken and hostile runs are named, not fatal") {
    TempDir t;
    Problems problems;
    CHECK_THROWS_WITH(load(t, problems), doctest::Contains("no run in it"));
    CHECK_THROWS_WITH(load_comparison({{t.path + "/absent"}, "", 0.05}, problems), doctest::Contains("not a folder"));
    write(t.path + "/empty/config.json", "");
    write(t.path + "/list/config.json", "[1, 2]");
    write(t.path + "/cut/config.json", R"({"attn": "qv", "options": {"pos": "rope", "seed")");
    write(t.path + "/types/config.json", R"({"attn": 7, "options": {"pos": null, "seed": -3, "steps": "many"},
        "model": "big", "data": [], "machine": {"threads": 2}})");
    write(t.path + "/types/metrics.jsonl",
          R"({"step": 1e300, "tokens": 5, "loss": "x", "val_loss": 1.5})" "\n{\"tokens\": null}\n3\n{\"step\": 2, \"tok");
    write(t.path + "/deep/config.json", std::string(100000, '[') + std::string(100000, ']'));
    write(t.path + "/silent/config.json", R"({"attn": "qkv", "options": {"pos": "rope"}})");
    write(t.path + "/comparison.json", R"({"rows": [3, {"row": 5}, {"row": "x", "variant": "y", "options": {"a": 1}}],
        "finished": -4, "total": "many"})");
    write(t.path + "/learning_rates.json", R"({"rates": {"qv": "fast"}})");
    make(t.path + "/markup", {.attn = "<script>alert(1)</script>|x"});
    Comparison c = load(t, problems, "qkv");
    size_t rows = 0;
    for (auto& s : c.sections) rows += s.rows.size();
    CHECK(rows == 7);
    std::string all = join(problems, "\n");
    for (const char* name : {"/empty/config.json", "/list/config.json", "/cut/config.json", "/deep/config.json",
                             "/silent/metrics.jsonl holds no measurement"})
        CHECK_MESSAGE(has(all, name), name);
    CHECK(has(all, "/types/metrics.jsonl: 3 of 4 lines are not a metrics object (first: line 2)"));
    Document d{c, draw(c), std::vector<double>(c.sections.size(), NOT_MEASURED), problems, {}, "again"};
    CHECK(has(for_terminal(d, false), "1.5000"));
    CHECK(!has(for_html(d, 0), "<script>"));
    CHECK(!has(for_markdown(d), "</script>|x |"));
    CHECK(!for_json(c).empty());
    CHECK(!for_csv(c).empty());
}

TEST_CASE("report: the command of a run has what is not the default, quoted where it must be") {
    Run run;
    run.attn = "mla";
    run.options = nlohmann::json::parse(R"({"lr": 0.004, "steps": 1000, "mla_dc": 64, "prompt": "it's",
        "quiet": true, "stochastic_rounding": false, "schedule": "cosine"})");
    CHECK(command_of(run) == "build/train-mla --lr 0.004 --mla-dc 64 --prompt 'it'\\''s' --quiet");
}
