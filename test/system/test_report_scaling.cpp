// Laws fitted over a ladder of sizes (tools/scaling): known laws are found again, the interval of a prediction holds
// the truth as often as it says, and comparisons written by hand give the differences and slopes worked out by hand.
#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>
#include <random>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "test/temp_dir.h"
#include "tools/report/stats.h"
#include "tools/scaling/ladder.h"
#include "tools/scaling/power_law.h"

static const std::vector<double> SIZES{49e3, 197e3, 442e3, 786e3, 1229e3};

static std::vector<double> law(double a, double b, double c) {
    std::vector<double> values;
    for (double n : SIZES) values.push_back(a * std::pow(n, -b) + c);
    return values;
}

TEST_CASE("scaling: a law without noise is found again") {
    const double laws[][3] = {{40, 0.3, 2.5}, {12, 0.12, 0.5}, {9, 0.05, 0}, {3e4, 0.9, 3.1}};
    for (auto& [a, b, c] : laws) {
        CAPTURE(b);
        const PowerLaw fit = fit_power_law(SIZES, law(a, b, c));
        CHECK(fit.b == doctest::Approx(b).epsilon(1e-3));
        CHECK(fit.c == doctest::Approx(c).epsilon(2e-3));
        CHECK(fit.rms < 1e-6);
        CHECK(fit.at(85e6) == doctest::Approx(a * std::pow(85e6, -b) + c).epsilon(1e-3));
    }
}

TEST_CASE("scaling: what no law fits keeps to the bounds") {
    const PowerLaw rising = fit_power_law(SIZES, {3, 3.1, 3.2, 3.3, 3.4});    // a would be negative
    CHECK(rising.a == 0);
    CHECK(rising.c == doctest::Approx(3.2));
    const PowerLaw falling = fit_power_law(SIZES, {4, 2, 1, 0.5, 0.1});    // c would be
    CHECK(falling.c >= 0);
    CHECK(falling.a > 0);
    CHECK(std::isnan(fit_power_law({1, 2}, {3, 2}).a));
    CHECK(std::isnan(fit_power_law({1, 1, 2}, {3, 3, 2}).a));
}

// 300 pairs of ladders drawn from known laws: the 90% interval of the predicted difference misses the true one about
// 30 times. Binomial: 17 to 46 in 99.8% of all such tests.
TEST_CASE("scaling: a prediction's interval holds the truth as often as it says") {
    const double far = 10e6, sd = 0.01;
    const std::vector<double> base = law(40, 0.3, 2.5), other = law(43, 0.3, 2.55);
    const double truth = 43 * std::pow(far, -0.3) + 2.55 - 40 * std::pow(far, -0.3) - 2.5;
    std::mt19937_64 bits(7);
    std::normal_distribution<double> noise(0, sd / std::sqrt(3.0));
    int missed = 0;
    for (int i = 0; i < 300; i++) {
        Ladder a{base, std::vector<size_t>(5, 3)}, b{other, std::vector<size_t>(5, 3)};
        for (double& v : a.mean) v += noise(bits);
        for (double& v : b.mean) v += noise(bits);
        const Predicted p = predict_difference(SIZES, a, b, sd, far, 0.1, 200);
        missed += !(p.low <= truth && truth <= p.high);
    }
    CAPTURE(missed);
    CHECK(missed >= 17);
    CHECK(missed <= 46);
}

// A comparison's records as small as they can be: one validation loss for each run.
static void write_comparison(const std::string& folder, double parameters, double tokens,
                             const std::vector<double>& qkv, const std::vector<double>& qv,
                             const char* text = "one text") {
    std::string runs;
    for (size_t i = 0; i < qkv.size(); i++)
        for (const char* attn : {"qkv", "qv"}) {
            const std::string name = std::string(attn) + "-rope-" + std::to_string(i + 1), dir = folder + "/" + name;
            std::filesystem::create_directories(dir);
            file_replace(
                dir + "/config.json",
                format(R"({"attn":"%s","model":{"parameters_non_embedding":%.0f},"data":{"train_fingerprint":"1","val_fingerprint":"%s"},)"
                       R"("options":{"seed":%zu,"steps":10,"pos":"rope"}})",
                       attn, parameters, text, i + 1));
            file_replace(dir + "/metrics.jsonl", format(R"({"step":10,"tokens":%.0f,"val_loss":%.6f})", tokens,
                                                        (attn == std::string("qkv") ? qkv : qv)[i]) +
                                                     "\n");
            runs += format(R"(%s{"run":"%s","row":"%s","pos":"rope","seed":%zu})", runs.empty() ? "" : ",",
                           name.c_str(), attn, i + 1);
        }
    file_replace(folder + "/comparison.json",
                 R"({"rows":[{"row":"qkv","variant":"qkv"},{"row":"qv","variant":"qv"}],)"
                 R"("seeds":[1,2,3],"baseline":"qkv","text":"t","matching":"layout","runs":[)" +
                     runs + "]}");
}

