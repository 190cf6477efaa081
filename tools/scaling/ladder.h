// Several comparisons of the same rows, one for each size of the model (a ladder of widths) or each number of
// training tokens (budgets): the difference of each row to the baseline on every rung, its change per doubling, and
// for sizes the fitted laws with a prediction.
#pragma once
#include <string>
#include <vector>

#include "tools/report/comparison.h"
#include "tools/scaling/power_law.h"

struct Rung {
    std::string folder;
    double size, tokens;
};    // the baseline's parameters without embeddings; tokens trained on
struct LadderRow {
    std::string name;                       // as the comparisons label it: settings may differ between rungs
    Ladder losses;                          // means and numbers of seeds, by rung
    std::vector<double> sd;                 // between seeds, by rung
    std::vector<Difference> differences;    // to the baseline, corrected within its comparison
    // Per doubling of the size or tokens: least squares for each seed over all rungs, then an interval over the
    // seeds, which is right whether a seed's runs on different rungs are independent or not (branches of one trunk
    // are not). slope_half is corrected for the rows (Holm).
    PairedDifference slope{0, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED};
    double slope_half = NOT_MEASURED;
    PowerLaw law{NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED};
    Predicted far{NOT_MEASURED, NOT_MEASURED, NOT_MEASURED};
    Predicted last{NOT_MEASURED, NOT_MEASURED, NOT_MEASURED};    // on the largest rung, from the others alone
};
struct Scaling {
    bool of_sizes;    // else of tokens
    std::string baseline, text;
    std::vector<Rung> rungs;        // ascending
    std::vector<LadderRow> rows;    // those of every rung; the baseline first
    double seed_sd, alpha;
    double at(size_t rung) const { return of_sizes ? rungs[rung].size : rungs[rung].tokens; }
};
// Errors: fewer than two comparisons, other rows or other text in them, a missing baseline, the same size and tokens
// everywhere.
Scaling load_scaling(const Selection& s, double far, Problems& problems);
