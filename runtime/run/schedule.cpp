// See schedule.h.
#include "runtime/run/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/run/error.h"

double schedule_lr(const Schedule& s, int64_t step) {
    // Step 0 already learns, and step `warmup` is the first at the full rate.
    if (step < s.warmup) return s.lr * double(step + 1) / double(s.warmup + 1);
    // t of the last step is 1, also when it is the only one left after the warm-up.
    auto progress = [&](int64_t start) {
        return start >= s.steps - 1 ? 1.0 : std::clamp(double(step - start) / double(s.steps - 1 - start), 0.0, 1.0);
    };
    const double f = s.final_fraction;
    if (s.kind == "constant") return s.lr;
    if (s.kind == "linear") return s.lr * (1 - (1 - f) * progress(s.warmup));
    if (s.kind == "cosine") return s.lr * (f + (1 - f) * (1 + std::cos(std::numbers::pi * progress(s.warmup))) / 2);
    if (s.kind == "wsd") {
        // decay_steps steps are below the peak; the one before them is the last at the peak.
        const int64_t decay_steps = std::llround(s.decay_fraction * double(s.steps));
        if (decay_steps == 0) return s.lr;
        const int64_t last_at_peak = std::max(s.steps - decay_steps - 1, s.warmup);
        return step <= last_at_peak && last_at_peak < s.steps - 1 ? s.lr : s.lr * (1 - (1 - f) * progress(last_at_peak));
    }
    fail_usage("--schedule: '%s' is unknown; choose one of: cosine, wsd, linear, constant", s.kind.c_str());
}
