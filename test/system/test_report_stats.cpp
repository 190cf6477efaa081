// The arithmetic of the report (tools/report/stats.h, inference.h, svg.h): against scipy's values (test/golden/make_student_t.py), values
// worked out by hand, and, for the intervals, by counting how often they hold the truth.
#include <doctest/doctest.h>
#include <random>

#include "tools/compare/looks.h"
#include "tools/report/inference.h"
#include "tools/report/pictures.h"
#include "tools/report/stats.h"
#include "tools/report/svg.h"
#include "tools/report/text.h"

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

TEST_CASE("report: the incomplete beta function, Student's t") {
    const double beta[][4] = {{0.5, 0.5, 0.3, 0.369010119565545},
                              {1, 0.5, 0.9, 0.683772233983162},
                              {2, 3, 0.25, 0.26171875},
                              {10, 0.5, 0.99, 0.657928175156784},
                              {50, 0.5, 0.999, 0.752369019965377},
                              {0.5, 0.5, 1e-6, 0.000636619878470925},
                              {5000, 0.5, 0.9997, 0.0832490963176315}};
    for (auto& [a, b, x, value] : beta) {
        CAPTURE(a);
        CAPTURE(x);
        CHECK(std::abs(incomplete_beta(a, b, x) - value) < 1e-11 * value);
    }
    CHECK(incomplete_beta(2, 3, 0) == 0);
    CHECK(incomplete_beta(2, 3, 1) == 1);
    const double quantiles[][3] = {{0.975, 1, 12.7062047361747}, {0.975, 2, 4.30265272974946},
                                    {0.975, 4, 2.77644510519779},  {0.995, 2, 9.92484320091829},
                                   {0.975, 20, 2.08596344726586}, {0.9, 3, 1.63774435369621},
                                     {0.99, 7.5, 2.94309932340672}, {0.975, 100, 1.98397151852355},
                                   {0.8, 2, 1.06066017177982},    {0.9995, 3, 12.923978636688},
                                   {0.975, 1e6, 1.95996635681411}};
    for (auto& [p, df, t] : quantiles) {
        CAPTURE(p);
        CAPTURE(df);
        CHECK(std::abs(student_t_quantile(p, df) - t) < 1e-9 * t);
        CHECK(student_t_quantile(1 - p, df) == doctest::Approx(-t).epsilon(1e-9));
    }
    const double tails[][3] = {{2, 2, 0.183503419072274}, {12.7, 1, 0.0500243276893442}, {0.5, 9, 0.629071299826026},
                               {30, 3, 8.13528042716396e-05}, {1e-3, 5, 0.999240786772198}};
    for (auto& [t, df, p] : tails) CHECK(std::abs(student_t_two_sided(t, df) - p) < 1e-11 * p);
    CHECK(std::isnan(student_t_quantile(0.975, 0)));
    CHECK(std::isnan(student_t_quantile(1.5, 3)));
    CHECK(student_t_two_sided(INFINITY, 3) == 0);
}

TEST_CASE("report: the paired difference removes what the seeds have in common") {
    // scipy.stats.ttest_rel: p = 0.000201834342408530, 95% [0.029968110572058, 0.040031889427942], 99%
    // [0.025764711487380, 0.044235288512620].
    PairedDifference d = paired_difference({3.821, 3.839, 3.841, 3.830}, {3.783, 3.805, 3.804, 3.799});
    CHECK(d.n == 4);
    CHECK(d.mean == doctest::Approx(0.035));
    CHECK(d.p == doctest::Approx(0.00020183434240853).epsilon(1e-9));
    CHECK(d.mean - half_width(d, 0.05) == doctest::Approx(0.029968110572058).epsilon(1e-9));
    CHECK(d.mean + half_width(d, 0.01) == doctest::Approx(0.044235288512620).epsilon(1e-9));
    CHECK(std::isnan(half_width(paired_difference({2}, {1}), 0.05)));
    CHECK(paired_difference({2}, {1}).mean == 1);
    CHECK(std::isnan(paired_difference({2}, {1}).p));
    CHECK(std::isnan(paired_difference({}, {}).mean));
    CHECK(paired_difference({1, 2}, {1, 2}).p == 1);
    CHECK(paired_difference({2, 3}, {1, 2}).p == 0);               // the same difference twice: no spread at all
}

TEST_CASE("report: Holm's correction") {
    // Worked by hand, m = 4: 0.005 <= .05/4; 0.01 <= .05/3; 0.03 > .05/2 stops; 0.04 is not looked at though 0.04 <= .05/1.
    Holm h = holm({0.01, 0.04, 0.03, 0.005}, 0.05);
    CHECK(h.tests == 4);
    CHECK(h.rejected == std::vector<char>{1, 0, 0, 1});
    const double adjusted[] = {0.03, 0.06, 0.06, 0.02}, level[] = {0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4};
    for (size_t i = 0; i < 4; i++) {
        CHECK(h.adjusted[i] == doctest::Approx(adjusted[i]));
        CHECK(h.level[i] == doctest::Approx(level[i]));
    }
    Holm some = holm({NOT_MEASURED, 0.04, NOT_MEASURED}, 0.05);
    CHECK(some.tests == 1);
    CHECK(some.rejected == std::vector<char>{0, 1, 0});
    CHECK(std::isnan(some.adjusted[0]));
    CHECK(holm({0.6, 0.9}, 0.05).adjusted[1] == 1);
    CHECK(holm({}, 0.05).tests == 0);
}

