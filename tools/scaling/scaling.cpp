// scaling: does the order of the variants hold with the size of the model, or with the number of tokens? From
// comparisons of the same rows at several widths (scripts/study_ladder.sh) or budgets (scripts/study_budgets.sh):
// tables, a picture, and for widths fits with a prediction. Trains nothing.
//   build/scaling docs/study/ladder-* --out docs/study/ladder
// Writes report.md, report.json (matchings `slope`, `prediction` and `held-out`, so that pages can be filled from them:
// tools/report/fill.h), scaling.svg.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tools/arguments.h"
#include "tools/one_line.h"
#include "tools/report/svg.h"
#include "tools/report/text.h"
#include "tools/scaling/ladder.h"

// GPT-2's smallest, "124M": 12 layers of width 768, twelve L C^2 without embeddings.
static constexpr double GPT2_SMALL = 12.0 * 12 * 768 * 768;

struct ScalingOptions {
    Selection selection;
    std::string out;
    double far = GPT2_SMALL;
};

static bool parse(int argc, char** argv, ScalingOptions& o) {
    const std::vector<Argument> table = {
        {"out", "DIR", "report.md, report.json and scaling.svg go there; default: terminal only", &o.out},
        {"baseline", "NAME", "default: the comparisons' own, else qkv", &o.selection.baseline},
        {"at", "N", "parameters without embeddings that the fits predict; default: those of GPT-2's 124M", &o.far, 1, 1e15}};
    return arguments_parse(table,
                           "scaling COMPARISON COMPARISON... [options]: one comparison for each size, or for each "
                           "number of tokens",
                           argc, argv, o.selection.folders);
}

// ---- tables

static std::string table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& lines) {
    std::string s = "| " + join(head, " | ") + " |\n|---|";
    for (size_t i = 1; i < head.size(); i++) s += "---:|";
    for (auto& line : lines) s += "\n| " + join(line, " | ") + " |";
    return s + "\n";
}
static std::string rung_name(const Scaling& s, size_t i) {
    return s.of_sizes ? show_count(s.at(i)) : show_count(s.at(i)) + " tokens";
}
static std::string bounds(const Predicted& p) {
    return std::isnan(p.low) ? "-" : "[" + show_signed(p.low) + ", " + show_signed(p.high) + "]";
}

static std::string losses_table(const Scaling& s) {
    std::vector<std::string> head{s.of_sizes ? "parameters without embeddings" : "tokens",
                                  s.of_sizes ? "tokens" : "parameters"};
    for (auto& row : s.rows) head.push_back(row.name);
    std::vector<std::vector<std::string>> lines;
    for (size_t i = 0; i < s.rungs.size(); i++) {
        lines.push_back({show_count(s.at(i)), show_count(s.of_sizes ? s.rungs[i].tokens : s.rungs[i].size)});
        for (auto& row : s.rows)
            lines.back().push_back(show(row.losses.mean[i], "%.4f") +
                                   (std::isnan(row.sd[i]) ? "" : format(" ± %.4f", row.sd[i])) +
                                   format(" (%zu)", row.losses.seeds[i]));
    }
    return table(head, lines);
}

static std::string differences_table(const Scaling& s) {
    std::vector<std::string> head{"variant"};
    for (size_t i = 0; i < s.rungs.size(); i++) head.push_back(rung_name(s, i));
    head.push_back("per doubling");
    std::vector<std::vector<std::string>> lines;
    for (auto& row : s.rows) {
        if (&row == &s.rows[0]) continue;
        lines.push_back({row.name});
        for (auto& d : row.differences)
            lines.back().push_back(show_signed(d.seeds.mean) + " " + show_interval(d.seeds.mean, d.corrected_half));
        lines.back().push_back(show_signed(row.slope.mean) + " " + show_interval(row.slope.mean, row.slope_half));
    }
    return table(head, lines);
}

static std::string laws_table(const Scaling& s) {
    std::vector<std::vector<std::string>> lines;
    for (auto& row : s.rows)
        lines.push_back({row.name, show(row.law.a, "%.4g"), show(row.law.b, "%.3f"), show(row.law.c, "%.3f"),
                         show(row.law.rms, "%.4f")});
    return table({"variant", "a", "b", "c", "rms of the residuals"}, lines);
}

