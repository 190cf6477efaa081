// The arithmetic of the report (tools/report/report_stats.h) and its tolerance of broken runs (tools/report/report_runs.h).
// The whole program, its table and its picture are tested by test/system/test_scripts.sh.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <doctest/doctest.h>
#include "tools/report/report_plot.h"

namespace fs = std::filesystem;

namespace {
struct TemporaryFolder {
    std::string path = "/tmp/test_report.XXXXXX";
    TemporaryFolder() { REQUIRE(mkdtemp(path.data()) != nullptr); }
    ~TemporaryFolder() { fs::remove_all(path); }
};

void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << text;
}

// A run whose validation loss falls from `loss` + 1 to `loss` in four lines.
void write_run(const std::string& dir, const char* attn, const char* pos, int seed, double loss, const char* more_options = "") {
    write(dir + "/config.json", format(R"({"attn": "%s", "options": {"pos": "%s", "seed": %d, "steps": 40, "batch_tokens": 100%s},
        "model": {"parameters": 5000, "parameters_non_embedding": 4000, "cache_bytes_per_token": 64, "flops_per_token": 24000, "vocab_size": 7}})",
        attn, pos, seed, more_options));
    std::string lines;
    for (int step : {0, 20, 38, 40})
        lines += format(R"({"step": %d, "tokens": %d, "seconds": 1, "loss": %s, "val_loss": %.6f, "bits_per_byte": null, "tokens_per_second": 100})", step, step * 100,
                        step ? "2.5" : "null", loss + 1.0 - step / 40.0) + "\n";
    write(dir + "/metrics.jsonl", lines);
}
}  // namespace

TEST_CASE("report: mean, standard deviation, median") {
    CHECK(mean({1, 2, 6}) == doctest::Approx(3));
    CHECK(std::isnan(mean({})));
    CHECK(sample_sd({2, 4, 4, 4, 5, 5, 7, 9}) == doctest::Approx(std::sqrt(32.0 / 7)));
    CHECK(std::isnan(sample_sd({1})));
    CHECK(median({5, 1, 3}) == 3);
    CHECK(median({4, 1, 3, 2}) == doctest::Approx(2.5));
    CHECK(pooled_sd({{1, 3}, {10, 10, 13}, {99}}) == doctest::Approx(std::sqrt((2.0 + 6.0) / 3)));
    CHECK(std::isnan(pooled_sd({{1}, {2}})));
}

TEST_CASE("report: Student's t") {       // values of R's qt(0.975, df)
    CHECK(student_t_95(1) == doctest::Approx(12.7062).epsilon(1e-5));
    CHECK(student_t_95(2) == doctest::Approx(4.30265).epsilon(1e-5));
    CHECK(student_t_95(20) == doctest::Approx(2.085963).epsilon(2e-5));
    CHECK(student_t_95(21) == doctest::Approx(2.079614).epsilon(1e-4));
    CHECK(student_t_95(60) == doctest::Approx(2.000298).epsilon(1e-5));
    CHECK(student_t_95(100000) == doctest::Approx(1.959988).epsilon(1e-5));
    CHECK(std::isnan(student_t_95(0)));
    for (size_t df = 2; df < 200; df++) CHECK(student_t_95(df) < student_t_95(df - 1));
}

TEST_CASE("report: the paired difference removes what the seeds have in common") {
    // The seeds are far apart, the differences are 0.01, 0.02, 0.03: mean 0.02, sd 0.01, half width 4.3027 * 0.01 / sqrt(3).
    PairedDifference d = paired_difference({1.01, 5.02, 3.03}, {1, 5, 3});
    CHECK(d.n == 3);
    CHECK(d.mean == doctest::Approx(0.02));
    CHECK(d.sd == doctest::Approx(0.01));
    CHECK(d.half_width == doctest::Approx(0.024842).epsilon(1e-4));
    CHECK(std::isnan(paired_difference({2}, {1}).half_width));
    CHECK(paired_difference({2}, {1}).mean == 1);
    CHECK(std::isnan(paired_difference({}, {}).mean));
}

TEST_CASE("report: smoothing keeps the start and the level") {
    CHECK(smooth({}, 3).empty());
    std::vector<double> constant = smooth(std::vector<double>(17, 2.5), 4);
    for (double v : constant) CHECK(v == doctest::Approx(2.5));
    std::vector<double> line(11);
    for (size_t i = 0; i < line.size(); i++) line[i] = double(i);
    std::vector<double> s = smooth(line, 3);
    for (size_t i = 0; i + 3 < line.size(); i++) CHECK(s[i] == doctest::Approx(line[i]));     // symmetric: a straight line stays
    CHECK(s[10] == doctest::Approx((7 + 8 + 9 + 10) / 4.0));                                  // the end has its left side only
    CHECK(smooth({1, 2}, 100)[0] == 1);
}