TEST_CASE("report: the corrected interval excludes 0 exactly when Holm rejects") {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    for (int table = 0; table < 200; table++) {
        std::vector<PairedDifference> differences;
        std::vector<double> p;
        for (int row = 0; row < 5; row++) {
            std::vector<double> a, b;
            for (int seed = 0; seed < 4; seed++) {
                b.push_back(normal(random));
                a.push_back(b.back() + 0.4 * row + 0.5 * normal(random));
            }
            differences.push_back(paired_difference(a, b));
            p.push_back(differences.back().p);
        }
        Holm h = holm(p, 0.05);
        for (size_t i = 0; i < 5; i++)
            CHECK((std::abs(differences[i].mean) > half_width(differences[i], h.level[i])) == bool(h.rejected[i]));
    }
}

TEST_CASE("report: how many seeds would tell a difference") {
    // t(.975, 5) + t(.8, 5) = 2.5706 + 0.9195; * 0.007 / sqrt(6) = 0.009973 <= 0.01; with five: (2.7764 +
    // 0.9410) * 0.007 / sqrt(5) = 0.01164.
    CHECK(seeds_to_tell(0.007, 0.01, 0.05) == 6);
    CHECK(seeds_to_tell(0, 0.01, 0.05) == 2);
    CHECK(seeds_to_tell(5, 0.01, 0.05) == 0);
    CHECK(seeds_to_tell(NOT_MEASURED, 0.01, 0.05) == 0);
    // Counted: with so many seeds, differences of 0.01 with that spread are told in about 80% of the cases
    // (the formula is an approximation).
    std::mt19937 random(1);
    std::normal_distribution<double> normal(0.01, 0.02);
    size_t n = seeds_to_tell(0.02, 0.01, 0.05), told = 0;
    for (int i = 0; i < 1000; i++) {
        std::vector<double> a, b(n, 0.0);
        for (size_t k = 0; k < n; k++) a.push_back(normal(random));
        told += paired_difference(a, b).p < 0.05;
    }
    CHECK(told > 750);
    CHECK(told < 870);
}

TEST_CASE("report: the interval over text holds the truth as often as it says, though neighbours are alike") {
    std::mt19937 random(3);
    std::normal_distribution<double> normal;
    auto coverage = [&](double likeness, bool blocks) {            // an autoregressive series of mean 0
        int held = 0;
        for (int i = 0; i < 1000; i++) {
            std::vector<double> x;
            double v = normal(random);
            for (int k = 0; k < 256; k++) {
                v = likeness * v + std::sqrt(1 - likeness * likeness) * normal(random);
                x.push_back(v);
            }
            BlockMean m = block_mean(x, 0.05);
            double half = blocks ? m.half_width : student_t_quantile(0.975, 255) * sample_sd(x) / 16;
            held += std::abs(m.mean) <= half;
        }
        return held / 1000.0;
    };
    CHECK(coverage(0, true) > 0.93);
    CHECK(coverage(0, true) < 0.97);
    CHECK(coverage(0.5, true) > 0.91);                             // blocks of 16: nearly right
    CHECK(coverage(0.5, false) < 0.80);                            // taking every sequence as independent: far too narrow
    BlockMean m = block_mean({1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4}, 0.05);
    CHECK(m.blocks == 4);
    CHECK(m.per_block == 4);
    CHECK(m.mean == 2.5);
    CHECK(m.half_width == doctest::Approx(3.182446305 * std::sqrt(5.0 / 3) / 2));
    CHECK(block_mean({1, 2, 3}, 0.05).blocks == 0);
    CHECK(std::isnan(block_mean({1, 2, 3}, 0.05).half_width));
}

TEST_CASE("report: thinned curves keep their start, their end and their level") {
    Curve c;
    for (int i = 1; i <= 20000; i++) {
        c.tokens.push_back(i * 512.0);
        c.loss.push_back(2.5);
    }
    Curve t = thinned(c, 120);
    CHECK(t.tokens.size() <= 121);
    CHECK(t.tokens.size() > 80);
    CHECK(t.tokens.front() == 512);
    CHECK(t.tokens.back() > 0.9 * c.tokens.back());
    for (double v : t.loss) CHECK(v == doctest::Approx(2.5));
    CHECK(thinned({{1, 2}, {3, 4}}, 120).loss == std::vector<double>{3, 4});
    CHECK(thinned({}, 120).loss.empty());
}