static std::string predictions_table(const Scaling& s, double far) {
    std::vector<std::vector<std::string>> lines;
    for (auto& row : s.rows)
        if (&row != &s.rows[0])
            lines.push_back({row.name, show_signed(row.far.difference), bounds(row.far),
                             show_signed(row.last.difference), bounds(row.last),
                             show_signed(row.differences.back().seeds.mean)});
    const std::string last = show_count(s.rungs.back().size);
    return table({"variant", "at " + show_count(far), "95%", "at " + last + ", from the smaller", "95%",
                  "at " + last + ", measured"},
                 lines);
}

static std::string for_markdown(const Scaling& s, double far, const Problems& problems) {
    std::string out = "# Scaling\n\n";
    for (auto& p : problems) out += "- " + p + "\n";
    if (!problems.empty()) out += "\n";
    out += "Validation losses in nats, mean and standard deviation over seeds (their number).\n\n## Losses\n\n" +
           losses_table(s);
    out += format(
        "\n## Differences to %s\n\n"
        "In brackets 95%% intervals over paired seeds, corrected (Holm) for the rows of each column. Per doubling of "
        "the %s: a straight line over log2 for each seed, then over the seeds; above 0 the row falls behind as %s.\n\n",
        s.baseline.c_str(), s.of_sizes ? "size" : "tokens", s.of_sizes ? "models grow" : "training goes on");
    out += differences_table(s);
    if (!s.of_sizes) return out;
    out +=
        "\n## Fits\n\nL(N) = a N^-b + c, least squares on the means; N are the baseline's parameters without "
        "embeddings.";
    if (s.rungs.size() == 3)
        out += " With three sizes the law goes through all points: nothing is left to judge it by.";
    out += "\n\n" + laws_table(s);
    out += format(
        "\n## Predictions\n\n"
        "Differences to %s by the fitted laws, at a size that nobody trained here, and, as a test of the method, at "
        "the largest size from the smaller ones alone. The intervals hold the noise between seeds (standard deviation "
        "%s; 2000 redrawn ladders) and no other error: that the law is another one, that the rates fit one size better "
        "than another, and that a text is read several times are not in them.\n\n",
        s.baseline.c_str(), show(s.seed_sd, "%.4f").c_str());
    return out + predictions_table(s, far);
}

// ---- numbers for pages

static std::string for_json(const Scaling& s) {
    using nlohmann::json;
    // Four digits, as pages show them: the last bits of a fit depend on how the compiler rounded.
    auto number = [](double v) { return std::isnan(v) ? json() : json(std::round(v * 1e4) / 1e4); };
    auto section = [&](const char* matching, auto fields) {
        json rows = json::array();
        for (auto& row : s.rows) {
            if (&row == &s.rows[0]) continue;
            json fields_of = fields(row);
            fields_of["row"] = row.name;
            rows.push_back(fields_of);
        }
        return json{{"matching", matching}, {"rows", rows}, {"sd_between_seeds", number(s.seed_sd)}};
    };
    auto predicted = [&](const Predicted& p) {
        return json{{"difference", number(p.difference)}, {"interval", {number(p.low), number(p.high)}}};
    };
    json j;
    j["sections"] = {
        section("slope",
                [&](const LadderRow& r) {
                    return json{
                        {"difference", number(r.slope.mean)},
                        {"seeds", r.slope.n},
                        {"interval", {number(r.slope.mean - r.slope_half), number(r.slope.mean + r.slope_half)}}};
                }),
        section("prediction", [&](const LadderRow& r) { return predicted(r.far); }),
        section("held-out", [&](const LadderRow& r) { return predicted(r.last); })};
    return j.dump(1) + "\n";
}

// ---- the picture

static std::string stroke(size_t row) { return format("s%zu", row % COLOURS); }
static std::string fill(size_t row) { return format("f%zu", row % COLOURS); }

static Axis x_axis(const Scaling& s, double right) {
    return {{s.at(0) / 1.3, s.at(s.rungs.size() - 1) * 1.3}, true, 52, right};
}

static void end_labels(Picture& p, const Scaling& s, const std::vector<double>& wanted, double x, size_t first) {
    const std::vector<double> at = spread_labels(wanted, 15, 36, p.height - 48);
    for (size_t i = 0; i < wanted.size(); i++) p.text({x + 8, at[i] + 4}, s.rows[first + i].name, fill(first + i));
}