TEST_CASE("report: slope in nats per doubling") {
    std::vector<double> tokens, loss;
    for (int i = 0; i <= 100; i++) tokens.push_back(i * 1000), loss.push_back(i ? 7 - 0.25 * std::log2(i * 1000.0) : 9);
    CHECK(slope_per_doubling(tokens, loss, 0.1).per_doubling == doctest::Approx(-0.25));
    CHECK(slope_per_doubling(tokens, loss, 0.1).points == 11);
    CHECK(slope_per_doubling(tokens, loss, 1.0).per_doubling == doctest::Approx(-0.25));      // tokens 0 has no logarithm: left out
    CHECK(std::isnan(slope_per_doubling({100}, {2}, 0.1).per_doubling));
    CHECK(std::isnan(slope_per_doubling({}, {}, 0.1).per_doubling));
}

TEST_CASE("report: orders and how many pairs they swap") {
    CHECK(ascending_order({3, NOT_MEASURED, 1, 2}) == std::vector<size_t>{2, 3, 0, 1});
    CHECK(swapped_pairs({1, 2, 3}, {10, 20, 30}) == 0);
    CHECK(swapped_pairs({1, 2, 3}, {30, 20, 10}) == 3);
    CHECK(swapped_pairs({1, 2, 3}, {10, 30, 20}) == 1);
    CHECK(swapped_pairs({1, 1}, {5, 6}) == 0);
}

TEST_CASE("report: unigram loss with add-one smoothing") {
    // Training: a twice, b once, c never; p = 3/6, 2/6, 1/6. Validation: one of each.
    CHECK(unigram_loss({2, 1, 0}, {1, 1, 1}) == doctest::Approx(-(std::log(0.5) + std::log(1.0 / 3) + std::log(1.0 / 6)) / 3));
    CHECK(unigram_loss({0, 0, 0, 0, 0}, {1, 2, 3, 4, 5}) == doctest::Approx(std::log(5)));   // nothing seen: uniform
    CHECK(std::isnan(unigram_loss({1}, {0})));
}

TEST_CASE("report: labels are moved apart, in order, within the panel") {
    CHECK(spread_labels({1, 5}, 1, 0, 10) == std::vector<double>{1, 5});
    std::vector<double> y = spread_labels({5.0, 5.1, 5.2, 9.99, 0.0}, 1, 0, 10);
    CHECK(y[0] == doctest::Approx(4.1));
    CHECK(y[1] == doctest::Approx(5.1));
    CHECK(y[2] == doctest::Approx(6.1));
    CHECK(y[3] == doctest::Approx(9.99));
    CHECK(y[4] == 0);
    std::vector<double> top = spread_labels({10, 10, 10}, 1, 0, 10);
    CHECK(top == std::vector<double>{8, 9, 10});
    std::vector<double> chain = spread_labels({0, 0.5, 1.2, 1.9}, 1, 0, 10);
    for (size_t i = 1; i < chain.size(); i++) CHECK(chain[i] - chain[i - 1] >= 1 - 1e-12);
    CHECK(chain[0] >= 0);
    CHECK(spread_labels({}, 1, 0, 1).empty());
}

TEST_CASE("report: pairs are matched by seed, unfinished runs left out") {
    TemporaryFolder t;
    for (int seed : {1, 2, 3}) write_run(t.path + "/qkv-rope-" + std::to_string(seed), "qkv", "rope", seed, seed);
    write_run(t.path + "/qv-rope-1", "qv", "rope", 1, 1.25);
    write_run(t.path + "/qv-rope-3", "qv", "rope", 3, 3.75);
    write_run(t.path + "/qv-rope-2", "qv", "rope", 2, 99, R"(, "lr": 0.5)");
    std::string half = "{\"step\": 20, \"tokens\": 2000, \"loss\": 99, \"val_loss\": 99}\n";
    write(t.path + "/qv-rope-2/metrics.jsonl", half);
    std::vector<std::string> problems;
    std::vector<Row> rows = group_runs(load_runs({t.path}, problems), problems);
    REQUIRE(rows.size() == 2);
    const Row *qv = find_row(rows, "qv", "rope"), *qkv = find_row(rows, "qkv", "rope");
    REQUIRE(qv);
    REQUIRE(qkv);
    PairedDifference d = difference_to(*qv, *qkv);
    CHECK(d.n == 2);
    CHECK(d.mean == doctest::Approx(0.5));
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].find("qv-rope-2 stopped at step 20 of 40") != std::string::npos);
    CHECK(row_val_loss(*qv) == doctest::Approx(2.5));
    Table table = results_table(rows, "qkv");
    std::string text = table_for_terminal(table, false);
    CHECK(text.find("2.5000 ± 1.7678*") != std::string::npos);
    CHECK(text.find("\033") == std::string::npos);
    CHECK(table_for_terminal(table, true).find("\033[32m") != std::string::npos);
    CHECK(read_differences({qv, qkv}, *qkv).find("Not told apart from qkv: qv +0.5000") != std::string::npos);
    std::string curves = read_curves({qkv});
    CHECK(curves.find("qkv -0.67") != std::string::npos);          // 0.05 nats over log2(40/38) = 0.074 doublings
    CHECK(curves.find("not flattened") != std::string::npos);
}

