// Learning rates, one for each row. A rate that was chosen on one variant and used for all is the commonest unfairness of comparisons
// [Wen et al. 2025, arXiv:2509.02046]; so rates are measured, stored under their conditions (model, budget, data) and reused.
//   LR=...      all rows train with it
//   TUNE=1      searched for rows without a stored rate: runs at rates a factor sqrt 2 apart around the preset's, with a seed that is not
//               used afterwards; more while the best is at an edge; then the vertex of a parabola in log lr through the best and its
//               neighbours. Curves stay in NAME/tune/, rates in NAME/learning_rates.json
//   neither     the measured table in the repository (RATES; TUNE=1 with RECORDS writes it), else the preset's rate; what was taken is said
//   TUNE_STEPS  the number of steps that rates are measured and looked up for, where it is not that of the runs: a trunk and its branches
//               share a rate (scripts/study_budgets.sh)
#pragma once
#include "tools/compare/plan.h"

// Sets the lr of every cell; trains what TUNE asks for. False when it was stopped or failed.
bool settle_rates(const Settings& s, std::vector<Cell>& cells, const Place& place, const std::string& mark);

// Validation loss at the end of a run, NaN when there is none.
double final_loss(const std::string& run_folder);
