// What is drawn: validation loss against the cache, differences with their intervals, loss against the learning rate, loss by position
// in the context, and the curves. Every picture is made from the same numbers as the tables.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "tools/report/comparison.h"
#include "tools/report/svg.h"

struct Gallery {
    std::vector<Picture> cache, differences, curves, rates, positions;
};
Gallery draw(const Comparison& c);

// The parts, for tests.
struct Sample { double mean, low, high; };
using Series = std::map<double, Sample>;               // tokens -> over the seeds
Series over_seeds(const std::vector<Curve>& curves);   // where every curve has a value
Curve curve_difference(const Curve& a, const Curve& b);
