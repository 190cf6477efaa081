// The picture: writes loss.gp (a gnuplot script to tweak) and plot/*.tsv beside it, then runs gnuplot -> loss.svg and loss.png.
// One row of panels per position: training loss | validation loss | validation loss minus the baseline's, of the later part,
// where differences of 0.01 nats can be seen. Colours: Okabe & Ito (2008), told apart by colour-blind readers; the names stand
// at the curves' ends, so colour is not the only key.
#pragma once
#include <cstdlib>
#include <sys/wait.h>
#include "tools/report/report_text.h"

inline constexpr int PANEL_WIDTH = 1500, PANEL_HEIGHT = 450, TITLE_HEIGHT = 74;
inline constexpr double FIRST_SHOWN = 0.05;         // curves start at 5% of the tokens: the first steps would flatten all the rest
inline constexpr double DIFFERENCE_FROM = 0.25;     // the difference panel covers the last three quarters
inline constexpr size_t MAX_POINTS = 600;

struct Sample { double mean, low, high; };
using Series = std::map<double, Sample>;            // tokens -> over the seeds

// At each number of tokens that every run has: mean, lowest, highest.
inline Series over_seeds(const std::vector<Curve>& curves) {
    std::map<double, std::vector<double>> values;
    for (auto& c : curves)
        for (size_t i = 0; i < c.tokens.size(); i++) values[c.tokens[i]].push_back(c.loss[i]);
    Series out;
    for (auto& [tokens, v] : values)
        if (tokens > 0 && v.size() == curves.size()) out[tokens] = {mean(v), *std::min_element(v.begin(), v.end()), *std::max_element(v.begin(), v.end())};
    return out;
}

inline Curve curve_difference(const Curve& a, const Curve& b) {
    std::map<double, double> at;
    for (size_t i = 0; i < b.tokens.size(); i++) at[b.tokens[i]] = b.loss[i];
    Curve d;
    for (size_t i = 0; i < a.tokens.size(); i++)
        if (auto it = at.find(a.tokens[i]); it != at.end()) d.tokens.push_back(a.tokens[i]), d.loss.push_back(a.loss[i] - it->second);
    return d;
}

struct PlotRow {
    std::string name, colour;
    Series train, val, difference;
};

inline std::vector<PlotRow> plot_rows(const std::vector<const Row*>& rows, const Row* base, const std::map<std::string, std::string>& colours) {
    std::vector<PlotRow> out;
    for (const Row* row : rows) {
        std::vector<Curve> train, val, difference;
        for (auto& run : row->runs) {
            if (!run.train.loss.empty()) train.push_back({run.train.tokens, smooth(run.train.loss, std::max<size_t>(1, run.train.loss.size() / 40))});
            if (!run.val.loss.empty()) val.push_back(run.val);
            for (auto& other : base ? base->runs : std::vector<Run>{})
                if (other.seed == run.seed && !run.val.loss.empty()) { difference.push_back(curve_difference(run.val, other.val)); break; }
        }
        out.push_back({row->attn, colours.at(row->attn), over_seeds(train), over_seeds(val), over_seeds(difference)});
    }
    return out;
}

// Thinned so that points are evenly spaced on a logarithmic axis; the last point is always kept.
inline void write_series(const std::string& path, const Series& series) {
    std::ofstream file(path);
    file << "# tokens\tmean\tlowest\thighest (over the seeds)\n";
    double last = 0, ratio = series.empty() ? 1 : std::pow(series.rbegin()->first / series.begin()->first, 1.0 / double(MAX_POINTS));
    for (auto& [tokens, s] : series)
        if (last == 0 || tokens >= last * ratio || tokens == series.rbegin()->first) {
            file << format("%.0f\t%.6f\t%.6f\t%.6f\n", tokens, s.mean, s.low, s.high);
            last = tokens;
        }
    file.close();
    ensure(file.good(), "%s: can not write it (disk full, or no permission)", path.c_str());
}

// Okabe & Ito's palette without its yellow (too pale on white), two darker ones added. Black is the baseline's.
inline std::map<std::string, std::string> variant_colours(const std::vector<Row>& rows, const std::string& baseline) {
    static const char* palette[] = {"#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#8C510A", "#666666"};
    std::map<std::string, std::string> colours;
    for (auto& row : rows) colours[row.attn];
    size_t next = 0;
    for (auto& [name, colour] : colours) colour = name == baseline ? "#000000" : palette[next++ % std::size(palette)];
    return colours;
}

