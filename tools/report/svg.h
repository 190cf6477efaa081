// A small SVG writer: shapes with classes instead of colours, so that one drawing serves a file of its own (colours in a <style>) and
// the HTML page, whose style sheet knows light and dark. Coordinates in pixels, y downwards.
#pragma once
#include <string>
#include <vector>

struct Point { double x, y; };
struct Range { double low = 1e300, high = -1e300; };
void include(Range& r, double v);                      // NaN and infinities are left out
Range padded(Range r, double share, double least);     // at least `least` wide; [0, 1] when nothing was included

struct Axis {
    Range range;
    bool log = false;
    double from = 0, to = 1;                           // pixels of range.low and range.high
    double at(double v) const;
};
struct Tick { double value; std::string label; };
std::vector<Tick> ticks(const Axis& a, bool powers_of_two = false);    // few and round
std::string short_number(double v);                    // 500k, 2M, 0.004

// Series colours are classes s0 .. s8 (strokes) and f0 .. f8 (fills): Okabe & Ito (2008), told apart by colour-blind readers. 0 is the
// baseline's: black on white, white on black. Others: ink, quiet (text), grid, axis (lines).
inline constexpr int COLOURS = 9;

struct Picture {
    std::string id, title, body;                       // body: what stands inside <svg>
    double width = 460, height = 320;

    void line(Point a, Point b, const std::string& classes, double stroke = 1, bool dashed = false);
    void path(const std::vector<Point>& points, const std::string& classes, double stroke = 2);
    void area(const std::vector<Point>& points, const std::string& classes, double opacity);
    void rectangle(Point a, Point b, const std::string& classes, double opacity = 1);
    void text(Point at, const std::string& s, const std::string& classes = "ink", const char* anchor = "start", double size = 12);
    // shape: 0 circle, 1 square, 2 triangle, 3 diamond; `tip` is shown when the pointer rests on it
    void marker(Point at, int shape, const std::string& classes, double radius, const std::string& tip = "");
    void axes(const Axis& x, const Axis& y, const std::string& x_name, bool powers_of_two = false);     // grid, ticks, names, frame
};

// Moves label positions apart until neighbours are at least `gap` apart and all lie in [low, high] (if there is room), in order.
std::vector<double> spread_labels(const std::vector<double>& wanted, double gap, double low, double high);

std::string inline_svg(const Picture& p);                                            // for the page
std::string svg_file(const std::string& title, const std::vector<Picture>& pictures, size_t columns);    // with colours, white paper
std::string colour_rules(bool dark);                                                 // ".s0{stroke:#000}..."
