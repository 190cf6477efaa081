// Every kernel's speed on a GPU at the sizes of GPT-2 124M and 1.5B: time, GB/s or TFLOP/s, and the share of a limit measured in the same
// run, as a Markdown table. Bytes are what must be moved at least: each tensor read or written once. FLOPs of attention as in the
// FlashAttention papers: causal halves T^2, the forward has two products, the backward five.
// Run: bench-kernels [tiny]. tiny: sizes for the emulation, where the times mean nothing.
#include <set>

#include "attention/sdpa.h"
#include "layers/adamw.h"
#include "layers/column_sums.cuh"
#include "layers/crossentropy.h"
#include "layers/embedding.h"
#include "layers/layernorm.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "test/bench/bench_common.cuh"

namespace {
constexpr double X = sizeof(floatX), M = sizeof(floatM);

struct Model { const char* name; size_t rows; int T, C, NH, Vp; size_t params; };

std::string shape_text(const Model& m, int columns) { return format("%s: %zu x %d", m.name, m.rows, columns); }

void bench_norms(const Limits& l, const Model& m) {
    const size_t n = m.rows * size_t(m.C);
    Array<floatX> x(n, 1), branch(n, 2), sum(n), y(n), w(size_t(m.C), 3), b(size_t(m.C), 4), dy(n, 5, 1e-3), dx(n);
    Array<floatM> mean(m.rows), rstd(m.rows), dw(size_t(m.C)), db(size_t(m.C));
    auto row = [&](const char* kernel, double tensors, const std::function<void()>& work) {
        print_row(l, kernel, shape_text(m, m.C), median_seconds(work), tensors * double(n) * X, Against::copy);
    };
    row("layernorm_forward", 2, [&] { layernorm_forward(y, mean, rstd, x, w, b, m.rows, m.C); });
    row("residual_layernorm_forward", 4, [&] { residual_layernorm_forward(sum, y, mean, rstd, x, branch, w, b, m.rows, m.C); });
    row("layernorm_backward", 4, [&] { layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, m.rows, m.C, true, true); });
    row("rmsnorm_forward", 2, [&] { rmsnorm_forward(y, rstd, x, w, m.rows, m.C, size_t(m.C)); });
    row("rmsnorm_backward", 3, [&] { rmsnorm_backward(dx, dw, dy, x, w, rstd, m.rows, m.C, size_t(m.C), true); });
    row("column_sums", 1, [&] { column_sums(db, dy, m.rows, m.C, size_t(m.C), true); });
}

void bench_embedding_and_rope(const Limits& l, const Model& m) {
    const size_t n = m.rows * size_t(m.C);
    const int B = int(m.rows / size_t(m.T)), HS = m.C / m.NH;
    std::vector<int> ids(m.rows);
    for (size_t i = 0; i < ids.size(); i++) {                    // frequent tokens are frequent: p(k) about 1 / k, as in text
        double u = philox_uniform(1, 7, i);
        ids[i] = std::min(m.Vp - 1, int(std::pow(double(m.Vp), u)) - 1);
    }
    const double distinct = double(std::set<int>(ids.begin(), ids.end()).size());
    Array<int> tokens(m.rows);
    copy_to_device(tokens, ids.data(), m.rows * sizeof(int));
    Array<floatX> x(n, 1), wte(size_t(m.Vp) * size_t(m.C), 2), pos(size_t(m.T) * size_t(m.C), 3), y(n);
    Array<floatM> dwte(size_t(m.Vp) * size_t(m.C)), dpos(size_t(m.T) * size_t(m.C)), table(size_t(m.T) * size_t(HS));
    auto row = [&](const char* kernel, double bytes, const std::function<void()>& work) {
        print_row(l, kernel, shape_text(m, m.C), median_seconds(work), bytes, Against::copy);
    };
    row("embedding_forward", (double(n) + distinct * m.C + double(m.T) * m.C) * X + double(n),
        [&] { embedding_forward(y, tokens, wte, pos, B, m.T, m.C); });
    row("embedding_backward", 2 * double(n) * X + 2 * distinct * m.C * M + double(m.T) * m.C * M,
        [&] { embedding_backward(dwte, dpos, x, ids.data(), B, m.T, m.C, false); });
    std::vector<floatM> angles(size_t(m.T) * size_t(HS));
    rope_table(angles.data(), m.T, HS, 10000);
    copy_to_device(table, angles.data(), angles.size() * sizeof(floatM));
    const RopeShape s{B, m.T, m.NH, HS, size_t(m.C), size_t(HS), size_t(m.C), size_t(HS)};
    row("rope_forward", 2 * double(n) * X, [&] { rope_forward(y, x, table, s); });
    row("rope_backward", 2 * double(n) * X, [&] { rope_backward(y, x, table, s); });
}

