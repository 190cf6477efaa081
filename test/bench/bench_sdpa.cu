// Attention's speed on a GPU for every head size with a tensor-core kernel, and what K==V saves, as a Markdown table: TFLOP/s forward and
// backward and the share of mma.sync's rate in registers, measured in the same run. FLOPs are counted as in the FlashAttention papers:
// causal halves T^2, the forward has two products, the backward five (the two more that our split backward computes are not counted).
// Run: bench-sdpa [T [tokens]], default 1024 and 65536 tokens a batch (B = tokens / T), NH = 768 / d_v.
// Not a test of results (test/ops/test_sdpa.cpp), and meaningless under BACKEND=emu, where it serves to see
// that it starts (bench-sdpa 64 64).
#include "attention/sdpa.h"
#include "test/bench/bench_common.cuh"

namespace {
void bench(const Limits& limits, int T, int tokens, int d_qk, int d_v, int group, bool k_is_v) {
    const int B = std::max(1, tokens / T), NH = std::max(group, 768 / d_v / group * group), NKV = NH / group;
    const size_t rows = size_t(B) * T, q_size = size_t(NH) * d_qk, k_size = size_t(NKV) * d_qk, v_size = k_is_v ? 0 : size_t(NKV) * d_v;
    const size_t row = q_size + k_size + v_size, o_row = size_t(NH) * d_v;
    const SdpaShape s{B, T, NH, NKV, d_qk, d_v, row, row, row, o_row};
    Array<floatX> qkv(rows * row, 1), dout(rows * o_row, 2), o(rows * o_row), dqkv(rows * row);
    Array<floatM> lse(rows * size_t(NH));
    const size_t k = q_size, v = k_is_v ? q_size : q_size + k_size;
    const PositionBias bias;
    device_scratch_reserve(sdpa_scratch_bytes(s, bias.kind));
    double forward = median_seconds([&] { sdpa_forward(o, lse, qkv, qkv + k, qkv + v, bias, s); });
    double backward = median_seconds([&] {
        sdpa_backward(dqkv, dqkv + k, dqkv + v, nullptr, nullptr, dout, o, lse, qkv, qkv + k, qkv + v, bias, s, false);
    });
    const double pairs = double(B) * NH * T * T / 2;
    const std::string shape = format("d_qk %d d_v %d%s, B %d T %d NH %d NKV %d", d_qk, d_v, k_is_v ? " K==V" : "", B, T, NH, NKV);
    print_row(limits, "sdpa_forward", shape, forward, pairs * 2 * (d_qk + d_v), Against::mma);
    print_row(limits, "sdpa_backward", shape, backward, pairs * 2 * (3 * d_qk + 2 * d_v), Against::mma);
}
}  // namespace

int main(int argc, char** argv) try {
    const int T = argc > 1 ? atoi(argv[1]) : 1024, tokens = argc > 2 ? atoi(argv[2]) : 65536;
    ensure_usage(T > 0 && tokens > 0, "usage: bench-sdpa [T [tokens]], both positive");
    backend_init(0);
    const bool tiny = T * size_t(tokens) < size_t(1) << 20;
    const Limits limits = measure_limits(tiny);
    print_head(limits, tiny);
    print_table_head();
    for (int d : {32, 64, 96, 128})
        for (bool k_is_v : {false, true}) bench(limits, T, tokens, d, d, 1, k_is_v);
    bench(limits, T, tokens, 64, 64, 4, false);                  // grouped heads
    bench(limits, T, tokens, 48, 32, 1, false);                  // MLA
    bench(limits, T, tokens, 96, 64, 1, false);
    bench(limits, T, tokens, 192, 128, 1, false);
} catch (const Error& e) {
    fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code;
}
