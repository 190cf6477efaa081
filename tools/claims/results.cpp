// See results.h.
#include "tools/claims/results.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "tools/claims/student.h"
#include "tools/compare/settings.h"

using nlohmann::json;

Results open_results(const std::string& folder) {
    Results r{folder, {}};
    std::ifstream file(folder + "/comparison.json");
    const json j = json::parse(file, nullptr, false);
    if (!j.is_object() || !j.contains("seeds") || !j["seeds"].is_array()) return r;
    for (const json& seed : j["seeds"])
        if (seed.is_number_integer()) r.seeds.push_back(seed);
    return r;
}

struct Point { double tokens, loss, accuracy; };

static std::vector<Point> validations(const Results& r, const std::string& row, const std::string& pos, int64_t seed,
                                      int64_t& steps, int64_t& last) {
    const std::string folder = r.folder + "/" + Row{row, "", {}}.file_name() + "-" + pos + "-" + std::to_string(seed);
    std::ifstream config_file(folder + "/config.json"), log(folder + "/metrics.jsonl");
    const json config = json::parse(config_file, nullptr, false);
    steps = config.is_object() && config.contains("options") ? config["options"].value("steps", int64_t(-1)) : -1;
    last = -1;
    std::vector<Point> points;
    for (std::string line; std::getline(log, line);) {
        const json m = json::parse(line, nullptr, false);
        if (!m.is_object() || !m.contains("step")) continue;
        last = m.value("step", int64_t(-1));
        if (m.contains("val_loss") && m["val_loss"].is_number())
            points.push_back({m.value("tokens", 0.0), m["val_loss"], m.value("accuracy", double(NAN))});
    }
    return points;
}

static Point point_at(const Results& r, const std::string& row, const std::string& pos, int64_t seed, double fraction) {
    int64_t steps, last;
    const std::vector<Point> points = validations(r, row, pos, seed, steps, last);
    Point found{NAN, NAN, NAN};
    if (points.empty() || steps < 0 || last < steps) return found;           // unfinished runs decide nothing
    for (const Point& p : points)
        if (p.tokens <= fraction * points.back().tokens * (1 + 1e-9)) found = p;
    return found;
}

double loss_at_end(const Results& r, const std::string& row, const std::string& pos, int64_t seed) {
    return point_at(r, row, pos, seed, 1).loss;
}
double loss_at(const Results& r, const std::string& row, const std::string& pos, int64_t seed, double fraction) {
    return point_at(r, row, pos, seed, fraction).loss;
}
double accuracy_at_end(const Results& r, const std::string& row, const std::string& pos, int64_t seed) {
    return point_at(r, row, pos, seed, 1).accuracy;
}

Interval interval_of(const std::vector<double>& values) {
    Interval i;
    double sum = 0, squares = 0;
    for (double v : values) {
        if (std::isnan(v)) continue;
        i.n++;
        sum += v;
    }
    if (i.n == 0) return i;
    i.mean = sum / double(i.n);
    if (i.n < 2) return i;
    for (double v : values)
        if (!std::isnan(v)) squares += (v - i.mean) * (v - i.mean);
    const double half = student_quantile(0.975, double(i.n - 1)) * std::sqrt(squares / double(i.n - 1) / double(i.n));
    i.low = i.mean - half;
    i.high = i.mean + half;
    return i;
}
