// What the GPU microbenchmarks share: timing, random arrays, the limits measured in the same run, rows of a Markdown table.
// Not for results (the tests' matter). Under BACKEND=emu the numbers mean nothing; it serves to run this code without a GPU.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "layers/cuda_common.cuh"
#include "layers/linear.h"
#include "runtime/device/backend.h"
#include "runtime/device/rng.h"

// Median of 5 rounds, each long enough (20 ms, or 1000 calls) that launching and waiting do not show.
inline double median_seconds(const std::function<void()>& work) {
    using Clock = std::chrono::steady_clock;
    work();                                                      // first call: code to the device, the library's choice of algorithm
    device_synchronize();
    int repeats = 1;
    std::vector<double> rounds;
    while (rounds.size() < 5) {
        auto start = Clock::now();
        for (int i = 0; i < repeats; i++) work();
        device_synchronize();
        double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (seconds < 0.02 && repeats < 1000) repeats *= 2;
        else rounds.push_back(seconds / repeats);
    }
    std::sort(rounds.begin(), rounds.end());
    return rounds[2];
}

// Device memory, filled with normal numbers (65,536 of them, repeated), freed at the end of the scope.
template <class T> struct Array {
    T* p;
    size_t n;
    explicit Array(size_t count, uint64_t stream = 0, double scale = 1) : p(device_alloc_array<T>(count)), n(count) {
        if (!stream) return;
        std::vector<T> host(std::min<size_t>(n, 1 << 16));
        for (size_t i = 0; i < host.size(); i++) host[i] = T(float(scale * philox_normal(1, stream, i)));
        for (size_t i = 0; i < n; i += host.size()) copy_to_device(p + i, host.data(), std::min(host.size(), n - i) * sizeof(T));
    }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { device_free(p); }
    operator T*() const { return p; }
};

// ---- the limits of this device, as programs reach them

// Grid: one thread per 16 bytes. Reads and writes everything once: what any memory-bound kernel is held against.
__global__ void __launch_bounds__(256) copy_kernel(uint4* to, const uint4* from, size_t n) {
    size_t i = size_t(blockIdx.x) * 256 + threadIdx.x;
    if (i < n) to[i] = from[i];
}
// Tensor cores through mma.sync, operands in registers only: 8 independent products a warp hide the latency. wgmma, which cuBLASLt uses
// on sm_90, goes higher there. Written to memory only where the sum is a number that does not occur, so that nothing is optimised away.
inline constexpr int MMA_CHAINS = 8;
__global__ void __launch_bounds__(256) mma_kernel(float* out, int rounds) {
    float d[MMA_CHAINS][4] = {};
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; i++) a[i] = pack_bf16(1.0f + float(threadIdx.x % 7), 0.5f);
    for (int i = 0; i < 2; i++) b[i] = pack_bf16(0.25f, float(threadIdx.x % 3));
    for (int r = 0; r < rounds; r++)
#pragma unroll
        for (int c = 0; c < MMA_CHAINS; c++) mma_bf16_16816(d[c], a, b[0], b[1]);
    float sum = 0;
#pragma unroll
    for (int c = 0; c < MMA_CHAINS; c++) sum += d[c][0] + d[c][1] + d[c][2] + d[c][3];
    if (sum == -1.0f) out[threadIdx.x] = sum;
}

struct Limits { double copy_bytes, mma_flops, product_flops; };       // per second; product: the matrix library at side^3

inline Limits measure_limits(bool tiny) {
    Limits l;
    {
        const size_t bytes = tiny ? size_t(1) << 16 : size_t(1) << 30;
        Array<unsigned char> from(bytes), to(bytes);
        const size_t n = bytes / sizeof(uint4);
        l.copy_bytes = 2 * double(bytes) / median_seconds([&] {
            launch(copy_kernel, grid_size(n, 256), dim3(256), 0)(reinterpret_cast<uint4*>(to.p), reinterpret_cast<const uint4*>(from.p), n);
        });
    }
    {
        const int blocks = tiny ? 2 : 1024, rounds = tiny ? 2 : 4096;
        Array<float> out(256);
        const double flops = double(blocks) * 8 * rounds * MMA_CHAINS * 2 * 16 * 8 * 16;      // 8 warps a block
        l.mma_flops = flops / median_seconds([&] { launch(mma_kernel, dim3(unsigned(blocks)), dim3(256), 0)(out.p, rounds); });
    }
    {
        const int side = tiny ? 64 : 8192;
        Array<floatX> x(size_t(side) * side, 1), w(size_t(side) * side, 2), y(size_t(side) * side);
        l.product_flops = 2.0 * side * side * side / median_seconds([&] {
                              linear_forward(y, x, w, nullptr, linear_shape(size_t(side), side, side));
                          });
    }
    return l;
}

inline void print_head(const Limits& l, bool tiny) {
    const DeviceFacts facts = device_facts();
    printf(
        "%s, %s, %s storage. Limits measured in this run: a plain copy %.0f GB/s; "
        "mma.sync in registers %.1f TFLOP/s; %s %.1f TFLOP/s",
        facts.name.c_str(), backend_name(), PRECISION_NAME, l.copy_bytes / 1e9, l.mma_flops / 1e12,
        tiny ? "a product of 64^3" : "a product of 8192^3", l.product_flops / 1e12);
    if (facts.peak_flops > 0) printf("; nominal peak %.1f TFLOP/s", facts.peak_flops / 1e12);
    printf(".\n\n");
}

// ---- a table. Each row is held against one limit: copy (bytes), mma or product (FLOPs).
enum class Against { copy, mma, product };
inline void print_table_head() { printf("| kernel | shape | time, us | GB/s | TFLOP/s | of the limit |\n|---|---|---:|---:|---:|---:|\n"); }
inline void print_row(const Limits& l, const char* kernel, const std::string& shape, double seconds, double amount, Against against) {
    const double limit = against == Against::copy  ? l.copy_bytes
                         : against == Against::mma ? l.mma_flops
                                                   : l.product_flops,
                 rate = amount / seconds;
    const char* names[] = {"copy", "mma.sync", "product"};
    std::string gb = against == Against::copy ? format("%.0f", rate / 1e9) : "",
                tf = against == Against::copy ? "" : format("%.1f", rate / 1e12);
    printf("| `%s` | %s | %.1f | %s | %s | %.0f%% of %s |\n", kernel, shape.c_str(), seconds * 1e6, gb.c_str(),
           tf.c_str(), 100 * rate / limit, names[int(against)]);
    fflush(stdout);
}
