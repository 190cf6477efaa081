// Copies of parts of rows and SwiGLU against oracles; rmsnorm as a block's norm (with the residual, adding to dx).
#include "layers/copy.h"
#include "layers/rmsnorm.h"
#include "layers/swiglu.h"
#include "test/ops/op_common.h"

// ---------------------------------------------------------------------------------------------- copy

static size_t out_size(const CopyShape& s) { return (s.rows - 1) * s.out_row + size_t(s.heads - 1) * s.out_head + size_t(s.d); }
static size_t in_size(const CopyShape& s) { return (s.rows - 1) * s.in_row + size_t(s.heads - 1) * s.in_head + size_t(s.d); }

TEST_CASE("copy: every element in its place, the rest untouched; backward sums over the heads that share a source") {
    backend_init(0);
    const CopyShape shapes[] = {{1, 1, 1, 1, 1, 1, 1}, {5, 3, 4, 24, 8, 12, 4}, {5, 3, 4, 24, 8, 7, 0},
                                {67, 2, 16, 64, 32, 40, 16}, {33, 4, 8, 96, 24, 8, 0}, {9, 3, 5, 33, 11, 17, 5}};
    for (const CopyShape& s : shapes) {
        INFO("rows ", s.rows, " heads ", s.heads, " d ", s.d, " in_head ", s.in_head);
        auto in = normal_vector<floatX>(in_size(s), 1), out0 = normal_vector<floatX>(out_size(s), 2);
        DX In(in), Out(out0);
        copy_forward(Out, In, s);
        std::vector<floatX> want = out0, got = Out.get();
        for (size_t r = 0; r < s.rows; r++)
            for (int h = 0; h < s.heads; h++)
                for (int i = 0; i < s.d; i++) want[r * s.out_row + h * s.out_head + i] = in[r * s.in_row + h * s.in_head + i];
        for (size_t i = 0; i < want.size(); i++) {
            INFO("element ", i);
            REQUIRE(double(got[i]) == double(want[i]));
        }
        for (bool add : {false, true}) {
            DX dIn(in), dOut(out0);
            copy_backward(dIn, dOut, s, add);
            auto back = [&]<class R>(R) {
                std::vector<R> din = convert<R>(wide(in)), dout = convert<R>(wide(out0));
                for (size_t r = 0; r < s.rows; r++)
                    for (int i = 0; i < s.d; i++)
                        for (int h = 0; h < s.heads; h++) {
                            R& d = din[r * s.in_row + h * s.in_head + i];
                            const bool first = h == 0 || s.in_head > 0;
                            d = (add || !first ? d : R(0)) + dout[r * s.out_row + h * s.out_head + i];
                        }
                return din;
            };
            check_close(add ? "din, added" : "din", dIn.get(), back(Wide()), back(floatM()));
        }
    }
}

// ---------------------------------------------------------------------------------------------- SwiGLU

template <class R> static R silu(R g) { return g / (1 + std::exp(-g)); }
template <class R> static R silu_slope(R g) {
    R s = 1 / (1 + std::exp(-g));
    return s + g * s * (1 - s);
}

TEST_CASE("SwiGLU forward and backward") {
    backend_init(0);
    struct { size_t rows; int F; double scale; } cases[] = {{1, 1, 1}, {3, 5, 1}, {33, 24, 3}, {7, 344, 10}, {130, 257, 1}};
    for (const auto& shape : cases) {
        const size_t rows = shape.rows;              // (no structured bindings: clang 14 lets no lambda, and so no INFO, use them)
        const int F = shape.F;
        const double scale = shape.scale;
        INFO(rows, " x ", F);
        const size_t n = rows * size_t(F);
        auto gate_up = normal_vector<floatX>(2 * n, 1, scale), dy = normal_vector<floatX>(n, 2);
        DX G(gate_up), Y(n), dY(dy), dG(2 * n);
        swiglu_forward(Y, G, rows, F);
        swiglu_backward(dG, dY, G, rows, F);
        auto run = [&, rows = rows, F = F]<class R>(R) {
            std::vector<R> in = convert<R>(wide(gate_up)), d = convert<R>(wide(dy)), y(n), din(2 * n);
            for (size_t r = 0; r < rows; r++)
                for (int i = 0; i < F; i++) {
                    const size_t g = r * 2 * F + i, u = g + F, o = r * F + i;
                    y[o] = silu(in[g]) * in[u];
                    din[g] = d[o] * in[u] * silu_slope(in[g]);
                    din[u] = d[o] * silu(in[g]);
                }
            return std::pair{y, din};
        };
        auto ref = run(Wide());
        auto naive = run(floatM());
        check_close("y", Y.get(), ref.first, naive.first);
        check_close("dgate_up", dG.get(), ref.second, naive.second);
    }
}

