// Attention's speed on a GPU: TFLOP/s forward and backward for every head size with a tensor-core kernel, as a share of the
// device's nominal peak, and what K==V saves. FLOPs are counted as in the FlashAttention papers: causal halves T^2, the forward has
// two products, the backward five (the two more that our split backward computes are not counted).
// Run: bench_sdpa [T [tokens]], default 1024 and 65536 tokens a batch (B = tokens / T), NH = 768 / d_v. Median of 5 rounds.
// Not a test of results (test/test_sdpa.cpp), and meaningless under BACKEND=emu, where it serves to see that it starts.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "attention/sdpa.h"
#include "runtime/backend.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace {
template <class Work> double median_seconds(Work work) {
    using Clock = std::chrono::steady_clock;
    work();                                                      // first call: scratch, code to the device
    device_synchronize();
    int repeats = 1;
    std::vector<double> rounds;
    while (rounds.size() < 5) {
        auto start = Clock::now();
        for (int i = 0; i < repeats; i++) work();
        device_synchronize();
        double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (seconds < 0.02 && repeats < 1000) repeats *= 2;      // long enough that launching and waiting do not show
        else rounds.push_back(seconds / repeats);
    }
    std::sort(rounds.begin(), rounds.end());
    return rounds[2];
}

floatX* random_array(size_t n, uint64_t stream) {
    std::vector<floatX> host(std::min<size_t>(n, 1 << 16));
    for (size_t i = 0; i < host.size(); i++) host[i] = floatX(philox_normal(1, stream, i));
    floatX* device = device_alloc_array<floatX>(n);
    for (size_t i = 0; i < n; i += host.size()) copy_to_device(device + i, host.data(), std::min(host.size(), n - i) * sizeof(floatX));
    return device;
}

void bench(int T, int tokens, int d_qk, int d_v, int group, bool k_is_v, double peak) {
    const int B = std::max(1, tokens / T), NH = std::max(group, 768 / d_v / group * group), NKV = NH / group;
    const size_t rows = size_t(B) * T, q_size = size_t(NH) * d_qk, k_size = size_t(NKV) * d_qk, v_size = k_is_v ? 0 : size_t(NKV) * d_v;
    const size_t row = q_size + k_size + v_size, o_row = size_t(NH) * d_v;
    const SdpaShape s{B, T, NH, NKV, d_qk, d_v, row, row, row, o_row};
    floatX *qkv = random_array(rows * row, 1), *dout = random_array(rows * o_row, 2), *o = device_alloc_array<floatX>(rows * o_row);
    floatX *dqkv = device_alloc_array<floatX>(rows * row);
    floatM* lse = device_alloc_array<floatM>(rows * NH);
    const size_t k = q_size, v = k_is_v ? q_size : q_size + k_size;
    const PositionBias bias;
    double forward = median_seconds([&] { sdpa_forward(o, lse, qkv, qkv + k, qkv + v, bias, s); });
    double backward = median_seconds([&] {
        sdpa_backward(dqkv, dqkv + k, dqkv + v, nullptr, nullptr, dout, o, lse, qkv, qkv + k, qkv + v, bias, s, false);
    });
    const double pairs = double(B) * NH * T * T / 2, forward_flops = pairs * 2 * (d_qk + d_v), backward_flops = pairs * 2 * (3 * d_qk + 2 * d_v);
    auto report = [&](const char* pass, double flops, double seconds) {
        double rate = flops / seconds;
        printf("%-8s d_qk %3d d_v %3d %-5s B %3d T %5d NH %2d NKV %2d  %9.3f ms  %7.1f TFLOP/s", pass, d_qk, d_v, k_is_v ? "K==V" : "", B, T, NH, NKV,
               seconds * 1e3, rate / 1e12);
        if (peak > 0) printf("  %5.1f%% of peak", 100 * rate / peak);
        printf("\n");
    };
    report("forward", forward_flops, forward);
    report("backward", backward_flops, backward);
    for (floatX* p : {qkv, dout, o, dqkv}) device_free(p);
    device_free(lse);
}
}  // namespace

int main(int argc, char** argv) try {
    const int T = argc > 1 ? atoi(argv[1]) : 1024, tokens = argc > 2 ? atoi(argv[2]) : 65536;
    ensure_usage(T > 0 && tokens > 0, "usage: bench_sdpa [T [tokens]], both positive");
    backend_init(0);
    const DeviceFacts facts = device_facts();
    printf("%s, %s, %s, nominal peak %.0f TFLOP/s\n", backend_name(), facts.name.c_str(), PRECISION_NAME, facts.peak_flops / 1e12);
    for (int d : {32, 64, 96, 128})
        for (bool k_is_v : {false, true}) bench(T, tokens, d, d, 1, k_is_v, facts.peak_flops);
    bench(T, tokens, 64, 64, 4, false, facts.peak_flops);        // grouped heads
    bench(T, tokens, 48, 32, 1, false, facts.peak_flops);        // MLA
    bench(T, tokens, 96, 64, 1, false, facts.peak_flops);
    bench(T, tokens, 192, 128, 1, false, facts.peak_flops);
} catch (const Error& e) {
    fprintf(stderr, "bench_sdpa: %s\n", e.what());
    return e.exit_code;
}
