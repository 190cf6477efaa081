// The sentences of the report: what the numbers can and cannot tell. Every sentence follows from a number that is printed with it;
// the rules of reading (what counts as flat, as overfitting, as early) are the named constants below.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "tools/report/comparison.h"

inline constexpr double FLAT_SLOPE = 0.02;          // nats per doubling of the training
inline constexpr double OVERFIT_RISE = 0.01;        // nats above its own minimum
inline constexpr double EARLY = 0.10, LAST = 0.10;  // fractions of the tokens: "early" is at 10%, the slope is over the last 10%

std::string matching_words(const std::string& matching);         // "same layout: width, depth and heads as the options say"
std::string read_data(const Comparison& c);                      // "" or the refusal to rank across data
std::string read_differences(const Section& s, const Comparison& c);
std::string read_seeds(const Section& s, const Comparison& c);   // spread, how many seeds would tell DELTA
std::string read_text_interval(const Section& s, const Comparison& c);
std::string read_curves(const Section& s, const std::vector<const Row*>& rows);
// All paragraphs under a section's tables. `unigram` may be NaN.
std::vector<std::string> honest_reading(const Section& s, const Comparison& c, double unigram);
// What was trained, on what; several values of a thing are listed.
std::vector<std::pair<std::string, std::string>> setup_facts(const Section& s);
// Versions of the source, machines, backends that differ.
std::vector<std::string> mixed_origins(const Comparison& c);
