// claims: one verdict line for each claim about these variants, from runs that are kept: supported, contradicted or undecided, with the
// interval over paired seeds and the runs behind it. scripts/claims.sh trains what is missing and calls it.
//   build/claims RUNS_DIR [--write FILE]     reads RUNS_DIR/claims, claims-power, claims-alibi, claims-sinusoidal, recall-*
// and, for two rows under rope, study-* if the study has trained them with more seeds.
// A verdict holds for these sizes, this text and this budget. `undecided` says what would decide it.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tools/claims/results.h"
#include "tools/claims/verdict.h"
#include "tools/one_line.h"

struct Folders { Results rope, sinusoidal, power, alibi; std::string runs_dir; std::vector<Results> studies; };

// Per seed: loss of row a minus loss of row b.
static std::vector<double> paired(const Results& r, const std::string& a, const std::string& b, const std::string& pos,
                                  double fraction = 1) {
    std::vector<double> d;
    for (int64_t seed : r.seeds) d.push_back(loss_at(r, a, pos, seed, fraction) - loss_at(r, b, pos, seed, fraction));
    return d;
}
static Interval difference(const Results& r, const std::string& a, const std::string& b, const std::string& pos, double fraction = 1) {
    return interval_of(paired(r, a, b, pos, fraction));
}
// Under rope: of `make claims` or of the study, whichever has more pairs. Both numbers of seeds were settled before their runs; that the
// larger one counts was settled when both had been seen, and docs/STUDY.md says which verdicts hang on it.
static Interval rope_difference(const Folders& f, const std::string& a, const std::string& b, double fraction = 1) {
    Interval best = difference(f.rope, a, b, "rope", fraction);
    for (const Results& study : f.studies) {
        if (!f.rope.text.empty() && study.text != f.rope.text) continue;         // another text
        if (Interval i = difference(study, a, b, "rope", fraction); i.n > best.n) best = i;
    }
    return best;
}

// gap(pos) - gap(sinusoidal) / 2, by seed: below 0 when the position halves QV's gap.
static Verdict half_the_gap(const Folders& f, const Results& at, const std::string& pos) {
    std::vector<double> values;
    for (int64_t seed : at.seeds) {
        auto gap = [&](const Results& r, const std::string& p) { return loss_at_end(r, "qv", p, seed) - loss_at_end(r, "qkv", p, seed); };
        values.push_back(gap(at, pos) - gap(f.sinusoidal, "sinusoidal") / 2);
    }
    return below_zero(interval_of(values), pos + " gap - half the sinusoidal gap");
}

// Mean accuracy over seeds of a row in the recall comparisons with so many heads, the best of their learning rates.
struct Recall { double accuracy = NAN; size_t seeds = 0; };
static Recall recall_accuracy(const Folders& f, const std::string& row, int heads) {
    const std::string prefix = "recall-32-4-w64-h" + std::to_string(heads) + "-lr";
    Recall best;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(f.runs_dir, error)) {
        if (!entry.path().filename().string().starts_with(prefix)) continue;
        const Results r = open_results(entry.path().string());
        std::vector<double> accuracies;
        for (int64_t seed : r.seeds) accuracies.push_back(accuracy_at_end(r, row, "rope", seed));
        const Interval i = interval_of(accuracies);
        if (i.n > 0 && !(i.mean < best.accuracy)) best = {i.mean, i.n};
    }
    return best;
}

// Learnt: nine of ten answers right, in the mean over seeds.
static Verdict recall_fails_with_heads(const Folders& f) {
    const Recall several = recall_accuracy(f, "qv", 4), one = recall_accuracy(f, "qv", 1), qkv = recall_accuracy(f, "qkv", 4);
    const Recall ka = recall_accuracy(f, "qv_ka", 4), gta = recall_accuracy(f, "gta", 4);
    const std::string numbers = format("accuracy: qv 4 heads %.3f, 1 head %.3f; with 4 heads qkv %.3f, qv_ka %.3f, gta %.3f",
                                       several.accuracy, one.accuracy, qkv.accuracy, ka.accuracy, gta.accuracy);
    size_t seeds = ENOUGH_SEEDS;
    for (const Recall& r : {several, one, qkv, ka, gta}) seeds = std::min(seeds, r.seeds);
    if (seeds == 0) return {"undecided", numbers + "; make recall trains what is missing"};
    if (seeds < ENOUGH_SEEDS) return {"undecided", numbers + format("; %zu seed%s, three decide", seeds, seeds == 1 ? "" : "s")};
    if (qkv.accuracy < 0.9 && one.accuracy < 0.9)
        return {"undecided", numbers + "; nothing has learnt the task: more steps, other rates"};
    const std::pair<bool, const char*> parts[] = {{several.accuracy < 0.9, "qv with 4 heads learns it"},
                                                  {one.accuracy >= 0.9, "qv with one does not"},
                                                  {ka.accuracy >= 0.9, "qv_ka does not within these steps"},
                                                  {gta.accuracy >= 0.9, "gta does not within these steps"}};
    std::string against;
    for (const auto& [holds, what] : parts)
        if (!holds) against += (against.empty() ? "; against it: " : ", ") + std::string(what);
    return {against.empty() ? "supported" : "contradicted", numbers + against};
}

