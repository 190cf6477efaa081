// Finished runs of a comparison's folder, looked up by row, position and seed, for verdicts: the validation loss at the end and along the
// way, the accuracy of a probe. A missing run is NaN, and a verdict that needs it stays open.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

struct Results {
    std::string folder, text;                // runs/NAME, or its records; the data as comparison.json names it
    std::vector<int64_t> seeds;              // as comparison.json lists them
};
Results open_results(const std::string& folder);

double loss_at_end(const Results& r, const std::string& row, const std::string& pos, int64_t seed);
// The last validation at or before `fraction` of the tokens.
double loss_at(const Results& r, const std::string& row, const std::string& pos, int64_t seed, double fraction);
double accuracy_at_end(const Results& r, const std::string& row, const std::string& pos, int64_t seed);
// The step of the first validation whose accuracy is `level` or more; -1: none was.
int64_t step_of_accuracy(const Results& r, const std::string& row, const std::string& pos, int64_t seed, double level);

// The mean of values that pair up by seed, with its 95% interval (Student's t); NaN values are left out. low and high are NaN below two.
struct Interval { size_t n = 0; double mean = NAN, low = NAN, high = NAN; };
Interval interval_of(const std::vector<double>& values);
