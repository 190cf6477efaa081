// Learning rate schedules at their corners: start, end of the warm-up, last step, degenerate lengths.
#include <doctest/doctest.h>

#include <cmath>

#include "runtime/run/error.h"
#include "runtime/run/schedule.h"

static Schedule make(const std::string& kind, int64_t warmup, int64_t steps) { return {kind, 2.0, 0.1, 0.2, warmup, steps}; }

TEST_CASE("schedule: warm-up rises linearly to the peak, the last step is at the final rate") {
    for (const char* kind : {"cosine", "linear", "wsd", "constant"}) {
        CAPTURE(kind);
        const Schedule s = make(kind, 10, 101);
        for (int step = 0; step < 10; step++) CHECK(schedule_lr(s, step) == doctest::Approx(2.0 * (step + 1) / 11).epsilon(1e-12));
        CHECK(schedule_lr(s, 10) == 2.0);
        CHECK(schedule_lr(s, 100) == doctest::Approx(std::string(kind) == "constant" ? 2.0 : 0.2).epsilon(1e-12));
        CHECK(schedule_lr(s, 1000) == schedule_lr(s, 100));             // beyond the end: stays
        for (int step = 11; step <= 100; step++) CHECK(schedule_lr(s, step) <= schedule_lr(s, step - 1));
    }
}

TEST_CASE("schedule: values in the middle") {
    CHECK(schedule_lr(make("cosine", 10, 101), 55) == doctest::Approx(2.0 * 0.55).epsilon(1e-12));             // t = 1/2
    CHECK(schedule_lr(make("cosine", 0, 101), 25) == doctest::Approx(2.0 * (0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2)).epsilon(1e-12));
    CHECK(schedule_lr(make("linear", 0, 101), 25) == doctest::Approx(2.0 * (1 - 0.9 * 0.25)).epsilon(1e-12));
    // wsd: 20 of 100 steps go down, 80..99
    CHECK(schedule_lr(make("wsd", 10, 100), 79) == 2.0);
    CHECK(schedule_lr(make("wsd", 10, 100), 80) == doctest::Approx(2.0 * (1 - 0.9 / 20)).epsilon(1e-12));
    CHECK(schedule_lr(make("wsd", 10, 100), 99) == doctest::Approx(0.2).epsilon(1e-12));
}

TEST_CASE("schedule: degenerate lengths stay finite and within bounds") {
    for (const char* kind : {"cosine", "linear", "wsd", "constant"})
        for (int64_t steps : {0, 1, 2, 3, 7})
            for (int64_t warmup : {0, 1, 2, 6, 50})
                for (double decay : {0.0, 0.5, 1.0}) {
                    Schedule s = make(kind, warmup, steps);
                    s.decay_fraction = decay;
                    CAPTURE(kind); CAPTURE(steps); CAPTURE(warmup); CAPTURE(decay);
                    for (int64_t step = 0; step < steps + 2; step++) {
                        const double lr = schedule_lr(s, step);
                        CHECK(lr >= std::min(0.2, 2.0 / double(warmup + 1)) * (1 - 1e-12));
                        CHECK(lr <= 2.0);
                    }
                }
    CHECK(schedule_lr(make("linear", 0, 1), 0) == doctest::Approx(0.2));      // the only step is the last one
}

TEST_CASE("schedule: an unknown kind is refused") { CHECK_THROWS_AS(schedule_lr(make("exp", 0, 10), 5), Error); }
