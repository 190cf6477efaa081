// See svg.h.
#include "tools/report/svg.h"

#include <algorithm>
#include <cmath>

#include "tools/report/stats.h"
#include "tools/report/text.h"

void include(Range& r, double v) {
    if (!std::isfinite(v)) return;
    r.low = std::min(r.low, v);
    r.high = std::max(r.high, v);
}
Range padded(Range r, double share, double least) {
    if (r.low > r.high) return {0, 1};
    double pad = std::max(share * (r.high - r.low), 0.5 * (least - (r.high - r.low)));
    return {r.low - std::max(pad, 0.0), r.high + std::max(pad, 0.0)};
}

double Axis::at(double v) const {
    double t = log ? std::log(v / range.low) / std::log(range.high / range.low) : (v - range.low) / (range.high - range.low);
    return from + t * (to - from);
}

std::string short_number(double v) {
    double unit = v >= 1e9 ? 1e9 : v >= 1e6 ? 1e6 : v >= 1e4 ? 1e3 : 1;
    return format("%g%s", v / unit, unit == 1e9 ? "G" : unit == 1e6 ? "M" : unit == 1e3 ? "k" : "");
}

std::vector<Tick> ticks(const Axis& a, bool powers_of_two) {
    std::vector<double> values;
    const Range& r = a.range;
    if (a.log && powers_of_two) {
        for (double v = std::exp2(std::ceil(std::log2(r.low) - 1e-9)); v <= r.high * (1 + 1e-9); v *= 2) values.push_back(v);
    } else if (a.log) {
        const bool narrow = r.high / r.low < 8;           // less than a decade: more of its numbers
        for (double decade = std::pow(10, std::floor(std::log10(r.low))); decade <= r.high; decade *= 10)
            for (double m : narrow ? std::vector<double>{1, 1.5, 2, 3, 4, 5, 7} : std::vector<double>{1, 2, 5})
                if (m * decade >= r.low * (1 - 1e-9) && m * decade <= r.high * (1 + 1e-9)) values.push_back(m * decade);
    } else {
        double decade = std::pow(10, std::floor(std::log10(r.high - r.low))), span = (r.high - r.low) / decade;
        double step = decade * (span < 1.5 ? 0.25 : span < 3 ? 0.5 : span < 7 ? 1 : 2);
        for (double k = std::ceil(r.low / step - 1e-9); k * step <= r.high + 1e-9 * step; k++) values.push_back(k * step);
    }
    std::vector<Tick> out;
    for (double v : values) out.push_back({v, short_number(std::abs(v) < 1e-12 * (r.high - r.low) ? 0 : v)});
    return out;
}

// ---- shapes

static std::string number(double v) {                  // two decimals of a pixel are enough
    std::string s = format("%.2f", v);
    while (s.back() == '0') s.pop_back();
    if (s.back() == '.') s.pop_back();
    return s == "-0" ? "0" : s;
}
static std::string joined(const std::vector<Point>& points) {
    std::string s;
    for (auto& p : points) s += (s.empty() ? "" : " ") + number(p.x) + "," + number(p.y);
    return s;
}

void Picture::line(Point a, Point b, const std::string& classes, double stroke, bool dashed) {
    body += "<line x1=\"" + number(a.x) + "\" y1=\"" + number(a.y) + "\" x2=\"" + number(b.x) + "\" y2=\"" + number(b.y) + "\" class=\"" +
            classes + "\" stroke-width=\"" + number(stroke) + (dashed ? "\" stroke-dasharray=\"4 3" : "") + "\"/>\n";
}
void Picture::path(const std::vector<Point>& points, const std::string& classes, double stroke) {
    if (points.size() > 1)
        body += "<polyline points=\"" + joined(points) + "\" fill=\"none\" class=\"" + classes + "\" stroke-width=\"" + number(stroke) +
                "\" stroke-linejoin=\"round\"/>\n";
}
void Picture::area(const std::vector<Point>& points, const std::string& classes, double opacity) {
    if (points.size() > 2)
        body += "<polygon points=\"" + joined(points) + "\" class=\"" + classes + "\" fill-opacity=\"" + number(opacity) + "\"/>\n";
}
void Picture::rectangle(Point a, Point b, const std::string& classes, double opacity) {
    body += "<rect x=\"" + number(std::min(a.x, b.x)) + "\" y=\"" + number(std::min(a.y, b.y)) + "\" width=\"" +
            number(std::abs(b.x - a.x)) + "\" height=\"" + number(std::abs(b.y - a.y)) + "\" class=\"" + classes + "\" fill-opacity=\"" +
            number(opacity) + "\"/>\n";
}
void Picture::text(Point at, const std::string& s, const std::string& classes, const char* anchor, double size) {
    body += "<text x=\"" + number(at.x) + "\" y=\"" + number(at.y) + "\" class=\"" + classes + "\" text-anchor=\"" + anchor +
            "\" font-size=\"" + number(size) + "\">" + escape_markup(s) + "</text>\n";
}
void Picture::marker(Point at, int shape, const std::string& classes, double r, const std::string& tip) {
    std::string title = tip.empty() ? "" : "<title>" + escape_markup(tip) + "</title>";
    if (shape == 0) {
        body += "<circle cx=\"" + number(at.x) + "\" cy=\"" + number(at.y) + "\" r=\"" + number(r) + "\" class=\"" + classes + "\">" +
                title + "</circle>\n";
        return;
    }
    double q = 0.9 * r;
    std::vector<Point> corners = {{at.x - q, at.y - q}, {at.x + q, at.y - q}, {at.x + q, at.y + q}, {at.x - q, at.y + q}};
    if (shape == 2) corners = {{at.x, at.y - 1.2 * r}, {at.x + 1.1 * r, at.y + 0.8 * r}, {at.x - 1.1 * r, at.y + 0.8 * r}};
    if (shape == 3) corners = {{at.x, at.y - 1.3 * r}, {at.x + 1.3 * r, at.y}, {at.x, at.y + 1.3 * r}, {at.x - 1.3 * r, at.y}};
    body += "<polygon points=\"" + joined(corners) + "\" class=\"" + classes + "\">" + title + "</polygon>\n";
}

