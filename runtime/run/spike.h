// Skips updates whose gradient is far out of line with the recent ones (--spike-zscore Z), so that one bad batch does not
// undo a day.
//   mean, sd: of the last WINDOW gradient norms        norm > mean + Z sd: a spike, its update is skipped
// The z-score test of the gradient norm as in llm.c's outlier detector; a spike enters the window as the limit mean + Z sd, as ZClip
// does [Kumar et al. 2025, sec. 3], so that one outlier does not blind the test, and a level that really rose is accepted after a while.
// The window decides which updates happen, so it is part of the checkpoint. Not for gradients that are not finite: they never update.
#pragma once
#include <cstddef>
#include <vector>

struct SpikeWindow {
    static constexpr size_t WINDOW = 100, ENOUGH = 20;      // with fewer than ENOUGH values nothing is a spike
    std::vector<double> norms;                              // oldest first
};

// Judges a finite norm and adds it to the window. True: skip the update.
bool spike_seen(SpikeWindow& w, double norm, double zscore);