TEST_CASE("report: slope in nats per doubling") {
    std::vector<double> tokens, loss;
    for (int i = 0; i <= 100; i++) {
        tokens.push_back(i * 1000);
        loss.push_back(i ? 7 - 0.25 * std::log2(i * 1000.0) : 9);
    }
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

TEST_CASE("report: numbers as text") {
    CHECK(show_signed(0.03631) == "+0.0363");
    CHECK(show_signed(-0.00004) == "0.0000");                      // never "-0.0000"
    CHECK(show_signed(0.00004) == "0.0000");
    CHECK(show_signed(-0.0004, 3) == "0.000");
    CHECK(show_signed(-0.0006, 3) == "-0.001");
    CHECK(show_signed(NOT_MEASURED) == "-");
    CHECK(show_interval(0.01, 0.02) == "[-0.0100, +0.0300]");
    CHECK(show_interval(0.01, NOT_MEASURED) == "-");
    CHECK(show_duration(59.7) == "1m00s");
    CHECK(show_duration(3700) == "1h01m");
    CHECK(escape_markup("<b>&\"\x01\xff\xe2\x82\xac") == "&lt;b&gt;&amp;&quot;\xEF\xBF\xBD\xEF\xBF\xBD\xe2\x82\xac");
}

TEST_CASE("report: labels are moved apart, in order, within the panel") {
    CHECK(spread_labels({1, 5}, 1, 0, 10) == std::vector<double>{1, 5});
    std::vector<double> y = spread_labels({5.0, 5.1, 5.2, 9.99, 0.0}, 1, 0, 10);
    CHECK(y[0] == doctest::Approx(4.1));
    CHECK(y[1] == doctest::Approx(5.1));
    CHECK(y[2] == doctest::Approx(6.1));
    CHECK(y[3] == doctest::Approx(9.99));
    CHECK(y[4] == 0);
    CHECK(spread_labels({10, 10, 10}, 1, 0, 10) == std::vector<double>{8, 9, 10});
    std::vector<double> chain = spread_labels({0, 0.5, 1.2, 1.9}, 1, 0, 10);
    for (size_t i = 1; i < chain.size(); i++) CHECK(chain[i] - chain[i - 1] >= 1 - 1e-12);
    CHECK(chain[0] >= 0);
    CHECK(spread_labels({}, 1, 0, 1).empty());
}

TEST_CASE("report: ticks are few and round") {
    auto labels = [](Axis a, bool two = false) {
        std::string s;
        for (auto& t : ticks(a, two)) s += t.label + " ";
        return s;
    };
    CHECK(labels({{250000, 4096000}, true}) == "500k 1M 2M ");
    CHECK(labels({{1.1e6, 4.1e6}, false}) == "2M 3M 4M ");
    CHECK(labels({{700, 5000}, true}, true) == "1024 2048 4096 ");
    CHECK(labels({{-0.031, 0.029}, false}) == "-0.03 -0.02 -0.01 0 0.01 0.02 ");
    CHECK(labels({{0.0019, 0.0088}, true}) == "0.002 0.003 0.004 0.005 0.007 ");
    CHECK(labels({{0.001, 0.02}, true}) == "0.001 0.002 0.005 0.01 0.02 ");
}

TEST_CASE("SEEDS=auto: decided is told apart, or surely below DELTA") {
    auto row = [](Verdict verdict, double mean, double corrected_half) {
        Difference d;
        d.verdict = verdict;
        d.seeds.mean = mean;
        d.corrected_half = corrected_half;
        return d;
    };
    CHECK(is_decided(row(Verdict::worse, 0.001, 0.0009)));
    CHECK(is_decided(row(Verdict::better, -0.3, 0.2)));
    CHECK(is_decided(row(Verdict::not_told_apart, -0.004, 0.0059)));
    CHECK(!is_decided(row(Verdict::not_told_apart, -0.004, 0.0061)));
    CHECK(!is_decided(row(Verdict::too_few_seeds, 0, 0)));
    CHECK(!is_decided(row(Verdict::none, NOT_MEASURED, NOT_MEASURED)));           // without a finished pair
    CHECK(is_decided(row(Verdict::baseline, NOT_MEASURED, NOT_MEASURED)));
}

TEST_CASE("report: curves over seeds, only where every seed has a value") {
    Series s = over_seeds({{{0, 100, 200}, {9, 3, 2}}, {{0, 100, 300}, {9, 5, 2}}});
    CHECK(s.size() == 1);
    CHECK(s.at(100).mean == 4);
    CHECK(s.at(100).low == 3);
    CHECK(s.at(100).high == 5);
    Curve d = curve_difference({{100, 200}, {3, 2}}, {{200, 300}, {1.5, 1}});
    CHECK(d.tokens == std::vector<double>{200});
    CHECK(d.loss == std::vector<double>{0.5});
}
