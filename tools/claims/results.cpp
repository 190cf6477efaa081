// See results.h.
#include "tools/claims/results.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "tools/compare/settings.h"
#include "tools/report/inference.h"
#include "tools/report/stats.h"

using nlohmann::json;

Results open_results(const std::string& folder) {
    Results r{folder, "", {}};
    std::ifstream file(folder + "/comparison.json");
    const json j = json::parse(file, nullptr, false);
    if (!j.is_object() || !j.contains("seeds") || !j["seeds"].is_array()) return r;
    if (j.contains("text") && j["text"].is_string()) r.text = j["text"];
    for (const json& seed : j["seeds"])
        if (seed.is_number_integer()) r.seeds.push_back(seed);
    return r;
}

struct Validation { int64_t step; double tokens, loss, accuracy; };

static std::vector<Validation> validations(const Results& r, const std::string& row, const std::string& pos, int64_t seed,
                                           int64_t& steps, int64_t& last) {
    const std::string folder = r.folder + "/" + RowSpec{row, "", {}}.file_name() + "-" + pos + "-" + std::to_string(seed);
    std::ifstream config_file(folder + "/config.json"), log(folder + "/metrics.jsonl");
    const json config = json::parse(config_file, nullptr, false);
    steps = config.is_object() && config.contains("options") ? config["options"].value("steps", int64_t(-1)) : -1;
    last = -1;
    std::vector<Validation> points;
    for (std::string line; std::getline(log, line);) {
        const json m = json::parse(line, nullptr, false);
        if (!m.is_object() || !m.contains("step")) continue;
        last = m.value("step", int64_t(-1));
        if (m.contains("val_loss") && m["val_loss"].is_number())
            points.push_back({last, m.value("tokens", 0.0), m["val_loss"], m.value("accuracy", double(NAN))});
    }
    return points;
}

static Validation point_at(const Results& r, const std::string& row, const std::string& pos, int64_t seed, double fraction) {
    int64_t steps, last;
    const std::vector<Validation> points = validations(r, row, pos, seed, steps, last);
    Validation found{-1, NAN, NAN, NAN};
    if (points.empty() || steps < 0 || last < steps) return found;           // unfinished runs decide nothing
    for (const Validation& p : points)
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

int64_t step_of_accuracy(const Results& r, const std::string& row, const std::string& pos, int64_t seed, double level) {
    int64_t steps, last;
    for (const Validation& v : validations(r, row, pos, seed, steps, last))
        if (v.accuracy >= level) return v.step;
    return -1;
}

Interval interval_of(const std::vector<double>& values) {
    std::vector<double> measured;
    for (double v : values)
        if (!std::isnan(v)) measured.push_back(v);
    const PairedDifference d{measured.size(), mean(measured), sample_sd(measured), NAN};
    const double half = half_width(d, 0.05);
    return {d.n, d.mean, d.mean - half, d.mean + half};
}
