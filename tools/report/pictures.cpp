// See pictures.h.
#include "tools/report/pictures.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "tools/report/reading.h"
#include "tools/report/tables.h"
#include "tools/report/text.h"

static constexpr double FIRST_SHOWN = 0.05;         // curves start at 5% of the tokens: the first steps would flatten all the rest
static constexpr double DIFFERENCE_FROM = 0.25;     // the difference panel covers the last three quarters
static const char* MATCHINGS[] = {"layout", "params", "flops", "cache"};     // the last alone changes the cache: no line goes back

static int shape_of(const std::string& matching) {
    for (int i = 0; i < 4; i++)
        if (matching == MATCHINGS[i]) return i;
    return 0;
}

// ---- colours

static std::map<std::string, int> colours_of(const Comparison& c) {
    std::map<std::string, int> colours;
    for (auto& s : c.sections)
        for (auto& row : s.rows) colours[short_name(s, row)] = row.label == c.baseline || row.attn == c.baseline ? 0 : 1;
    int next = 0;
    for (auto& [name, colour] : colours)
        if (colour) colour = 1 + next++ % (COLOURS - 1);
    return colours;
}
static std::string stroke(int colour) { return format("s%d", colour); }
static std::string fill(int colour) { return format("f%d", colour); }

// ---- curves

Series over_seeds(const std::vector<Curve>& curves) {
    std::map<double, std::vector<double>> values;
    for (auto& c : curves)
        for (size_t i = 0; i < c.tokens.size(); i++) values[c.tokens[i]].push_back(c.loss[i]);
    Series out;
    for (auto& [tokens, v] : values)
        if (tokens > 0 && v.size() == curves.size())
            out[tokens] = {mean(v), *std::min_element(v.begin(), v.end()), *std::max_element(v.begin(), v.end())};
    return out;
}

Curve curve_difference(const Curve& a, const Curve& b) {
    std::map<double, double> at;
    for (size_t i = 0; i < b.tokens.size(); i++) at[b.tokens[i]] = b.loss[i];
    Curve d;
    for (size_t i = 0; i < a.tokens.size(); i++)
        if (auto it = at.find(a.tokens[i]); it != at.end()) {
            d.tokens.push_back(a.tokens[i]);
            d.loss.push_back(a.loss[i] - it->second);
        }
    return d;
}

struct Drawn { std::string name; int colour; Series series; };

static double margin_for(const std::vector<Drawn>& rows, const char* sample) {
    size_t longest = 0;
    for (auto& r : rows) longest = std::max(longest, display_width(r.name));
    return std::min(230.0, 26 + 6.8 * double(longest + std::string(sample).size()));
}

// Lines over tokens, names and last values at their right ends; shaded from the lowest to the highest seed.
static Picture curve_panel(const std::string& title, const std::vector<Drawn>& rows, Range x_range, bool log_x, bool difference,
                           double least, const char* x_name = "tokens") {
    Picture p;
    p.title = title;
    p.width = 380 + margin_for(rows, "+0.000");
    Range y_range;
    for (auto& r : rows)
        for (auto& [tokens, v] : r.series)
            if (tokens >= x_range.low) {
                include(y_range, v.low);
                include(y_range, v.high);
            }
    Axis x{x_range, log_x, 52, 370}, y{padded(y_range, 0.05, least), false, p.height - 44, 30};
    p.axes(x, y, x_name);
    std::vector<double> ends;
    for (auto& r : rows)
        if (!r.series.empty()) ends.push_back(y.at(r.series.rbegin()->second.mean));
    std::vector<double> at = spread_labels(ends, 15, y.to + 6, y.from - 4);
    size_t k = 0;
    for (auto& r : rows) {
        if (r.series.empty()) continue;
        std::vector<Point> line, high, low;
        for (auto& [tokens, v] : r.series) {
            if (tokens < x_range.low) continue;
            line.push_back({x.at(tokens), y.at(v.mean)});
            high.push_back({x.at(tokens), y.at(v.high)});
            low.push_back({x.at(tokens), y.at(v.low)});
        }
        std::reverse(low.begin(), low.end());
        high.insert(high.end(), low.begin(), low.end());
        p.area(high, fill(r.colour), 0.15);
        p.path(line, stroke(r.colour));
        double last = r.series.rbegin()->second.mean, end = x.at(r.series.rbegin()->first);
        p.line({end, ends[k]}, {378, at[k]}, stroke(r.colour));
        std::string value = !difference ? format(" %.3f", last) : last == 0 ? "" : " " + show_signed(last, 3);
        p.text({381, at[k] + 4}, r.name + value, fill(r.colour));
        k++;
    }
    return p;
}

