// The rule by which a claim is judged: *supported* when the whole 95% interval lies on its side of the bound, *contradicted* when all of
// it lies on the other, else *undecided*; never by fewer than three seeds. And what claim 9 reads.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "runtime/run/error.h"
#include "tools/claims/results.h"

constexpr double SMALL = 0.01;               // nats: a difference that surely is below this is called none
constexpr size_t ENOUGH_SEEDS = 3;

struct Verdict { std::string word, because; };

inline std::string show(const Interval& i) {
    if (i.n == 0) return "no runs";
    if (i.n == 1) return format("%+.4f (one seed: no interval)", i.mean);
    return format("%+.4f [%+.4f, %+.4f], %zu seeds", i.mean, i.low, i.high, i.n);
}
inline Verdict judged(const Interval& i, bool supported, bool contradicted, const std::string& what, const std::string& if_undecided = "") {
    if (i.n < ENOUGH_SEEDS) return {"undecided", what + " " + show(i) + "; three seeds decide"};
    if (supported || contradicted) return {supported ? "supported" : "contradicted", what + " " + show(i)};
    return {"undecided", what + " " + show(i) + if_undecided};
}
inline Verdict below(const Interval& i, double bound, const std::string& what) { return judged(i, i.high < bound, i.low > bound, what); }
inline Verdict above(const Interval& i, double bound, const std::string& what) { return judged(i, i.low > bound, i.high < bound, what); }
inline Verdict below_zero(const Interval& i, const std::string& what) { return below(i, 0, what); }
// "It is 0": supported when the whole interval lies within SMALL of 0, contradicted when it leaves 0 out.
inline Verdict is_zero(const Interval& i, const std::string& what) {
    const bool without_zero = i.low > 0 || i.high < 0;
    return judged(i, !without_zero && i.low > -SMALL && i.high < SMALL, without_zero, what,
                  format("; more seeds, until it is within %g", SMALL));
}
// Several verdicts in one: all supported, or any contradicted.
inline Verdict all_of(const std::vector<Verdict>& parts) {
    Verdict v{"supported", ""};
    for (const Verdict& p : parts) {
        if (p.word == "contradicted") v.word = p.word;
        else if (p.word == "undecided" && v.word == "supported") v.word = p.word;
        v.because += (v.because.empty() ? "" : "; ") + p.because;
    }
    return v;
}

// ---- longer contexts than trained with: lines of "row position seed times loss", `times` the context trained with
struct Evaluation { std::string row, pos; int seed, times; double loss; };
inline std::vector<Evaluation> read_evaluations(const std::string& text) {
    std::vector<Evaluation> list;
    for (size_t begin = 0; begin < text.size();) {
        const size_t end = std::min(text.find('\n', begin), text.size());
        char row[64], pos[64];
        Evaluation e;
        if (sscanf(text.substr(begin, end - begin).c_str(), "%63s %63s %d %d %lf", row, pos, &e.seed, &e.times, &e.loss) == 5) {
            e.row = row;
            e.pos = pos;
            list.push_back(e);
        }
        begin = end + 1;
    }
    return list;
}
// Per seed: the loss at `times` the context minus the loss at the context itself; seeds without either are left out.
inline std::vector<double> loss_growth(const std::vector<Evaluation>& list, const std::string& row, const std::string& pos, int times) {
    std::map<int, double> at_once, at_times;
    for (const Evaluation& e : list) {
        if (e.row != row || e.pos != pos) continue;
        if (e.times == 1) at_once[e.seed] = e.loss;
        if (e.times == times) at_times[e.seed] = e.loss;
    }
    std::vector<double> growth;
    for (const auto& [seed, loss] : at_times)
        if (at_once.contains(seed)) growth.push_back(loss - at_once[seed]);
    return growth;
}