TEST_CASE("report: one seed is read against the known spread") {
    TemporaryFolder t;
    write_run(t.path + "/a", "qkv", "rope", 1, 2.0);
    write_run(t.path + "/b", "qv", "rope", 1, 2.03);
    write_run(t.path + "/c", "mqa", "rope", 1, 2.2, R"(, "width": 64)");
    write_run(t.path + "/d", "mla", "learned", 1, 2.2, R"(, "width": 128)");
    std::vector<std::string> problems;
    std::vector<Row> rows = group_runs(load_runs({t.path}, problems), problems);
    CHECK(problems.empty());
    REQUIRE(rows.size() == 4);
    CHECK(rows[0].attn == "mla");                                  // rows by position, then by loss
    CHECK(rows[1].attn == "qkv");
    CHECK(rows[3].attn == "mqa");
    std::string reading = join(honest_reading(rows, "qkv", 2.1), "\n");
    CHECK(reading.find("Beyond that limit, against qkv: mqa +0.2000. Not told apart: qv +0.0300.") != std::string::npos);
    CHECK(reading.find("learned: No qkv run") != std::string::npos);
    CHECK(reading.find("(unigram baseline): mla (learned), mqa (rope)") != std::string::npos);
    CHECK(differing_options(rows) == std::vector<std::string>{"width: 128 64"});
}

TEST_CASE("report: broken and hostile runs are named, not fatal") {
    TemporaryFolder t;
    std::vector<std::string> problems;
    CHECK_THROWS_WITH(load_runs({t.path}, problems), doctest::Contains("no run in it"));
    CHECK_THROWS_WITH(load_runs({t.path + "/absent"}, problems), doctest::Contains("not a folder"));
    write(t.path + "/empty/config.json", "");
    write(t.path + "/list/config.json", "[1, 2]");
    write(t.path + "/cut/config.json", R"({"attn": "qv", "options": {"pos": "rope", "seed")");
    write(t.path + "/types/config.json", R"({"attn": 7, "options": {"pos": null, "seed": -3, "steps": "many"}, "model": "big", "data": [], "machine": {"threads": 2}})");
    write(t.path + "/types/metrics.jsonl", "{\"step\": 1e300, \"tokens\": 5, \"loss\": \"x\", \"val_loss\": 1.5}\n{\"tokens\": null}\n3\n{\"step\": 2, \"tok");
    write(t.path + "/deep/config.json", std::string(100000, '[') + std::string(100000, ']'));
    write(t.path + "/silent/config.json", R"({"attn": "qkv", "options": {"pos": "rope"}})");
    std::vector<Row> rows = group_runs(load_runs({t.path}, problems), problems);
    CHECK(rows.size() == 6);
    std::string all = join(problems, "\n");
    for (const char* name : {"/empty/config.json", "/list/config.json", "/cut/config.json", "/deep/config.json", "/silent/metrics.jsonl holds no measurement"})
        CHECK_MESSAGE(all.find(name) != std::string::npos, name);
    CHECK(all.find("/types/metrics.jsonl: 3 of 4 lines are not a metrics object (first: line 2)") != std::string::npos);
    const Row* types = find_row(rows, "7", "-");
    REQUIRE(types);
    CHECK(types->runs[0].val_loss() == 1.5);
    CHECK(types->runs[0].seed == -1);
    CHECK(types->runs[0].threads == "2");
    Table table = results_table(rows, "qkv");
    CHECK(table_for_markdown(table).find("| qkv | rope | - | - | - | - | - | - | - | - |") != std::string::npos);
    CHECK(!setup_facts(rows).empty());
    CHECK(!honest_reading(rows, "qkv", NOT_MEASURED).empty());
}

TEST_CASE("report: the plot's script quotes nothing dangerous and its data are thinned") {
    TemporaryFolder t;
    write_run(t.path + "/a", "qkv", "rope", 1, 2.0);
    write_run(t.path + "/b", "x'; system('y')", "../..", 1, 2.0);
    std::vector<std::string> problems;
    write_plot(t.path, "title \" `", group_runs(load_runs({t.path}, problems), problems), "qkv");
    CHECK(fs::exists(t.path + "/plot/x___system__y__-.._...val.tsv"));
    std::ifstream script(t.path + "/loss.gp");
    std::string text((std::istreambuf_iterator<char>(script)), {});
    CHECK(text.find("system('") == std::string::npos);
    CHECK(text.find('`') == std::string::npos);
    Series series;
    for (int i = 1; i <= 50000; i++) series[i * 512.0] = {1, 1, 1};
    write_series(t.path + "/long.tsv", series);
    std::ifstream data(t.path + "/long.tsv");
    size_t lines = 0;
    std::string line, last;
    while (std::getline(data, line)) lines++, last = line;
    CHECK(lines < 2 * MAX_POINTS);
    CHECK(last.substr(0, 9) == "25600000\t");
    CHECK(shell_quote("it's") == "'it'\\''s'");
}

TEST_CASE("report: ticks are few and round") {
    CHECK(ticks({250000, 4096000}, true) == "\"500k\" 500000, \"1M\" 1000000, \"2M\" 2000000");
    CHECK(ticks({1.1e6, 4.1e6}, false) == "\"2M\" 2000000, \"3M\" 3000000, \"4M\" 4000000");
}