static void draw_curves(const Section& s, const std::string& pos, const std::string& head, const std::map<std::string, int>& colours,
                        Gallery& g) {
    std::vector<Drawn> train, val, difference;
    double end = 0;
    for (auto& row : s.rows) {
        if (row.pos != pos) continue;
        std::vector<Curve> t, v, d;
        const Row* base = base_of(s, row);
        const bool ended = !finished_losses(row).empty();            // a run in progress would cut the others' mean short
        for (auto& run : row.runs) {
            if (ended && !run.finished()) continue;
            if (!run.train.loss.empty()) t.push_back(run.train);
            if (!run.val.loss.empty()) v.push_back(run.val);
            if (!run.val.tokens.empty()) end = std::max(end, run.val.tokens.back());
            if (!run.train.tokens.empty()) end = std::max(end, run.train.tokens.back());
            for (auto& other : base ? base->runs : std::vector<Run>{})
                if (other.seed == run.seed && !run.val.loss.empty() && !other.val.loss.empty()) {
                    d.push_back(curve_difference(run.val, other.val));
                    break;
                }
        }
        std::string name = short_name(s, row);
        int colour = colours.at(name);
        train.push_back({name, colour, over_seeds(t)});
        val.push_back({name, colour, over_seeds(v)});
        if (!d.empty()) difference.push_back({name, colour, over_seeds(d)});
    }
    if (end <= 0) return;
    Range shown{FIRST_SHOWN * end, end}, later{DIFFERENCE_FROM * end, end};
    g.curves.push_back(curve_panel(head + "validation loss (nats)", val, shown, true, false, 0.01));
    if (difference.size() > 1)
        g.curves.push_back(curve_panel(head + "validation loss minus the baseline's", difference, later, false, true, 0.02));
    g.curves.push_back(curve_panel(head + "training loss, smoothed (nats)", train, shown, true, false, 0.01));
}

// ---- loss against cache

// Labels of a scatter: right of the point, left, above or below it, wherever they cover least of what is there already.
struct Box { double x0, y0, x1, y1; };
static double overlap(const Box& a, const Box& b) {
    return std::max(0.0, std::min(a.x1, b.x1) - std::max(a.x0, b.x0)) * std::max(0.0, std::min(a.y1, b.y1) - std::max(a.y0, b.y0));
}
static void place_label(Picture& p, std::vector<Box>& taken, Point at, const std::string& s, const std::string& classes, Box frame) {
    double w = 6.8 * double(display_width(s)), best_cost = 1e300;
    Box best{};
    for (Point o :
         {Point{9, 4}, {-9 - w, 4}, {-w / 2, -10}, {-w / 2, 20}, {9, -9}, {9, 17}, {-9 - w, -9}, {-9 - w, 17}, {9, -22}, {9, 30}}) {
        Box b{at.x + o.x, at.y + o.y - 11, at.x + o.x + w, at.y + o.y + 3};
        double cost = 0.01 * std::hypot(o.x, o.y);
        for (auto& t : taken) cost += overlap(b, t);
        cost += 20 * (std::max(0.0, frame.x0 - b.x0) + std::max(0.0, b.x1 - frame.x1) + std::max(0.0, frame.y0 - b.y0) +
                      std::max(0.0, b.y1 - frame.y1));
        if (cost >= best_cost) continue;
        best_cost = cost;
        best = b;
    }
    taken.push_back(best);
    p.text({best.x0, best.y1 - 3}, s, classes);
}

