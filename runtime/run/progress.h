// How far a run has got: everything that decides its future besides the tensors and the options. A checkpoint's state.json
// holds it.
#pragma once
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "runtime/run/rundir.h"
#include "runtime/run/spike.h"

struct Progress {
    int64_t step = 0;                            // optimizer steps done
    uint64_t samples = 0;                        // training samples consumed
    double seconds = 0, best_val_loss = INFINITY;
    int64_t skipped = 0;                         // steps without an update: AdamW counts updates
    int not_finite_in_a_row = 0;
    SpikeWindow spikes;
    std::optional<StepMetrics> unlogged;         // the last step, when a stop cut its validation or sample short: done after resuming
};

// state.json and back. description: the run's (description.h), kept with it. `where` begins the message about a wrong text.
// Accepts only values that are possible for step `step`, with `sequences` samples per step.
std::string progress_to_json(const Progress& at, const std::string& description);
Progress progress_from_json(const std::string& state_json, int64_t step, uint64_t sequences, const std::string& where);
// The description in a state.json.
std::string described_in(const std::string& state_json, const std::string& where);