TEST_CASE("scaling: differences and slopes of comparisons on disk") {
    TempDir t;
    auto in = [&](const std::string& name) { return t.path + "/" + name; };
    // qv - qkv is 0.10, 0.11, 0.12 at 100k; 0.08, 0.09, 0.10 at 200k; 0.06, 0.07, 0.08 at 400k: -0.02 per doubling, by every seed.
    for (int i = 0; i < 3; i++) {
        const double base = 3 + std::exp2(-i), gap = 0.10 - 0.02 * i;
        write_comparison(in(format("w%d", i)), 1e5 * std::exp2(i), 3e5 * std::exp2(i), {base, base + 0.01, base - 0.01},
                         {base + gap, base + 0.01 + gap + 0.01, base - 0.01 + gap + 0.02});
    }
    Problems problems;
    const Scaling s = load_scaling({{in("w2"), in("w0"), in("w1")}, "", 0.05}, 1e6, problems);
    CHECK(problems.empty());
    CHECK(s.of_sizes);
    REQUIRE(s.rungs.size() == 3);
    CHECK(s.rungs[0].size == 1e5);
    CHECK(s.rungs[2].tokens == 12e5);
    REQUIRE(s.rows.size() == 2);
    CHECK(s.rows[1].name == "qv");
    CHECK(s.rows[1].differences[1].seeds.mean == doctest::Approx(0.09));
    CHECK(s.rows[1].slope.n == 3);
    CHECK(s.rows[1].slope.mean == doctest::Approx(-0.02));
    CHECK(s.rows[1].law.rms < 1e-6);                 // three points: through all of them
    CHECK(std::isnan(s.rows[1].last.difference));    // two are too few to predict the third
    CHECK(s.rows[1].far.difference < 0.06);

    write_comparison(in("long"), 1e5, 6e5, {3.9, 3.91, 3.89}, {4.0, 4.0, 4.0});
    const Scaling budgets = load_scaling({{in("w0"), in("long")}, "", 0.05}, 1e6, problems);
    CHECK(!budgets.of_sizes);
    CHECK(std::isnan(budgets.rows[1].law.a));
    CHECK(budgets.rows[1].slope.mean == doctest::Approx(0.1 - 0.11));
    CHECK_THROWS_WITH_AS(load_scaling({{in("w0"), in("w0")}, "", 0.05}, 1e6, problems),
                         doctest::Contains("nothing to scale"), Error);
    // A run that has not come to its first validation, before the others by its seed: it counts for nothing.
    write_comparison(in("begun"), 2e5, 6e5, {3.7, 3.71, 3.69}, {3.8, 3.8, 3.8});
    std::string config = file_read(in("begun") + "/qkv-rope-1/config.json", 1 << 20);
    config.replace(config.find("\"seed\":1"), 8, "\"seed\":0");
    std::filesystem::create_directories(in("begun") + "/qkv-rope-0");
    file_replace(in("begun") + "/qkv-rope-0/config.json", config);
    file_replace(in("begun") + "/qkv-rope-0/metrics.jsonl", "{\"step\":1,\"tokens\":100,\"loss\":5}\n");
    CHECK(load_scaling({{in("w0"), in("begun")}, "", 0.05}, 1e6, problems).rungs[1].tokens == 6e5);
    write_comparison(in("other"), 2e5, 6e5, {3.9, 3.91, 3.89}, {4.0, 4.0, 4.0}, "another");
    CHECK_THROWS_WITH_AS(load_scaling({{in("w0"), in("other")}, "", 0.05}, 1e6, problems),
                         doctest::Contains("another text"), Error);
    CHECK_THROWS_WITH_AS(load_scaling({{in("w0")}, "", 0.05}, 1e6, problems), doctest::Contains("two comparisons"),
                         Error);
}
