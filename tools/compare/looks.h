// SEEDS=auto: a few paired seeds first, more only while a row is undecided. Said in advance: after how many seeds the differences are
// looked at (LOOKS), the last being the limit. Looking several times gives chance several opportunities, so each look has its share of
// the permitted chance of a false verdict, alpha / looks [Bonferroni]: whenever it ends, any false verdict has at most the chance alpha.
// All rows go on while one is undecided: a row that left early would have been tested by data that decided how long they were gathered.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "tools/compare/settings.h"
#include "tools/report/comparison.h"

// A row is decided when its corrected interval leaves 0 out (better, worse), or lies within DELTA of 0 (no difference worth a seed).
inline bool is_decided(const Difference& d) {
    if (d.verdict == Verdict::baseline || d.verdict == Verdict::better || d.verdict == Verdict::worse) return true;
    return d.verdict == Verdict::not_told_apart && std::abs(d.seeds.mean) + d.corrected_half <= DELTA;
}

// Rows of these settings that are not: "gqa, rope, equal cache". Baselines have nothing to decide.
std::vector<std::string> undecided_rows(const Comparison& c, const Settings& s);