// Claim 9, from build/evaluate-* of the trained runs (scripts/claims.sh writes extrapolation.txt).
static Verdict extrapolation(const Folders& f) {
    const std::string path = f.runs_dir + "/claims/extrapolation.txt";
    if (!file_exists(path)) return {"undecided", "no evaluations at 2T and 4T yet: scripts/claims.sh makes them with build/evaluate-*"};
    const std::vector<Evaluation> list = read_evaluations(file_read(path, 16 << 20));
    auto growth = [&](const char* pos, int times) { return interval_of(loss_growth(list, "qkv", pos, times)); };
    Verdict v = all_of({below(growth("alibi", 4), SMALL, "loss at 4T minus loss at T: alibi"), below(growth("power", 4), SMALL, "power"),
                        above(growth("rope", 4), SMALL, "rope")});
    v.because += "; at 2T: alibi " + show(growth("alibi", 2)) + ", power " + show(growth("power", 2)) + ", rope " + show(growth("rope", 2));
    return v;
}

struct Claim { int number; const char* text; std::function<Verdict(const Folders&)> verdict; };

static const std::vector<Claim>& claims() {
    static const std::vector<Claim> list = {
        {1, "QV's gap to QKV under power and alibi is at most half its gap under sinusoidal positions",
         [](const Folders& f) { return all_of({half_the_gap(f, f.power, "power"), half_the_gap(f, f.alibi, "alibi")}); }},
        {2, "QV is not told apart from QKV under decoupled positions",
         [](const Folders& f) {
             return all_of({is_zero(difference(f.power, "qv", "qkv", "power"), "power: qv - qkv"),
                            is_zero(difference(f.alibi, "qv", "qkv", "alibi"), "alibi: qv - qkv"),
                            is_zero(rope_difference(f, "qv", "qkv"), "rope: qv - qkv")});
         }},
        {3, "more context helps QV-Ka (d_ctx 4 HS against HS)",
         [](const Folders& f) { return below_zero(rope_difference(f, "qv_ka:dctx=128", "qv_ka:dctx=32"),
                                                  "loss at 4 HS - loss at HS"); }},
        {4, "QV-Ka learns faster than QKV early (at a fifth of the tokens)",
         [](const Folders& f) { return below_zero(rope_difference(f, "qv_ka", "qkv", 0.2), "qv_ka - qkv at 20%"); }},
        {5, "K from V alone (d_ctx 0) loses to K from [G ; V]",
         [](const Folders& f) { return below_zero(rope_difference(f, "qv_ka", "qv_ka:dctx=0"), "with G - without"); }},
        {6, "at equal cache (and equal parameters) QV loses to GQA",
         [](const Folders& f) { return below_zero(rope_difference(f, "gqa", "qv"), "gqa - qv"); }},
        {7, "for QV, rotating value and output back (vo) beats rotating the key only",
         [](const Folders& f) { return below_zero(rope_difference(f, "qv", "qv:key"), "vo - key"); }},
        {8, "the controls lose: K := Q, and one tensor for Q, K and V",
         [](const Folders& f) {
             return all_of({below_zero(rope_difference(f, "qkv", "qk"), "qkv - qk"),
                            below_zero(rope_difference(f, "qkv", "one"), "qkv - one")});
         }},
        {9, "alibi and power extrapolate to 4 T, rope does not", extrapolation},
        {10, "several-headed QV fails at associative recall, one-headed QV, QV-Ka and GTA do not", recall_fails_with_heads},
    };
    return list;
}

static std::vector<std::string> list_studies(const std::string& runs_dir) {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(runs_dir, error))
        if (const std::string name = entry.path().filename(); name.starts_with("study-")) names.push_back(name);
    std::sort(names.begin(), names.end());
    return names;
}

static int report(int argc, char** argv) {
    std::string runs_dir, write;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--write") && i + 1 < argc) write = argv[++i];
        else if (argv[i][0] == '-' || !runs_dir.empty()) fail_usage("claims RUNS_DIR [--write FILE]");
        else runs_dir = argv[i];
    }
    ensure_usage(!runs_dir.empty(), "claims RUNS_DIR [--write FILE]");
    auto open = [&](const char* name) { return open_results(runs_dir + "/" + name); };
    Folders f{open("claims"), open("claims-sinusoidal"), open("claims-power"), open("claims-alibi"), runs_dir, {}};
    for (const std::string& name : list_studies(runs_dir)) f.studies.push_back(open(name.c_str()));
    std::string markdown = "# The ten claims\n\n| | claim | verdict | because (nats per token, paired by seed, 95%) |\n|---|---|---|---|\n";
    for (const Claim& c : claims()) {
        const Verdict v = c.verdict(f);
        printf("%2d  %-12s  %s\n                  %s\n", c.number, v.word.c_str(), c.text, v.because.c_str());
        markdown += format("| %d | %s | **%s** | %s |\n", c.number, c.text, v.word.c_str(), v.because.c_str());
    }
    if (!write.empty()) file_replace(write, markdown);
    return EXIT_DONE;
}

int main(int argc, char** argv) {
    return errors_in_one_line("claims", [&] {
        return report(argc, argv);
    });
}