struct Mark { std::string name; int colour, shape; double cache, loss, half; std::string tip; };

// marks: by shape.
static Picture cache_panel(const std::string& title, const std::vector<Mark>& marks, const std::string& precision, double base_loss) {
    Picture p;
    p.title = title;
    p.width = 470;
    p.height = 370;
    Range x_range, y_range;
    std::set<int> shapes;
    for (auto& m : marks) {
        include(x_range, m.cache);
        include(y_range, m.loss - (std::isnan(m.half) ? 0 : m.half));
        include(y_range, m.loss + (std::isnan(m.half) ? 0 : m.half));
        shapes.insert(m.shape);
    }
    double foot = shapes.size() > 1 ? 64 : 46;
    Axis x{{x_range.low / 1.3, x_range.high * 1.45}, true, 52, p.width - 10}, y{padded(y_range, 0.08, 0.02), false, p.height - foot, 30};
    p.axes(x, y,
           "cache, bytes per token, all layers" + (precision.empty() ? "" : " (" + precision + ")") + "; left is smaller, low is better",
           true);
    if (!std::isnan(base_loss)) p.line({x.from, y.at(base_loss)}, {x.to, y.at(base_loss)}, "s0", 1, true);
    std::vector<double> shift(marks.size(), 0.0);          // marks of the same cache stand side by side
    for (size_t i = 0; i < marks.size(); i++) {
        int before = 0, all = 0;
        for (size_t j = 0; j < marks.size(); j++)
            if (std::abs(x.at(marks[i].cache) - x.at(marks[j].cache)) < 3) {
                all++;
                before += j < i;
            }
        shift[i] = std::min(9.0, 70.0 / all) * (before - 0.5 * (all - 1));
    }
    auto at_of = [&](size_t i) { return Point{x.at(marks[i].cache) + shift[i], y.at(marks[i].loss)}; };
    for (size_t i = 0; i < marks.size(); i++) {            // one variant's marks under the several ways of being equal
        size_t next = i + 1;
        while (next < marks.size() && marks[next].name != marks[i].name) next++;
        if (next < marks.size()) p.line(at_of(i), at_of(next), stroke(marks[i].colour), 0.7);
    }
    std::vector<Box> taken;
    for (size_t i = 0; i < marks.size(); i++) {
        const Mark& m = marks[i];
        const Point at = at_of(i);
        taken.push_back({at.x - 6, at.y - 6, at.x + 6, at.y + 6});
        if (std::isnan(m.half)) continue;
        double top = y.at(m.loss + m.half), bottom = y.at(m.loss - m.half);
        p.line({at.x, top}, {at.x, bottom}, stroke(m.colour), 1.3);
        for (double end : {top, bottom}) p.line({at.x - 3, end}, {at.x + 3, end}, stroke(m.colour), 1.3);
        taken.push_back({at.x - 2, top, at.x + 2, bottom});
    }
    for (size_t i = 0; i < marks.size(); i++) p.marker(at_of(i), marks[i].shape, fill(marks[i].colour), 5, marks[i].tip);
    for (size_t i = 0; i < marks.size(); i++)
        if (marks[i].shape == *shapes.begin())
            place_label(p, taken, at_of(i), marks[i].name, fill(marks[i].colour), {x.from, y.to, x.to, y.from});
    if (shapes.size() > 1) {
        double left = x.from;
        for (int shape : shapes) {
            std::string name = std::string("same ") + MATCHINGS[shape];
            p.marker({left + 6, p.height - 8}, shape, "quiet", 4);
            p.text({left + 16, p.height - 4}, name, "quiet", "start", 11);
            left += 34 + 6.2 * double(name.size());
        }
    }
    return p;
}