void Picture::axes(const Axis& x, const Axis& y, const std::string& x_name, bool powers_of_two) {
    for (auto& t : ticks(y)) {
        line({x.from, y.at(t.value)}, {x.to, y.at(t.value)}, "grid");
        text({x.from - 6, y.at(t.value) + 4}, t.label, "quiet", "end", 11);
    }
    double last = -1e9;
    for (auto& t : ticks(x, powers_of_two)) {
        double at = x.at(t.value);
        line({at, y.from}, {at, y.from + 4}, "axis");
        if (at - last < 8 * double(t.label.size())) continue;          // labels would run into each other
        text({at, y.from + 17}, t.label, "quiet", "middle", 11);
        last = at;
    }
    line({x.from, y.from}, {x.to, y.from}, "axis");
    line({x.from, y.from}, {x.from, y.to}, "axis");
    text({0.5 * (x.from + x.to), y.from + 34}, x_name, "quiet", "middle", 11);
    text({4, 16}, title, "ink", "start", 13);
}

// Neighbours that are too near form a block around their common centre; blocks that touch merge.
std::vector<double> spread_labels(const std::vector<double>& wanted, double gap, double low, double high) {
    struct Block { double sum; size_t n; double start; };      // sum of (wanted - offset within the block)
    std::vector<size_t> order = ascending_order(wanted);
    std::vector<Block> blocks;
    auto place = [&](Block& b) {
        double length = gap * double(b.n - 1);
        b.start = std::clamp(b.sum / double(b.n), low, std::max(low, high - length));
    };
    for (size_t i : order) {
        blocks.push_back({wanted[i], 1, 0});
        place(blocks.back());
        while (blocks.size() > 1) {
            Block &before = blocks[blocks.size() - 2], &last = blocks.back();
            if (last.start - (before.start + gap * double(before.n - 1)) >= gap) break;
            before.sum += last.sum - gap * double(before.n) * double(last.n);
            before.n += last.n;
            blocks.pop_back();
            place(blocks.back());
        }
    }
    std::vector<double> out(wanted.size());
    size_t k = 0;
    for (Block& b : blocks)
        for (size_t i = 0; i < b.n; i++) out[order[k++]] = b.start + gap * double(i);
    return out;
}

// ---- whole drawings

std::string colour_rules(bool dark) {
    static const char* light_colours[COLOURS] = {"#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7",
                                                 "#E69F00", "#56B4E9", "#8C510A", "#666666"};
    static const char* dark_colours[COLOURS] = {"#FFFFFF", "#FF8A3D", "#5AB4F0", "#2FD0A0", "#F0A5CC",
                                                "#F5C04A", "#8FD3FF", "#D9A066", "#AAAAAA"};
    std::string s;
    for (int i = 0; i < COLOURS; i++) {
        const char* c = dark ? dark_colours[i] : light_colours[i];
        s += format(".s%d{stroke:%s}.f%d{fill:%s}\n", i, c, i, c);
    }
    return s + (dark ? ".ink{fill:#EEE}.quiet{fill:#AAA}.grid{stroke:#3A3A3A}.axis{stroke:#888}.shade{fill:#333}.hollow{fill:#161616}\n"
                     : ".ink{fill:#222}.quiet{fill:#555}.grid{stroke:#E6E6E6}.axis{stroke:#888}.shade{fill:#EEE}.hollow{fill:#FFF}\n");
}

std::string inline_svg(const Picture& p) {
    return format("<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", p.width, p.height) + escape_markup(p.title) +
           "\" style=\"max-width:" + format("%.0fpx\">\n", 1.25 * p.width) + p.body + "</svg>\n";
}

std::string svg_file(const std::string& title, const std::vector<Picture>& pictures, size_t columns) {
    constexpr double HEAD = 30, GAP = 12;
    double width = 0, height = HEAD, row_height = 0, x = GAP;
    std::string placed;
    for (size_t i = 0; i < pictures.size(); i++) {
        const Picture& p = pictures[i];
        if (i && i % columns == 0) {
            height += row_height + GAP;
            row_height = 0;
            x = GAP;
        }
        placed += format("<g transform=\"translate(%.0f %.0f)\">\n", x, height) + p.body + "</g>\n";
        x += p.width + GAP;
        row_height = std::max(row_height, p.height);
        width = std::max(width, x);
    }
    height += row_height + GAP;
    return format(
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
               "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n",
               width, height, width, height) +
           "<style>\n" + colour_rules(false) +
           "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#FFF\"/>\n<text x=\"12\" y=\"20\" class=\"ink\" font-size=\"15\">" +
           escape_markup(title) + "</text>\n" + placed + "</svg>\n";
}