void bench_loss_and_update(const Limits& l, const Model& m) {
    {
        const size_t n = m.rows * size_t(m.Vp);
        Array<floatX> logits(n, 1);
        Array<int> targets(m.rows);
        Array<floatM> losses(m.rows);
        const int V = m.Vp - 47 > 0 ? m.Vp - 47 : m.Vp;          // GPT-2's 50257 of 50304
        double seconds = median_seconds([&] { crossentropy_forward_backward(losses, logits, targets, m.rows, V, m.Vp, floatM(1e-5)); });
        print_row(l, "crossentropy_forward_backward", shape_text(m, m.Vp), seconds, 2 * double(n) * X, Against::copy);
        seconds = median_seconds([&] { crossentropy_forward(losses, logits, targets, m.rows, V, m.Vp); });
        print_row(l, "crossentropy_forward", shape_text(m, m.Vp), seconds, double(n) * X, Against::copy);
    }
    const bool has_master = sizeof(floatX) != sizeof(floatM);
    Array<floatX> weights(m.params, 1);
    Array<floatM> grad(m.params, 2), m1(m.params), m2(m.params), norm(1), master(has_master ? m.params : 1);
    const std::string shape = format("%s: %zu parameters", m.name, m.params);
    Array<double> sums(ceil_div(m.params, NORM_BLOCK));
    print_row(l, "sum_squares, norm_of_sums", shape,
              median_seconds([&] { sum_squares(sums, grad, m.params), norm_of_sums(norm, sums, sums.n); }),
              double(m.params) * M, Against::copy);
    print_row(l, "add_gradient", shape, median_seconds([&] { add_gradient(m1, grad, m.params, true); }),
              3 * double(m.params) * M, Against::copy);
    const AdamW a{1e-4, 0.9, 0.95, 1e-8, 0.1, 1.0, 10, -INFINITY};
    double seconds = median_seconds([&] { adamw_update(weights, has_master ? master.p : nullptr, m1, m2, grad, m.params, norm, a); });
    // 30 bytes with bf16
    print_row(l, "adamw_update", shape, seconds, double(m.params) * (has_master ? 7 * M + X : 5 * M + 2 * X), Against::copy);
}

// Forward, gradient of the input, gradient of weight and bias, of every product in a block, and the head.
void bench_linear(const Limits& l, const Model& m) {
    struct { const char* name; int in, out; bool gelu, bias; } products[] = {
        {"q, k, v", m.C, 3 * m.C, false, true}, {"o", m.C, m.C, false, true}, {"fc with GELU", m.C, 4 * m.C, true, true},
        {"proj", 4 * m.C, m.C, false, true}, {"head", m.C, m.Vp, false, false}};
    for (auto [name, in, out, gelu, bias] : products) {
        const size_t n_in = m.rows * size_t(in), n_out = m.rows * size_t(out);
        const double flops = 2 * double(m.rows) * in * out;
        Array<floatX> x(n_in, 1), w(size_t(in) * out, 2, 0.02), b(size_t(out), 3), y(n_out, 4, 1e-2), act(gelu ? n_out : 1), dx(n_in);
        Array<floatM> dw(size_t(in) * out), db(n_out / m.rows);
        const LinearShape s = linear_shape(m.rows, in, out);
        const std::string shape = format("%s, %s: %zu x %d x %d", m.name, name, m.rows, in, out);
        auto row = [&](const char* kernel, const std::function<void()>& work) {
            print_row(l, kernel, shape, median_seconds(work), flops, Against::product);
        };
        row("linear_backward_input", [&] { linear_backward_input(dx, y, w, s); });
        row("linear_backward_weight", [&] { linear_backward_weight(dw, bias ? db.p : nullptr, y, x, s, false); });
        row("linear_forward", [&] { linear_forward(y, x, w, bias ? b.p : nullptr, s, false, gelu ? act.p : nullptr); });
        if (!gelu) continue;                                     // proj's dx with the GELU's derivative: (rows, out) wide
        Array<floatX> dhidden(n_out), wide(size_t(in) * out, 5, 0.02);
        row("linear_backward_input, GELU'", [&] { linear_backward_input(dhidden, x, wide, linear_shape(m.rows, out, in), false, y); });
    }
}

// QKV, and QV's K == V, with the same heads: QV is to be the faster one.
void bench_attention(const Limits& l, const Model& m) {
    const int B = int(m.rows / size_t(m.T)), HS = m.C / m.NH;
    const PositionBias bias;
    for (bool k_is_v : {false, true}) {
        const size_t C = size_t(m.C), row = k_is_v ? 2 * C : 3 * C, v = k_is_v ? C : 2 * C;
        const SdpaShape s{B, m.T, m.NH, m.NH, HS, HS, row, row, row, C};
        Array<floatX> qkv(m.rows * row, 1), dout(m.rows * C, 2), o(m.rows * C), dqkv(m.rows * row);
        Array<floatM> lse(m.rows * size_t(m.NH));
        device_scratch_reserve(sdpa_scratch_bytes(s, bias.kind));
        const double pairs = double(B) * m.NH * m.T * m.T / 2;
        const std::string shape = format("%s: B %d T %d NH %d HS %d, %s", m.name, B, m.T, m.NH, HS, k_is_v ? "K == V" : "K, V");
        double forward = median_seconds([&] { sdpa_forward(o, lse, qkv, qkv + C, qkv + v, bias, s); });
        print_row(l, "sdpa_forward", shape, forward, pairs * 4 * HS, Against::mma);
        double backward = median_seconds([&] {
            sdpa_backward(dqkv, dqkv + C, dqkv + v, nullptr, nullptr, dout, o, lse, qkv, qkv + C, qkv + v, bias, s,
                          false);
        });
        print_row(l, "sdpa_backward", shape, backward, pairs * 10 * HS, Against::mma);
    }
}
}  // namespace

int main(int argc, char** argv) try {
    const bool tiny = argc > 1 && std::string(argv[1]) == "tiny";
    ensure_usage(argc == 1 || (argc == 2 && tiny), "usage: bench-kernels [tiny]");
    backend_init(0);
    const Limits limits = measure_limits(tiny);
    print_head(limits, tiny);
    print_table_head();
    const std::vector<Model> models = tiny ? std::vector<Model>{{"tiny", 64, 32, 64, 2, 128, 5000}}
                                           : std::vector<Model>{{"124M", 64 * 1024, 1024, 768, 12, 50304, 124475904},
                                                                {"1.5B", 16 * 1024, 1024, 1600, 25, 50304, 400000000}};
    for (const Model& m : models)
        for (auto bench : {bench_norms, bench_embedding_and_rope, bench_loss_and_update, bench_linear, bench_attention}) bench(limits, m);
} catch (const Error& e) {
    fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code;
}