static void draw_cache(const Comparison& c, const std::string& data, const std::string& pos, const std::string& head,
                       const std::map<std::string, int>& colours, Gallery& g) {
    std::vector<Mark> marks;
    std::string precision;
    double base_loss = NOT_MEASURED;
    for (auto& s : c.sections) {
        if (s.data != data) continue;
        precision = precision_of(s);
        for (size_t i = 0; i < s.rows.size(); i++) {
            const Row& row = s.rows[i];
            double cache = row_mean(row, &Run::cache_bytes_per_token), loss = row_loss(row);
            bool is_base = row.base == int(i);
            if (row.pos != pos || !(cache > 0) || std::isnan(loss)) continue;
            if (is_base && std::isnan(base_loss)) base_loss = loss;
            else if (is_base && s.matching != "layout" && loss == base_loss) continue;       // the layout's own, shown once
            const Difference& d = s.differences[i];
            std::string name = short_name(s, row),
                        tip = name + " (same " + s.matching + "): loss " + show(loss, "%.4f") + format(", cache %.0f bytes", cache);
            if (!is_base)
                tip += ", " + show_signed(d.seeds.mean) + " " + show_interval(d.seeds.mean, d.corrected_half) + ", " + verdict_words(d);
            marks.push_back({name, colours.at(name), shape_of(s.matching), cache, loss, d.corrected_half, tip});
        }
    }
    std::stable_sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) { return a.shape < b.shape; });
    if (!marks.empty()) g.cache.push_back(cache_panel(head + "validation loss (nats) against cache", marks, precision, base_loss));
}

// ---- differences with their intervals

static void draw_forest(const Section& s, const Comparison& c, const std::string& head, const std::map<std::string, int>& colours,
                        Gallery& g) {
    std::vector<size_t> order;
    Range range;
    include(range, 0);
    size_t longest = 8;
    bool many = std::any_of(s.rows.begin(), s.rows.end(), [&](const Row& r) { return r.pos != s.rows[0].pos; });
    auto name_of = [&](const Row& row) { return short_name(s, row) + (many ? ", " + row.pos : ""); };
    for (size_t i = 0; i < s.rows.size(); i++) {
        const Difference& d = s.differences[i];
        if (d.seeds.n == 0) continue;
        order.push_back(i);
        longest = std::max(longest, display_width(name_of(s.rows[i])));
        for (double half : {0.0, d.corrected_half})
            for (double sign : {-1.0, 1.0})
                if (!std::isnan(half)) include(range, d.seeds.mean + sign * half);
        if (!std::isnan(d.text.half_width)) {
            include(range, d.text.mean - d.text.half_width);
            include(range, d.text.mean + d.text.half_width);
        }
    }
    if (order.empty()) return;
    Picture p;
    p.title = head + "validation loss minus " + c.baseline + "'s (nats)";
    const double left = std::min(220.0, 16 + 6.8 * double(longest)), row_height = 34;
    p.width = left + 230 + 170;
    p.height = 40 + row_height * double(order.size()) + 62;
    const double bottom = 36 + row_height * double(order.size());
    Axis x{padded(range, 0.06, 0.01), false, left, left + 230};
    p.text({4, 16}, p.title, "ink", "start", 13);
    for (auto& t : ticks(x)) {
        p.line({x.at(t.value), 30}, {x.at(t.value), bottom}, "grid");
        p.text({x.at(t.value), bottom + 16}, t.label, "quiet", "middle", 11);
    }
    p.line({x.at(0), 26}, {x.at(0), bottom}, "s0", 1.5, true);
    for (size_t k = 0; k < order.size(); k++) {
        const Row& row = s.rows[order[k]];
        const Difference& d = s.differences[order[k]];
        const double y = 36 + row_height * (double(k) + 0.5);
        int colour = colours.at(short_name(s, row));
        auto bar = [&](double middle, double half, double at, double width) {
            if (!std::isnan(half)) p.line({x.at(middle - half), at}, {x.at(middle + half), at}, stroke(colour), width);
        };
        bar(d.seeds.mean, d.corrected_half, y, 1.2);
        bar(d.seeds.mean, d.half, y, 4);
        if (!std::isnan(d.text.half_width)) {
            bar(d.text.mean, d.text.half_width, y + 10, 1.2);
            for (double sign : {-1.0, 1.0}) {
                double end = x.at(d.text.mean + sign * d.text.half_width);
                p.line({end, y + 7}, {end, y + 13}, stroke(colour), 1.2);
            }
        }
        p.marker({x.at(d.seeds.mean), y}, shape_of(s.matching), fill(colour), 5,
                 row.name() + ": " + show_signed(d.seeds.mean) + ", over seeds " + show_interval(d.seeds.mean, d.half) + ", over text " +
                     show_interval(d.text.mean, d.text.half_width));
        p.text({left - 10, y + 4}, name_of(row), fill(colour), "end");
        p.text({left + 240, y + 4}, show_signed(d.seeds.mean) + "  " + verdict_words(d), "ink", "start", 12);
    }
    p.text({4, bottom + 36},
           s.tests ? format("thick: %.3g%% over seeds; thin: corrected for %zu comparison%s", 100 * (1 - c.alpha), s.tests,
                            s.tests == 1 ? "" : "s")
                   : std::string("no bars over seeds yet: one seed"),
           "quiet", "start", 11);
    p.text({4, bottom + 52}, "bracket below: 95% over validation text", "quiet", "start", 11);
    g.differences.push_back(p);
}