static Picture losses_panel(const Scaling& s) {
    Picture p;
    p.title = "validation loss (nats)";
    Range range;
    for (auto& row : s.rows)
        for (double v : row.losses.mean) include(range, v);
    const Axis x = x_axis(s, 390), y{padded(range, 0.05, 0.02), false, p.height - 44, 30};
    p.axes(x, y, s.of_sizes ? "parameters without embeddings (the baseline's)" : "tokens");
    std::vector<double> ends;
    for (size_t r = 0; r < s.rows.size(); r++) {
        std::vector<Point> curve;
        const bool fitted = !std::isnan(s.rows[r].law.a);
        if (fitted)
            for (int i = 0; i <= 60; i++) {
                const double n = s.at(0) * std::pow(s.at(s.rungs.size() - 1) / s.at(0), i / 60.0);
                curve.push_back({x.at(n), y.at(s.rows[r].law.at(n))});
            }
        for (size_t i = 0; i < s.rungs.size(); i++) {
            const Point at{x.at(s.at(i)), y.at(s.rows[r].losses.mean[i])};
            if (!fitted) curve.push_back(at);
            p.marker(at, 0, fill(r), 4, s.rows[r].name + ": " + show(s.rows[r].losses.mean[i], "%.4f"));
        }
        p.path(curve, stroke(r), 1.3);
        ends.push_back(y.at(s.rows[r].losses.mean.back()));
    }
    end_labels(p, s, ends, x.at(s.at(s.rungs.size() - 1)), 0);
    return p;
}

static Picture differences_panel(const Scaling& s) {
    Picture p;
    p.title = "minus " + s.baseline + "'s, with 95% intervals (corrected)";
    Range range;
    include(range, 0);
    for (auto& row : s.rows)
        for (auto& d : row.differences)
            for (double sign : {-1.0, 1.0})
                include(range, &row == &s.rows[0]
                                   ? 0
                                   : d.seeds.mean + sign * (std::isnan(d.corrected_half) ? 0 : d.corrected_half));
    const Axis x = x_axis(s, 390), y{padded(range, 0.05, 0.02), false, p.height - 44, 30};
    p.axes(x, y, s.of_sizes ? "parameters without embeddings (the baseline's)" : "tokens");
    p.line({x.from, y.at(0)}, {x.to, y.at(0)}, "s0", 1, true);
    std::vector<double> ends;
    for (size_t r = 1; r < s.rows.size(); r++) {
        std::vector<Point> points;
        const double beside =
            6 * (double(r) - 0.5 * double(s.rows.size()));    // intervals of one size stand side by side
        for (size_t i = 0; i < s.rungs.size(); i++) {
            const Difference& d = s.rows[r].differences[i];
            const double at = x.at(s.at(i)) + beside;
            points.push_back({at, y.at(d.seeds.mean)});
            if (!std::isnan(d.corrected_half))
                p.line({at, y.at(d.seeds.mean - d.corrected_half)}, {at, y.at(d.seeds.mean + d.corrected_half)},
                       stroke(r), 1.3);
            p.marker(points.back(), 0, fill(r), 4, s.rows[r].name + ": " + show_signed(d.seeds.mean));
        }
        p.path(points, stroke(r), 1.3);
        ends.push_back(points.back().y);
    }
    end_labels(p, s, ends, x.at(s.at(s.rungs.size() - 1)) + 3 * double(s.rows.size()), 1);
    return p;
}

int main(int argc, char** argv) {
    return errors_in_one_line("scaling", [&]() -> int {
        ScalingOptions o;
        if (!parse(argc, argv, o)) return EXIT_DONE;
        Problems problems;
        const Scaling s = load_scaling(o.selection, o.far, problems);
        const std::string text = for_markdown(s, o.far, problems);
        printf("%s", text.c_str());
        if (o.out.empty()) return EXIT_DONE;
        std::filesystem::create_directories(o.out);
        file_replace(o.out + "/report.md", text);
        file_replace(o.out + "/report.json", for_json(s));
        file_replace(o.out + "/scaling.svg", svg_file(s.of_sizes ? "a ladder of sizes" : "budgets",
                                                      {losses_panel(s), differences_panel(s)}, 2));
        return EXIT_DONE;
    });
}
