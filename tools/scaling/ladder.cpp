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

Scaling load_scaling(const Selection& selection, double far, Problems& problems) {
    ensure_usage(selection.folders.size() >= 2, "give two comparisons or more, one for each size or budget");
    Scaling s{};
    std::vector<Section> sections;
    std::vector<std::pair<Rung, Section>> found;
    for (auto& folder : selection.folders) {
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
        found.push_back({{folder, size, tokens}, c.sections[0]});
    }
    std::sort(found.begin(), found.end(), [](auto& a, auto& b) {
        return std::pair(a.first.size, a.first.tokens) < std::pair(b.first.size, b.first.tokens);
    });
    for (auto& [rung, section] : found) {
        ensure(section.data == found[0].second.data, "%s: another text than in %s", rung.folder.c_str(),
               found[0].first.folder.c_str());
        s.rungs.push_back(rung);
        sections.push_back(section);
    }
    s.of_sizes = !all_equal(s.rungs, &Rung::size);
    ensure(s.of_sizes || !all_equal(s.rungs, &Rung::tokens),
           "the comparisons have the same size and as many tokens: nothing to scale");

    std::vector<std::string> names{s.baseline};
    for (auto& row : sections[0].rows)
        if (row.label != s.baseline) names.push_back(row.label);
    std::vector<std::vector<double>> within;
    std::vector<double> p;
    for (auto& name : names) {
        if (!std::all_of(sections.begin(), sections.end(), [&](auto& section) { return row_called(section, name); })) {
            problems.push_back("Left out, since not every comparison has finished runs of it: " + name + ".");
            continue;
        }
        LadderRow row;
        row.name = name;
        for (auto& section : sections) {
            const Row* found_row = row_called(section, name);
            const std::vector<double> losses = finished_losses(*found_row);
            within.push_back(losses);
            row.losses.mean.push_back(mean(losses));
            row.losses.seeds.push_back(losses.size());
            row.sd.push_back(sample_sd(losses));
            row.differences.push_back(section.differences[size_t(found_row - section.rows.data())]);
        }
        if (name != s.baseline) {
            const std::vector<double> list = slopes(sections, s, name);
            row.slope = paired_difference(list, std::vector<double>(list.size(), 0.0));
            p.push_back(row.slope.p);
        }
        s.rows.push_back(std::move(row));
    }
    ensure(s.rows.size() > 1, "no row but the baseline has finished runs in every comparison");
    const Holm h = holm(p, s.alpha);
    for (size_t i = 1; i < s.rows.size(); i++)
        if (!std::isnan(p[i - 1])) s.rows[i].slope_half = half_width(s.rows[i].slope, h.level[i - 1]);
    s.seed_sd = pooled_sd(within);
    if (s.of_sizes) add_laws(s, far);
    return s;
}