// ---- loss against learning rate

static void draw_rates(const Comparison& c, const std::map<std::string, int>& colours, Gallery& g) {
    std::map<std::string, std::map<std::string, std::map<double, std::vector<double>>>> by_pos;     // pos, row, rate -> losses
    for (auto& run : c.tune) {
        double rate = number_at(run.options, "lr");
        if (rate > 0 && run.finished()) by_pos[run.pos][run.row.empty() ? run.attn : run.row][rate].push_back(run.val_loss());
    }
    for (auto& [pos, rows] : by_pos) {
        Picture p;
        p.title = (by_pos.size() > 1 ? pos + ": " : "") + "loss against learning rate (tuning runs)";
        Range x_range, y_range;
        size_t longest = 4;
        double lowest = 1e300;
        for (auto& [name, rates] : rows) {
            longest = std::max(longest, display_width(name));
            for (auto& [rate, losses] : rates) {
                include(x_range, rate);
                lowest = std::min(lowest, mean(losses));
            }
        }
        for (auto& [name, rates] : rows)
            for (auto& [rate, losses] : rates)
                include(y_range, std::min(mean(losses), lowest + 0.6));    // a run that diverged would flatten all the rest
        p.width = 380 + std::min(230.0, 26 + 6.8 * double(longest));
        Axis x{{x_range.low / 1.1, x_range.high * 1.1}, true, 52, 370}, y{padded(y_range, 0.06, 0.02), false, p.height - 44, 30};
        p.axes(x, y, "learning rate; ring: chosen");
        std::vector<double> ends;
        for (auto& [name, rates] : rows) ends.push_back(y.at(std::min(mean(rates.rbegin()->second), y.range.high)));
        std::vector<double> at = spread_labels(ends, 15, y.to + 6, y.from - 4);
        struct Ring { std::string name; int colour; double rate; std::vector<Point> line; };
        std::vector<Ring> rings;
        size_t k = 0;
        for (auto& [name, rates] : rows) {
            auto found = colours.find(name);
            int colour = found != colours.end() ? found->second : 1 + int(k) % (COLOURS - 1);
            std::vector<Point> line;
            for (auto& [rate, losses] : rates) line.push_back({x.at(rate), y.at(std::min(mean(losses), y.range.high))});
            p.path(line, stroke(colour), 1.5);
            size_t i = 0;
            for (auto& [rate, losses] : rates)
                p.marker(line[i++], 0, fill(colour), 3.5, name + format(", rate %g: loss %.4f", rate, mean(losses)));
            if (auto chosen = c.rates.find(name); chosen != c.rates.end()) rings.push_back({name, colour, chosen->second, line});
            p.line(line.back(), {378, at[k]}, stroke(colour), 0.7);
            p.text({381, at[k] + 4}, name, fill(colour));
            k++;
        }
        for (auto& ring : rings) {                     // on the line, between its neighbours; above all lines
            const double at_x = x.at(ring.rate);
            for (size_t i = 1; i < ring.line.size(); i++) {
                const Point &left = ring.line[i - 1], &right = ring.line[i];
                if (at_x < left.x - 0.01 || at_x > right.x + 0.01) continue;
                double at_y = left.y + (right.y - left.y) * (at_x - left.x) / (right.x - left.x);
                p.marker({at_x, at_y}, 0, stroke(ring.colour) + " hollow", 4.5, ring.name + format(": chosen %g", ring.rate));
                break;
            }
        }
        g.rates.push_back(p);
    }
}

