// Four ways of being equal to the baseline, each solved and checked against the trainer's exact counts (--dry-run):
//   layout   the same layers, width, heads: what the options say
//   params   the same number of parameters without embeddings, by the MLP's width, to 0.5%
//   cache    the same cache per token (CACHE bytes; default: half the baseline's), by what carries the cache: key/value heads, the
//            variant's own widths, heads, the head size, in this order; then the same parameters, by the MLP's width
//   flops    the same training FLOPs, by the number of steps
#pragma once
#include <string>
#include <vector>

#include "tools/compare/plan.h"

// The layout cells once more, changed as `matching` asks. Fails naming the row that cannot be matched.
std::vector<Cell> matched_cells(const Settings& s, const std::string& matching, const std::vector<Cell>& layout, const Place& place);
