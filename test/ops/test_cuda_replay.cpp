// runtime/device/replay.cu as nvcc compiles it, on a stand-in for the CUDA runtime that records and replays
// (fake_cudart.cpp): replayed work does what launched work does, although rates, tokens and sources change with each
// repetition. Whole models, on the emulator: test/system/test_graphs.sh. Built and run by `make cuda-check`, without a GPU.
#include <doctest/doctest.h>

#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "runtime/device/backend.h"
#include "runtime/device/replay.h"
#include "runtime/run/error.h"
#include "test/fakes/fake_cudart.h"

void register_some_kernels();                        // test/fakes/some_kernels.cu
void blend(float* sum, const float* x, int n, float keep, double take, int threads);
void count(float* counter);

namespace {
constexpr int N = 100;
struct World {
    float *x, *sum, *counter;
    World() {
        backend_init(1);
        register_some_kernels();
        x = device_alloc_array<float>(N), sum = device_alloc_array<float>(N), counter = device_alloc_array<float>(1);
        device_synchronize();
    }
    ~World() { device_free(x), device_free(sum), device_free(counter); }
    // As a step: tokens in, a sum over micro-batches, an update with this step's rate. The host's memory changes at once.
    void work(int step, int copies = 2, int threads = 32, bool extra = false) const {
        std::vector<float> host(N);
        for (int k = 0; k < copies; k++) {
            for (int i = 0; i < N; i++) host[size_t(i)] = float(step * 1000 + k * 100 + i);
            copy_to_device(x, host.data(), N * sizeof(float));
            for (float& h : host) h = -1;
            if (k == 0) device_zero(counter, sizeof(float));
            blend(sum, x, N, k == 0 ? 0.5f : 1.0f, 1.0 / (step + 1), threads);
        }
        count(counter);
        if (extra) count(counter);
    }
    std::vector<float> result() const {
        std::vector<float> r(N + 1);
        copy_to_host(r.data(), sum, N * sizeof(float));
        copy_to_host(&r[N], counter, sizeof(float));
        return r;
    }
};
// Every step's result, launched one by one or replayed.
template <class Work> std::vector<std::vector<float>> run(Repeat& r, int steps, Work work) {
    World w;
    std::vector<std::vector<float>> results;
    for (int step = 0; step < steps; step++) {
        device_repeat(r, [&] { work(w, step); });
        results.push_back(w.result());
    }
    return results;
}
template <class Work> std::vector<std::vector<float>> plain(int steps, Work work) { Repeat r; return run(r, steps, work); }
}  // namespace

TEST_CASE("replayed work does what launched work does, with changing rates and copies") {
    auto work = [](const World& w, int step) { w.work(step); };
    const auto expected = plain(20, work);
    Repeat r;
    r.wanted = true;
    const int graphs = fake_graph_launches, launches = fake_launches;
    CHECK(run(r, 20, work) == expected);
    CHECK(r.launches == 6);                          // two copies, a memset, three kernels
    CHECK(fake_graph_launches - graphs == 19);       // the first time one by one
    CHECK(fake_launches - launches == 2 * 3);        // then, and into the recording
}

TEST_CASE("a value that stays as it was recorded is noticed by such a comparison") {
    auto rate_only = [](const World& w, int step) { blend(w.sum, w.x, N, 0.5f, 0, 32), blend(w.sum, w.sum, N, 1, 1.0 / (step + 1), 32); };
    auto tokens_only = [](const World& w, int step) {
        const std::vector<float> host(N, float(step));
        copy_to_device(w.x, host.data(), N * sizeof(float));
        blend(w.sum, w.x, N, 0.5f, 1, 32);
    };
    auto rate = [&](const World& w, int step) { if (step == 0) tokens_only(w, 7); else rate_only(w, step); };
    for (const std::string baked : {"", "copies", "arguments"}) {
        setenv("QV_BAKE_IN", baked.c_str(), 1);
        Repeat a, b;
        a.wanted = b.wanted = true;
        CHECK((run(a, 12, tokens_only) == plain(12, tokens_only)) == (baked != "copies"));
        CHECK((run(b, 12, rate) == plain(12, rate)) == (baked != "arguments"));
    }
    unsetenv("QV_BAKE_IN");
}

TEST_CASE("repetitions queued one behind the other: the stream is late, and no buffer is overwritten too early") {
    auto results = [](bool wanted) {
        World w;
        Repeat r;
        r.wanted = wanted;
        std::vector<std::vector<float>> all;
        int waits = 0;
        for (int step = 0; step < 24; step++) {
            const int before = fake_waits;
            device_repeat(r, [&] { w.work(step); });
            if (step >= 2) waits += fake_waits - before;
            if (step % 4 == 3) all.push_back(w.result());    // four steps, eight copies: as many as there are buffers
            if (step % 4 == 3) CHECK(waits == 0), waits = 0;
        }
        for (int step = 24; step < 48; step++) device_repeat(r, [&] { w.work(step); });      // and many more than buffers
        all.push_back(w.result());
        return all;
    };
    CHECK(results(true) == results(false));
}

TEST_CASE("work that changes is recorded anew; work that keeps changing is launched one by one") {
    auto grid = [](const World& w, int step) { w.work(step, 2, step < 6 ? 32 : 64); };
    auto longer = [](const World& w, int step) { w.work(step, 2, 32, step == 5); };
    auto never_the_same = [](const World& w, int step) { w.work(step, 2, 32 + step); };
    auto many_copies = [](const World& w, int step) { w.work(step, STAGING_BUFFERS + 1); };
    auto as_many_as_buffers = [](const World& w, int step) { w.work(step, STAGING_BUFFERS); };
    auto check = [](auto work, int graphs) {
        Repeat r;
        r.wanted = true;
        const int before = fake_graph_launches;
        CHECK(run(r, 12, work) == plain(12, work));
        CHECK(fake_graph_launches - before == graphs);
    };
    check(grid, 11);
    check(longer, 11);
    check(never_the_same, 4);
    check(many_copies, 0);
    check(as_many_as_buffers, 11);
}

TEST_CASE("an error in the work leaves nothing behind; waiting in it is one") {
    World w;
    Repeat r;
    r.wanted = true;
    for (int step = 0; step < 5; step++) {
        CHECK_THROWS_AS(device_repeat(r, [&] { w.work(step); throw std::runtime_error("stop"); }), std::runtime_error);
        CHECK((launch_hook == nullptr));
    }
    Repeat waiting;
    waiting.wanted = true;
    auto wait = [&] { w.work(0); w.result(); };
    device_repeat(waiting, wait);                    // launched one by one, it may
    CHECK_THROWS_WITH_AS(device_repeat(waiting, wait), doctest::Contains("waits for the device"), Error);
    const std::vector<float> before = w.result();
    for (int step = 0; step < 5; step++) device_repeat(r, [&] { w.work(step); });
    w.work(5);                                       // and what is not repeated is launched as ever
    CHECK(w.result() != before);
}