// ---- loss by position in the context

static void draw_positions(const Section& s, const std::string& pos, const std::string& head, const std::map<std::string, int>& colours,
                           Gallery& g) {
    std::vector<Drawn> losses, differences;
    double last = 0;
    for (auto& row : s.rows) {
        if (row.pos != pos) continue;
        std::vector<Curve> own, paired;
        const Row* base = base_of(s, row);
        for (auto& run : row.runs) {
            if (run.positions.empty()) continue;
            Curve c;
            for (size_t t = 0; t < run.positions.size(); t++) {
                c.tokens.push_back(double(t + 1));
                c.loss.push_back(run.positions[t]);
            }
            last = std::max(last, double(run.positions.size()));
            own.push_back(thinned(c, 24));
            const Run* other = base ? run_of_seed(*base, run.seed) : nullptr;
            if (!other || other->positions.size() != run.positions.size()) continue;
            for (size_t t = 0; t < c.loss.size(); t++) c.loss[t] -= other->positions[t];
            paired.push_back(thinned(c, 24));
        }
        std::string name = short_name(s, row);
        if (!own.empty()) losses.push_back({name, colours.at(name), over_seeds(own)});
        if (!paired.empty()) differences.push_back({name, colours.at(name), over_seeds(paired)});
    }
    if (last < 2) return;
    auto panel = [&](const std::string& title, const std::vector<Drawn>& rows, bool difference) {
        g.positions.push_back(curve_panel(head + title, rows, {1, last}, true, difference, 0.02, "position in the context"));
    };
    panel("loss by position (nats)", losses, false);
    if (differences.size() > 1) panel("loss by position minus the baseline's", differences, true);
}

Gallery draw(const Comparison& c) {
    Gallery g;
    const std::map<std::string, int> colours = colours_of(c);
    std::set<std::string> data_done;
    for (auto& s : c.sections) {
        std::set<std::string> positions;
        for (auto& row : s.rows) positions.insert(row.pos);
        std::string where = c.different_data.size() > 1 ? text_at(s.rows[0].runs[0].options, "data") + ", " : "";
        std::string how = s.matching == "layout" ? "" : "same " + s.matching + ", ";
        draw_forest(s, c, where + (s.matching == "layout" && c.sections.size() > 1 ? "same layout, " : how), colours, g);
        for (auto& pos : positions) {
            std::string head = where + how + (positions.size() > 1 ? pos + ": " : "");
            if (data_done.insert(s.data + "\n" + pos).second)
                draw_cache(c, s.data, pos, where + (positions.size() > 1 ? pos + ": " : ""), colours, g);
            draw_curves(s, pos, head, colours, g);
            draw_positions(s, pos, head, colours, g);
        }
    }
    draw_rates(c, colours, g);
    return g;
}