TEST_CASE("SwiGLU far out: no NaN where exp overflows") {
    backend_init(0);
    const std::vector<floatX> gate_up = {floatX(-1000.0f), floatX(1000.0f),   floatX(-90.0f), floatX(90.0f),
                                         floatX(0.0f),     floatX(-10000.0f), floatX(2.0f),   floatX(2.0f),
                                         floatX(2.0f),     floatX(2.0f),      floatX(2.0f),   floatX(2.0f)};
    const std::vector<floatX> dy(6, floatX(1.0f));
    DX G(gate_up), Y(6), dY(dy), dG(12);
    swiglu_forward(Y, G, 1, 6);
    swiglu_backward(dG, dY, G, 1, 6);
    const double want[] = {0, 2000, 0, 180, 0, 0}, want_dg[] = {0, 2, 0, 2, 1, 0}, want_du[] = {0, 1000, 0, 90, 0, 0};
    std::vector<floatX> y = Y.get(), d = dG.get();
    for (size_t i = 0; i < 6; i++) {
        INFO("g = ", double(gate_up[i]));
        CHECK(double(y[i]) == doctest::Approx(want[i]).epsilon(1e-6));
        CHECK(double(d[i]) == doctest::Approx(want_dg[i]).epsilon(1e-6));
        CHECK(double(d[6 + i]) == doctest::Approx(want_du[i]).epsilon(1e-6));
    }
}

// ---------------------------------------------------------------------------------------------- rmsnorm as a block's norm

TEST_CASE("rmsnorm with the residual, and its backward added to the residual stream's gradient") {
    backend_init(0);
    struct { size_t rows; int C; } shapes[] = {{1, 2}, {3, 48}, {37, 65}, {9, 768}};
    for (const auto& shape : shapes) {
        const size_t rows = shape.rows;
        const int C = shape.C;
        INFO(rows, " x ", C);
        const size_t n = rows * size_t(C);
        auto x = normal_vector<floatX>(n, 1), branch = normal_vector<floatX>(n, 2),
             w = normal_vector<floatX>(size_t(C), 3, 0.5, 1), dy = normal_vector<floatX>(n, 4),
             dx0 = normal_vector<floatX>(n, 5);
        DX X(x), Branch(branch), W(w), Sum(n), Y(n), Y2(n), dY(dy), dXa(dx0), dXs(dx0);
        DM Rstd(rows), Rstd2(rows), dW{std::vector<floatM>(size_t(C))}, dW2{std::vector<floatM>(size_t(C))};
        // The fused pass is the addition, then rmsnorm, which test_ops_linear_norm.cpp holds against its oracle: the same bits.
        residual_rmsnorm_forward(Sum, Y, Rstd, X, Branch, W, rows, C);
        rmsnorm_forward(Y2, Rstd2, Sum, W, rows, C, size_t(C));
        std::vector<floatX> sum = Sum.get(), y = Y.get(), y2 = Y2.get();
        for (size_t i = 0; i < n; i++) {
            REQUIRE(double(sum[i]) == double(floatX(floatM(x[i]) + floatM(branch[i]))));
            REQUIRE(double(y[i]) == double(y2[i]));
        }
        CHECK(Rstd.get() == Rstd2.get());
        rmsnorm_backward(dXs, dW, dY, Sum, W, Rstd, rows, C, size_t(C), false);
        rmsnorm_backward(dXa, dW2, dY, Sum, W, Rstd, rows, C, size_t(C), false, true);
        CHECK(dW.get() == dW2.get());
        auto added = [&]<class R>(R) {
            std::vector<R> dx = convert<R>(wide(dx0)), back = convert<R>(wide(dXs.get()));
            for (size_t i = 0; i < n; i++) dx[i] += back[i];
            return dx;
        };
        // (`back` was rounded once more than the fused result: one roundoff of it is allowed by check_close)
        check_close("dx, added", dXa.get(), added(Wide()), added(floatM()));
    }
}
