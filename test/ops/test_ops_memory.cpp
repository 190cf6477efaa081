// Device memory as the layers see it: copies of every size, sources that change right after the call, reserved scratch memory; and on
// a GPU that copies to it do not wait for the work queued before them.
#include "test/ops/op_common.h"

#include <chrono>

#include "layers/linear.h"
#include "runtime/run/error.h"

[[gnu::weak]] void* device_scratch(size_t bytes);     // layers/cuda_common.cuh; the CPU backend has none

TEST_CASE("copies of every size come back, though the source changes at once") {
    backend_init(0);
    const size_t MiB = size_t(1) << 20;              // a GPU's copies go in pieces of this size through eight buffers
    for (size_t bytes : {size_t(1), size_t(3), size_t(4096), MiB - 1, MiB, MiB + 1, 2 * MiB, 11 * MiB + 17}) {
        Device<unsigned char> d(bytes + 2);
        std::vector<unsigned char> source(bytes), back(bytes + 2);
        for (size_t i = 0; i < bytes; i++) source[i] = static_cast<unsigned char>(1 + philox_below(3, bytes, i / 4, 250));
        const std::vector<unsigned char> kept = source;
        copy_to_device(d.p + 1, source.data(), bytes);
        std::fill(source.begin(), source.end(), 0);
        copy_to_host(back.data(), d.p, bytes + 2);
        INFO(bytes, " bytes");
        CHECK(std::equal(kept.begin(), kept.end(), back.begin() + 1));
        CHECK((back.front() == 0 && back.back() == 0));
    }
}

TEST_CASE("many small copies in a row arrive in order") {
    backend_init(0);
    Device<int> d(100);
    for (int i = 0; i < 1000; i++) copy_to_device(d.p + i % 100, &i, sizeof i);
    std::vector<int> got = d.get();
    for (int i = 0; i < 100; i++) REQUIRE(got[size_t(i)] == 900 + i);
}

TEST_CASE("scratch memory: what was reserved is there, more is refused") {
    if (!device_scratch) return;                             // the CPU needs none
    backend_init(0);
    const size_t smallest = size_t(32) << 20, larger = size_t(48) << 20;
    CHECK(device_fixed_bytes() >= smallest);
    CHECK(device_scratch(smallest) != nullptr);
    std::string message;
    size_t asked = size_t(1) << 40;
    try {
        device_scratch(asked);
    } catch (const Error& e) {
        message = e.what();
    }
    CHECK(message.find(std::to_string(asked)) != std::string::npos);
    CHECK(message.find("reserve") != std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
    device_scratch_reserve(larger);
    void* p = device_scratch(larger);
    CHECK(p != nullptr);
    device_scratch_reserve(1);                               // never shrinks
    CHECK(device_scratch(larger) == p);
}

TEST_CASE("too much memory: one line with what was asked for") {
    if (std::string(backend_name()) != "cuda") return;       // elsewhere the system promises more than it has
    backend_init(0);
    CHECK_THROWS_WITH_AS(device_alloc(size_t(1) << 50), doctest::Contains("out of GPU memory: 1048576.00 GiB asked for"), Error);
    Device<int> fine(1);                                     // the error is not left behind for the next call
    CHECK(fine.get()[0] == 0);
}

TEST_CASE("a copy to the device does not wait for the work before it") {
    if (std::string(backend_name()) != "cuda") return;       // elsewhere nothing is queued
    using Clock = std::chrono::steady_clock;
    backend_init(0);
    const int n = 4096;
    DX x(size_t(n) * n), w(size_t(n) * n), y(size_t(n) * n);
    Device<int> tokens(65536);
    std::vector<int> host(65536, 7);
    auto work = [&] { for (int i = 0; i < 40; i++) linear_forward(y, x, w, nullptr, linear_shape(size_t(n), n, n)); };
    work();                                                  // the first product asks the library for its algorithm
    device_synchronize();
    auto start = Clock::now();
    work();
    auto queued = Clock::now();
    copy_to_device(tokens, host.data(), host.size() * sizeof(int));
    auto copied = Clock::now();
    device_synchronize();
    auto done = Clock::now();
    double queue_s = std::chrono::duration<double>(queued - start).count(), copy_s = std::chrono::duration<double>(copied - queued).count();
    double all_s = std::chrono::duration<double>(done - start).count();
    INFO("queueing ", queue_s, " s, the copy ", copy_s, " s, all ", all_s, " s");
    CHECK(queue_s < all_s / 2);                              // else there is nothing to wait for, and the next line proves nothing
    CHECK(copy_s < all_s / 4);
    CHECK(tokens.get() == host);
}
