// See ladder.h.
#include "tools/scaling/ladder.h"

#include <algorithm>
#include <cmath>

#include "runtime/run/error.h"
#include "runtime/run/files.h"

static constexpr double EQUAL = 0.03;    // sizes or tokens that differ by less are one size, one budget

static const Row* row_called(const Section& s, const std::string& name) {
    for (auto& row : s.rows)
        if (row.label == name && !finished_losses(row).empty()) return &row;
    return nullptr;
}
static bool all_equal(const std::vector<Rung>& rungs, double Rung::*field) {
    const auto [least, most] =
        std::minmax_element(rungs.begin(), rungs.end(), [&](auto& a, auto& b) { return a.*field < b.*field; });
    return (*most).*field <= (1 + EQUAL) * ((*least).*field);
}

// Per seed the slope of the differences to the baseline over log2 of size or tokens; only seeds of every rung count.
static std::vector<double> slopes(const std::vector<Section>& sections, const Scaling& s, const std::string& name) {
    std::vector<double> list;
    for (auto& run : row_called(sections[0], name)->runs) {
        std::vector<double> x, difference;
        for (size_t i = 0; i < sections.size(); i++) {
            const Run *a = run_of_seed(*row_called(sections[i], name), run.seed),
                      *b = run_of_seed(*row_called(sections[i], s.baseline), run.seed);
            if (!a || !b) break;
            x.push_back(s.at(i));
            difference.push_back(a->val_loss() - b->val_loss());
        }
        if (x.size() == sections.size()) list.push_back(slope_per_doubling(x, difference, 1).per_doubling);
    }
    return list;
}

static void add_laws(Scaling& s, double far) {
    std::vector<double> n;
    for (size_t i = 0; i < s.rungs.size(); i++) n.push_back(s.at(i));
    const std::vector<double> smaller(n.begin(), n.end() - 1);
    auto without_last = [](Ladder l) {
        l.mean.pop_back();
        l.seeds.pop_back();
        return l;
    };
    for (auto& row : s.rows) {
        row.law = fit_power_law(n, row.losses.mean);
        if (&row == &s.rows[0]) continue;
        row.far = predict_difference(n, s.rows[0].losses, row.losses, s.seed_sd, far, s.alpha);
        row.last = predict_difference(smaller, without_last(s.rows[0].losses), without_last(row.losses), s.seed_sd,
                                      n.back(), s.alpha);
    }
}

// One comparison: its section at equal layout and what it says of its size and tokens.
struct Read { Rung rung; Section section; };
static Read read_rung(const std::string& folder, const Selection& selection, Scaling& s, Problems& problems) {
    Comparison c = load_comparison({{folder}, selection.baseline, selection.alpha}, problems);
    std::erase_if(c.sections, [](const Section& section) { return section.matching != "layout"; });
    ensure(c.sections.size() == 1, "%s: %zu texts at equal layout in one folder; a ladder wants one", folder.c_str(),
           c.sections.size());
    s.alpha = c.alpha;
    s.baseline = c.baseline;
    const Row* base = row_called(c.sections[0], c.baseline);
    ensure(base, "%s: no finished run of the baseline %s", folder.c_str(), printable(c.baseline).c_str());
    const Run& run = *std::find_if(base->runs.begin(), base->runs.end(), [](auto& r) { return r.finished(); });
    const double size = row_mean(*base, &Run::parameters_non_embedding), tokens = run.val.tokens.back();
    ensure(size > 0 && tokens > 0, "%s: %s does not say how many parameters it has, or tokens it was trained on",
           folder.c_str(), run.name.c_str());
    return {{folder, size, tokens}, c.sections[0]};
}

// The rungs in order into s; their sections.
static std::vector<Section> read_rungs(const Selection& selection, Scaling& s, Problems& problems) {
    std::vector<Read> found;
    for (auto& folder : selection.folders) found.push_back(read_rung(folder, selection, s, problems));
    std::sort(found.begin(), found.end(), [](auto& a, auto& b) {
        return std::pair(a.rung.size, a.rung.tokens) < std::pair(b.rung.size, b.rung.tokens);
    });
    std::vector<Section> sections;
    for (auto& [rung, section] : found) {
        ensure(section.data == found[0].section.data, "%s: another text than in %s", rung.folder.c_str(),
               found[0].rung.folder.c_str());
        s.rungs.push_back(rung);
        sections.push_back(section);
    }
    s.of_sizes = !all_equal(s.rungs, &Rung::size);
    ensure(s.of_sizes || !all_equal(s.rungs, &Rung::tokens),
           "the comparisons have the same size and as many tokens: nothing to scale");
    return sections;
}

static LadderRow row_over(const std::vector<Section>& sections, const Scaling& s, const std::string& name) {
    LadderRow row;
    row.name = name;
    for (auto& section : sections) {
        const Row* found = row_called(section, name);
        const std::vector<double> losses = finished_losses(*found);
        row.losses.mean.push_back(mean(losses));
        row.losses.seeds.push_back(losses.size());
        row.sd.push_back(sample_sd(losses));
        row.differences.push_back(section.differences[size_t(found - section.rows.data())]);
    }
    if (name == s.baseline) return row;
    const std::vector<double> list = slopes(sections, s, name);
    row.slope = paired_difference(list, std::vector<double>(list.size(), 0.0));
    return row;
}

static double sd_between_seeds(const std::vector<Section>& sections, const Scaling& s) {
    std::vector<std::vector<double>> within;
    for (auto& row : s.rows)
        for (auto& section : sections) within.push_back(finished_losses(*row_called(section, row.name)));
    return pooled_sd(within);
}

static void correct_slopes(Scaling& s) {
    std::vector<double> p;
    for (size_t i = 1; i < s.rows.size(); i++) p.push_back(s.rows[i].slope.p);
    const Holm h = holm(p, s.alpha);
    for (size_t i = 1; i < s.rows.size(); i++)
        if (!std::isnan(p[i - 1])) s.rows[i].slope_half = half_width(s.rows[i].slope, h.level[i - 1]);
}

Scaling load_scaling(const Selection& selection, double far, Problems& problems) {
    ensure_usage(selection.folders.size() >= 2, "give two comparisons or more, one for each size or budget");
    Scaling s{};
    const std::vector<Section> sections = read_rungs(selection, s, problems);
    std::vector<std::string> names{s.baseline};
    for (auto& row : sections[0].rows)
        if (row.label != s.baseline) names.push_back(row.label);
    for (auto& name : names) {
        if (std::all_of(sections.begin(), sections.end(), [&](auto& section) { return row_called(section, name); }))
            s.rows.push_back(row_over(sections, s, name));
        else problems.push_back("Left out, since not every comparison has finished runs of it: " + name + ".");
    }
    ensure(s.rows.size() > 1, "no row but the baseline has finished runs in every comparison");
    correct_slopes(s);
    s.seed_sd = sd_between_seeds(sections, s);
    if (s.of_sizes) add_laws(s, far);
    return s;
}
