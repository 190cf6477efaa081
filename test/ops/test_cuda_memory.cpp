// runtime/device/backend_cuda.cu as nvcc compiles it, on a stand-in for the CUDA runtime (fake_cudart.cpp):
// that copies arrive though the stream is late and the source changes, and what the host waits for. Built and
// run by `make cuda-check`, without a GPU.
#include <doctest/doctest.h>

#include <vector>

#include "runtime/device/backend.h"
#include "runtime/run/error.h"
#include "test/fakes/fake_cudart.h"

void* device_scratch(size_t bytes);                  // layers/cuda_common.cuh
void matmul_start() {}                               // no matrix library here
size_t matmul_workspace_bytes() { return 0; }
std::string matmul_keep_choices(const std::string&) { return ""; }

constexpr size_t MiB = size_t(1) << 20;
constexpr int RING = 8;                              // as in backend_cuda.cu

template <class Work> static int waits_of(Work work) {
    int before = fake_waits;
    work();
    return fake_waits - before;
}

TEST_CASE("a step's copies to the device do not wait, its one copy to the host does") {
    backend_init(1);
    int *tokens = device_alloc_array<int>(65536), *targets = device_alloc_array<int>(65536);
    std::vector<int> host(65536, 1), back(65536);
    device_synchronize();
    for (int step = 0; step < 20; step++) {
        CHECK(waits_of([&] {
            for (int& x : host) x = step;
            copy_to_device(tokens, host.data(), host.size() * sizeof(int));
            for (int& x : host) x = -step;           // at once: the copy is not made yet
            copy_to_device(targets, host.data(), host.size() * sizeof(int));
            for (int& x : host) x = 12345;
        }) == 0);
        CHECK(waits_of([&] { copy_to_host(back.data(), tokens, back.size() * sizeof(int)); }) == 1);
        CHECK(back == std::vector<int>(65536, step));
        copy_to_host(back.data(), targets, back.size() * sizeof(int));
        CHECK(back == std::vector<int>(65536, -step));
    }
    device_free(tokens);
    device_free(targets);
}

TEST_CASE("more copies than buffers: the host waits for the oldest only, and nothing is overwritten") {
    backend_init(1);
    int* d = device_alloc_array<int>(100);
    device_synchronize();
    CHECK(waits_of([&] { for (int i = 0; i < RING; i++) copy_to_device(d + i, &i, sizeof i); }) == 0);
    CHECK(waits_of([&] { for (int i = RING; i < 100; i++) copy_to_device(d + i, &i, sizeof i); }) == 100 - RING);
    std::vector<int> back(100);
    CHECK(waits_of([&] { copy_to_host(back.data(), d, 100 * sizeof(int)); }) == 1);
    for (int i = 0; i < 100; i++) REQUIRE(back[size_t(i)] == i);
    device_free(d);
}

TEST_CASE("large copies go in pieces") {
    backend_init(1);
    for (size_t bytes : {size_t(1), MiB - 1, MiB, MiB + 1, 11 * MiB + 17}) {
        unsigned char* d = device_alloc_array<unsigned char>(bytes);
        std::vector<unsigned char> host(bytes), back(bytes);
        for (size_t i = 0; i < bytes; i++) host[i] = static_cast<unsigned char>(i * 2654435761u >> 13);
        std::vector<unsigned char> kept = host;
        copy_to_device(d, host.data(), bytes);
        std::fill(host.begin(), host.end(), 0);
        copy_to_host(back.data(), d, bytes);
        CHECK(back == kept);
        device_free(d);
    }
}

TEST_CASE("memory is zeroed, counted, and refused with what was asked for and what is free") {
    backend_init(1);
    const size_t peak = peak_memory_bytes();
    unsigned char* d = device_alloc_array<unsigned char>(700 * MiB);
    std::vector<unsigned char> back(4096, 1);
    copy_to_host(back.data(), d + 699 * MiB, back.size());
    CHECK(back == std::vector<unsigned char>(4096, 0));
    CHECK(peak_memory_bytes() >= 700 * MiB);
    CHECK(peak_memory_bytes() > peak);
    CHECK_THROWS_WITH_AS(device_alloc(700 * MiB), doctest::Contains("out of GPU memory: 0.68 GiB asked for with"), Error);
    CHECK_THROWS_WITH_AS(device_alloc(700 * MiB), doctest::Contains("of the GPU's 1.00 GiB are free; a smaller --micro-batch"), Error);
    device_free(d);
    device_free(device_alloc(700 * MiB));            // there is room again, and the error was not left behind
    int local = 0;
    CHECK_THROWS_WITH_AS(device_free(&local), doctest::Contains("not from device_alloc"), Error);
}

TEST_CASE("scratch memory does not grow by itself") {
    backend_init(1);
    const size_t fixed = device_fixed_bytes();
    CHECK(device_scratch(fixed) != nullptr);
    CHECK_THROWS_WITH_AS(device_scratch(fixed + 1), doctest::Contains("are reserved"), Error);
    device_scratch_reserve(2 * fixed);
    void* p = device_scratch(2 * fixed);
    CHECK(waits_of([&] { for (int i = 0; i < 10; i++) CHECK(device_scratch(size_t(1) << i) == p); }) == 0);
    CHECK_THROWS_WITH_AS(device_scratch_reserve(2 * FAKE_DEVICE_BYTES), doctest::Contains("out of GPU memory"), Error);
    CHECK(device_scratch(1) != nullptr);             // the smallest again
}

TEST_CASE("facts") {
    backend_init(1);
    CHECK(std::string(backend_name()) == "cuda");
    CHECK(device_facts().name == "NVIDIA H100 80GB HBM3");
    CHECK(device_facts().memory_bytes == FAKE_DEVICE_BYTES);
    CHECK(device_facts().threads == 1);
}
