// The z-score test of gradient norms (runtime/run/spike.h).
#include <doctest/doctest.h>

#include <cmath>

#include "runtime/device/rng.h"
#include "runtime/run/spike.h"

static double usual(uint64_t i) { return 1 + 0.1 * philox_normal(3, 1, i); }

TEST_CASE("spike: nothing is one before there are enough norms; then only what is far above") {
    SpikeWindow w;
    for (size_t i = 0; i < SpikeWindow::ENOUGH; i++) CHECK_FALSE(spike_seen(w, i == 3 ? 500 : usual(i), 6));
    SpikeWindow v;
    for (size_t i = 0; i < 300; i++) {
        CAPTURE(i);
        CHECK(spike_seen(v, i == 250 ? 1000 * usual(i) : usual(i), 6) == (i == 250));
        CHECK(v.norms.size() == std::min<size_t>(i + 1, SpikeWindow::WINDOW));
    }
    CHECK_FALSE(spike_seen(v, 1e-9, 6));             // far below is no spike
}

TEST_CASE("spike: one outlier does not hide the next; a level that rose for good is accepted in time") {
    SpikeWindow w;
    for (size_t i = 0; i < 50; i++) spike_seen(w, usual(i), 4);
    CHECK(spike_seen(w, 1e6, 4));
    CHECK(spike_seen(w, 1e6, 4));
    for (double x : w.norms) CHECK(x < 3);
    int skipped = 0;
    for (size_t i = 0; i < 100; i++) skipped += spike_seen(w, 3 * usual(i), 4);
    MESSAGE(skipped << " of 100 skipped after the level tripled");
    CHECK(skipped < 50);
    CHECK_FALSE(spike_seen(w, 3, 4));
}

TEST_CASE("spike: the limit is mean + z sd of the window") {
    SpikeWindow w;
    for (size_t i = 0; i < SpikeWindow::ENOUGH; i++) spike_seen(w, i % 2 ? 3 : 1, 5);       // mean 2, sd 1
    SpikeWindow same = w;
    CHECK_FALSE(spike_seen(w, 6.999, 5));
    CHECK(spike_seen(same, 7.001, 5));
    CHECK(same.norms.back() == doctest::Approx(7));
}