// Names go into file names and gnuplot strings: anything unusual becomes '_'.
inline std::string plain_name(std::string s) {
    for (char& c : s)
        if (!isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.') c = '_';
    return s;
}

struct Range { double low = 1e300, high = -1e300; };
inline void include(Range& r, double v) { r.low = std::min(r.low, v), r.high = std::max(r.high, v); }
inline Range padded(Range r, double share) {
    if (r.low > r.high) return {0, 1};
    double pad = std::max(share * (r.high - r.low), 1e-3);
    return {r.low - pad, r.high + pad};
}
inline void include_series(Range& r, const Series& series, double from) {
    for (auto& [tokens, s] : series)
        if (tokens >= from) include(r, s.low), include(r, s.high);
}

// One panel: `column` of the row's data, labels at the right end of the curves where `label` is a format.
struct Panel { std::string title, note, files; const Series PlotRow::*series; Range x, y; const char* label; double left, right; bool log_x, band; };

// "1M" 1000000, ...: a logarithmic axis often covers little more than a decade, so its ticks are at 1, 2, 5; a linear one has 3 to 6.
inline std::string ticks(Range x, bool log_x) {
    std::vector<double> at;
    if (log_x) {
        for (double decade = 1; decade <= x.high; decade *= 10)
            for (double m : {1.0, 2.0, 5.0}) at.push_back(m * decade);
    } else {
        double decade = std::pow(10, std::floor(std::log10(x.high - x.low))), steps = (x.high - x.low) / decade;
        double step = decade * (steps < 1.5 ? 0.25 : steps < 3 ? 0.5 : steps < 6 ? 1 : 2);
        for (double t = 0; t <= x.high; t += step) at.push_back(t);
    }
    std::vector<std::string> list;
    for (double t : at) {
        double unit = t >= 1e9 ? 1e9 : t >= 1e6 ? 1e6 : t >= 1e3 ? 1e3 : 1;
        if (t >= x.low && t <= x.high) list.push_back(format("\"%g%s\" %.0f", t / unit, unit == 1e9 ? "G" : unit == 1e6 ? "M" : unit == 1e3 ? "k" : "", t));
    }
    return join(list, ", ");
}

inline std::string panel_script(const Panel& p, const std::vector<PlotRow>& rows, double top, double bottom) {
    std::string s = format("set lmargin at screen %.4f; set rmargin at screen %.4f; set tmargin at screen %.4f; set bmargin at screen %.4f\n",
                           p.left, p.right, top, bottom);
    s += "set title \"" + p.title + "\"\n" + (p.log_x ? "set logscale x 10\n" : "unset logscale x\n");
    s += format("set xrange [%.6g:%.6g]\nset yrange [%.6g:%.6g]\nunset label\nunset object\nunset arrow\n", p.x.low, p.x.high, p.y.low, p.y.high);
    s += "set xtics (" + ticks(p.x, p.log_x) + ")\nset xlabel \"tokens" + p.note + "\" offset 0,0.3\n";
    if (p.band)
        s += format("set object rectangle from graph 0, first %.6f to graph 1, first %.6f fillcolor rgb \"#EEEEEE\" fillstyle solid noborder behind\n",
                    -ONE_SEED_LIMIT, ONE_SEED_LIMIT);
    std::vector<double> ends;
    for (auto& r : rows)
        if (const Series& series = r.*p.series; !series.empty()) ends.push_back(series.rbegin()->second.mean);
    double line = 17.0 / (PANEL_HEIGHT * 0.76) * (p.y.high - p.y.low);     // 17 pixels between labels
    std::vector<double> at = spread_labels(ends, line, p.y.low, p.y.high);
    std::string curves;
    size_t k = 0;
    for (auto& r : rows) {
        const Series& series = r.*p.series;
        if (series.empty()) continue;
        std::string file = "'plot/" + plain_name(r.name) + p.files + "'", colour = " linecolor rgb \"" + r.colour + "\"";
        bool spread = false;
        for (auto& [tokens, v] : series) spread |= v.high > v.low;
        auto add = [&](const char* style) { curves += (curves.empty() ? "plot " : ", \\\n     ") + file + style + colour + " notitle"; };
        if (spread) add(" using 1:3:4 with filledcurves fillstyle transparent solid 0.15 noborder");
        add(" using 1:2 with lines linewidth 2");
        if (p.label) {
            s += format("set arrow from graph 1, first %.6f to graph 1.03, first %.6f nohead linewidth 1%s\n", ends[k], at[k], colour.c_str());
            std::string value = ends[k] == 0 ? "" : format(p.label, ends[k]);        // the baseline's difference to itself
            s += "set label \"" + plain_name(r.name) + value + format("\" at graph 1.04, first %.6f left noenhanced textcolor rgb \"", at[k]) + r.colour + "\"\n";
        }
        k++;
    }
    return s + (curves.empty() ? "plot NaN notitle" : curves) + "\n\n";
}

inline std::string shell_quote(const std::string& s) {
    std::string q = "'";
    for (char c : s) c == '\'' ? q += "'\\''" : q += c;
    return q + "'";
}

// Writes the data and loss.gp into `folder`.
inline void write_plot(const std::string& folder, const std::string& title, const std::vector<Row>& rows, const std::string& baseline) {
    auto colours = variant_colours(rows, baseline);
    std::vector<std::string> positions;
    std::vector<std::vector<PlotRow>> groups;
    Range train_y, val_y, difference_y, x;
    std::filesystem::create_directories(folder + "/plot");
    for (size_t i = 0; i < rows.size();) {
        std::vector<const Row*> group;
        for (std::string pos = rows[i].pos; i < rows.size() && rows[i].pos == pos; i++) group.push_back(&rows[i]);
        positions.push_back(group[0]->pos);
        groups.push_back(plot_rows(group, find_row(rows, baseline, group[0]->pos), colours));
        for (auto& r : groups.back())
            for (auto* series : {&r.train, &r.val})
                if (!series->empty()) include(x, series->rbegin()->first);
    }
    ensure(x.high > 0, "no run has a loss to plot");
    double end = x.high;
    for (size_t g = 0; g < groups.size(); g++)
        for (auto& r : groups[g]) {
            std::string stem = folder + "/plot/" + plain_name(r.name) + "-" + plain_name(positions[g]);
            write_series(stem + ".train.tsv", r.train);
            write_series(stem + ".val.tsv", r.val);
            write_series(stem + ".difference.tsv", r.difference);
            include_series(train_y, r.train, FIRST_SHOWN * end);
            include_series(val_y, r.val, FIRST_SHOWN * end);
            include_series(difference_y, r.difference, DIFFERENCE_FROM * end);
        }
    bool one_seed = !several_seeds(rows), differences = difference_y.low <= difference_y.high;
    if (one_seed && differences) include(difference_y, 1.3 * ONE_SEED_LIMIT), include(difference_y, -1.3 * ONE_SEED_LIMIT);
    if (!differences)                                        // no baseline: the third panel shows the last part of the losses
        for (auto& group : groups)
            for (auto& r : group) include_series(difference_y, r.val, 0.5 * end);
    train_y = padded(train_y, 0.03), val_y = padded(val_y, 0.03), difference_y = padded(difference_y, 0.06);

    int height = TITLE_HEIGHT + PANEL_HEIGHT * int(groups.size());
    std::string s = "# Loss curves of the comparison; written by build/report. Change what you like, then run: gnuplot loss.gp\n";
    s += format("width = %d\nheight = %d\n", PANEL_WIDTH, height);
    s += "do for [kind in \"svg png\"] {\n"
         "if (kind eq \"svg\") { set terminal svg size width, height font \"Helvetica,14\" background \"white\" } \\\n"
         "else { set terminal pngcairo size width, height font \"Sans,11\" background \"white\" }\n"
         "set output \"loss.\" . kind\n"
         "set multiplot title \"" + plain_name(title) + (groups.size() == 1 ? ", positions: " + plain_name(positions[0]) : "") + "\" font \",15\" noenhanced\n"
         "set border 3 linecolor rgb \"#888888\"; set tics nomirror textcolor rgb \"#333333\"; set grid linecolor rgb \"#E6E6E6\" linetype 1\n"
         "set format y \"%g\"\nunset key\n\n";
    for (size_t g = 0; g < groups.size(); g++) {
        double top = 1 - (TITLE_HEIGHT + PANEL_HEIGHT * double(g) + 8) / height, bottom = top - PANEL_HEIGHT * 0.76 / height;
        std::string file = "-" + plain_name(positions[g]), pos = groups.size() > 1 ? plain_name(positions[g]) + ": " : "";
        Range later = {DIFFERENCE_FROM * end, end}, second_half = {0.5 * end, end}, shown = {FIRST_SHOWN * end, end};
        Panel train = {pos + "training loss, smoothed (nats)", "", file + ".train.tsv", &PlotRow::train, shown, train_y, nullptr, 0.04, 0.28, true, false};
        Panel val = {pos + "validation loss (nats)", "", file + ".val.tsv", &PlotRow::val, shown, val_y, "  %.3f", 0.335, 0.575, true, false};
        Panel zoom = {pos + "validation loss, second half", "", file + ".val.tsv", &PlotRow::val, second_half, difference_y, "  %.3f", 0.69, 0.91, false, false};
        if (differences) {
            std::string note = one_seed ? "   (grey: a change of seed alone, 95%)" : "   (shaded: lowest to highest seed)";
            zoom = {pos + "validation loss minus " + plain_name(baseline) + "'s", note, file + ".difference.tsv", &PlotRow::difference, later, difference_y,
                    "  %+.3f", 0.69, 0.91, false, one_seed};
        }
        for (const Panel& panel : {train, val, zoom}) s += panel_script(panel, groups[g], top, bottom);
    }
    s += "unset multiplot\nunset output\n}\n";
    std::ofstream file(folder + "/loss.gp");
    file << s;
    file.close();
    ensure(file.good(), "%s/loss.gp: can not write it (disk full, or no permission)", folder.c_str());
}

// Runs gnuplot in the folder. "" on success, else what to tell the user.
inline std::string run_gnuplot(const std::string& folder) {
    if (std::system("command -v gnuplot >/dev/null 2>&1") != 0)
        return "gnuplot is missing, so there is no picture. Install it (sudo apt-get install -y gnuplot-nox), then: cd " + folder + " && gnuplot loss.gp";
    int status = std::system(("cd " + shell_quote(folder) + " && gnuplot loss.gp").c_str());
    if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return "gnuplot failed (its message is above); the script is " + folder + "/loss.gp";
    return "";
}
