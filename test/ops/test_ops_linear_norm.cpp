// Linear layers and norms, forward and backward, against oracles in long double, at awkward shapes.
#include "test/ops/op_common.h"

#include "layers/layernorm.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"

template <class R> R gelu_of(R x) { return x / 2 * (1 + std::tanh(std::sqrt(R(2) / R(M_PIl)) * (x + R(0.044715L) * x * x * x))); }
template <class R> R gelu_slope(R x) {
    R k = std::sqrt(R(2) / R(M_PIl)), t = std::tanh(k * (x + R(0.044715L) * x * x * x));
    return (1 + t) / 2 + x / 2 * (1 - t * t) * k * (1 + 3 * R(0.044715L) * x * x);
}

// ---------------------------------------------------------------------------------------------- linear

template <class R>
std::vector<R> linear_oracle(std::vector<R> y, const std::vector<R>& x, const std::vector<R>& w,
                             const std::vector<R>* b, const LinearShape& s, bool add) {
    for (int h = 0; h < s.batch; h++)
        for (size_t r = 0; r < s.rows; r++)
            for (int o = 0; o < s.out; o++) {
                R sum = b ? (*b)[size_t(o)] : R(0);
                for (int i = 0; i < s.in; i++)
                    sum +=
                        x[h * s.batch_x + r * s.ld_in + size_t(i)] * w[h * s.batch_w + size_t(o) * s.ld_w + size_t(i)];
                R& out = y[h * s.batch_out + r * s.ld_out + size_t(o)];
                out = (add ? out : R(0)) + sum;
            }
    return y;
}
template <class R>
std::vector<R> linear_input_oracle(std::vector<R> dx, const std::vector<R>& dy, const std::vector<R>& w,
                                   const LinearShape& s, bool add) {
    for (int h = 0; h < s.batch; h++)
        for (size_t r = 0; r < s.rows; r++)
            for (int i = 0; i < s.in; i++) {
                R sum = 0;
                for (int o = 0; o < s.out; o++)
                    sum += dy[h * s.batch_out + r * s.ld_out + size_t(o)] *
                           w[h * s.batch_w + size_t(o) * s.ld_w + size_t(i)];
                R& out = dx[h * s.batch_x + r * s.ld_in + size_t(i)];
                out = (add || (h > 0 && s.batch_x == 0) ? out : R(0)) + sum;
            }
    return dx;
}
template <class R>
std::vector<R> linear_weight_oracle(std::vector<R> dw, const std::vector<R>& dy, const std::vector<R>& x,
                                    const LinearShape& s, bool add) {
    for (int h = 0; h < s.batch; h++)
        for (int o = 0; o < s.out; o++)
            for (int i = 0; i < s.in; i++) {
                R sum = 0;
                for (size_t r = 0; r < s.rows; r++)
                    sum += dy[h * s.batch_out + r * s.ld_out + size_t(o)] * x[h * s.batch_x + r * s.ld_in + size_t(i)];
                R& out = dw[h * s.batch_w + size_t(o) * s.ld_w + size_t(i)];
                out = (add || (h > 0 && s.batch_w == 0) ? out : R(0)) + sum;
            }
    return dw;
}

// The buffers of one linear call: sizes follow from the strides.
struct LinearCase { std::string name; LinearShape s; };
static std::vector<LinearCase> linear_cases() {
    return {{"1x1x1", linear_shape(1, 1, 1)},
            {"3x5x7", linear_shape(3, 5, 7)},
            {"130x48x200", linear_shape(130, 48, 200)},
            {"600x128x384", linear_shape(600, 128, 384)},          // several pieces by rows
            {"40x96x1000", linear_shape(40, 96, 1000)},            // several pieces by columns
            {"strided rows", {67, 24, 40, 31, 24, 53}},
            {"weights in a wider matrix", {67, 24, 40, 24, 35, 40}},
            {"heads, each its own", {33, 8, 12, 40, 8, 60, 4, 8, 96, 12}},
            {"heads sharing x", {33, 16, 12, 16, 16, 60, 4, 0, 192, 15}},
            {"heads sharing w", {33, 8, 8, 40, 20, 40, 4, 8, 0, 8}},
            {"heads sharing x and w", {33, 16, 8, 16, 20, 40, 4, 0, 0, 8}}};
}
static size_t x_size(const LinearShape& s) { return (s.rows - 1) * s.ld_in + size_t(s.batch - 1) * s.batch_x + size_t(s.in); }
static size_t w_size(const LinearShape& s) { return size_t(s.out - 1) * s.ld_w + size_t(s.batch - 1) * s.batch_w + size_t(s.in); }
static size_t y_size(const LinearShape& s) { return (s.rows - 1) * s.ld_out + size_t(s.batch - 1) * s.batch_out + size_t(s.out); }

TEST_CASE("linear forward") {
    backend_init(0);
    for (const LinearCase& c : linear_cases())
        for (bool add : {false, true}) {
            const LinearShape& s = c.s;
            bool with_bias = s.batch == 1;
            auto x = normal_vector<floatX>(x_size(s), 1), w = normal_vector<floatX>(w_size(s), 2),
                 b = normal_vector<floatX>(size_t(s.out), 3), y0 = normal_vector<floatX>(y_size(s), 4);
            DX dx(x), dw(w), db(b), dy(y0);
            linear_forward(dy, dx, dw, with_bias ? db.p : nullptr, s, add);
            auto run = [&]<class R>(R) {
                auto bias = convert<R>(wide(b));
                return linear_oracle<R>(convert<R>(wide(y0)), convert<R>(wide(x)), convert<R>(wide(w)),
                                        with_bias ? &bias : nullptr, s, add);
            };
            check_close(c.name + (add ? ", added" : ""), dy.get(), run(Wide()), run(floatM()));
        }
}

TEST_CASE("linear forward with GELU keeps both") {
    backend_init(0);
    for (const LinearShape& s : {linear_shape(5, 3, 7), linear_shape(300, 64, 256), LinearShape{31, 12, 20, 12, 12, 29}}) {
        auto x = normal_vector<floatX>(x_size(s), 1), w = normal_vector<floatX>(w_size(s), 2),
             b = normal_vector<floatX>(size_t(s.out), 3), zero = std::vector<floatX>(y_size(s));
        DX dx(x), dw(w), db(b), dy(zero), dg(zero);
        linear_forward(dy, dx, dw, db, s, false, dg);
        auto run = [&]<class R>(R, bool activated) {
            auto bias = convert<R>(wide(b));
            auto y = linear_oracle<R>(convert<R>(wide(zero)), convert<R>(wide(x)), convert<R>(wide(w)), &bias, s, false);
            if (activated) for (R& v : y) v = gelu_of(v);
            return y;
        };
        check_close("pre-activation", dy.get(), run(Wide(), false), run(floatM(), false));
        check_close("gelu", dg.get(), run(Wide(), true), run(floatM(), true));
    }
}

TEST_CASE("linear backward: input, weight, bias") {
    backend_init(0);
    for (const LinearCase& c : linear_cases())
        for (bool add : {false, true}) {
            const LinearShape& s = c.s;
            auto x = normal_vector<floatX>(x_size(s), 1), w = normal_vector<floatX>(w_size(s), 2),
                 dy = normal_vector<floatX>(y_size(s), 3), dx0 = normal_vector<floatX>(x_size(s), 4);
            auto dw0 = normal_vector<floatM>(w_size(s), 5), db0 = normal_vector<floatM>(size_t(s.out), 6);
            DX X(x), W(w), dY(dy), dXd(dx0);
            DM dW(dw0), dB(db0);
            linear_backward_input(dXd, dY, W, s, add);
            linear_backward_weight(dW, s.batch == 1 ? dB.p : nullptr, dY, X, s, add);
            auto input = [&]<class R>(R) {
                return linear_input_oracle<R>(convert<R>(wide(dx0)), convert<R>(wide(dy)), convert<R>(wide(w)), s, add);
            };
            auto weight = [&]<class R>(R) {
                return linear_weight_oracle<R>(convert<R>(dw0), convert<R>(wide(dy)), convert<R>(wide(x)), s, add);
            };
            auto bias = [&]<class R>(R) {
                std::vector<R> sum = convert<R>(db0);
                for (int o = 0; o < s.out; o++) {
                    R total = 0;
                    for (size_t r = 0; r < s.rows; r++) total += R(double(dy[r * s.ld_out + size_t(o)]));
                    sum[size_t(o)] = (add ? sum[size_t(o)] : R(0)) + total;
                }
                return sum;
            };
            check_close(c.name + ", dx", dXd.get(), input(Wide()), input(floatM()));
            check_close(c.name + ", dw", dW.get(), weight(Wide()), weight(floatM()));
            if (s.batch == 1) check_close(c.name + ", db", dB.get(), bias(Wide()), bias(floatM()));
        }
}

TEST_CASE("linear backward through GELU") {
    backend_init(0);
    for (int in : {30, 32}) {                                // element by element; in vectors
        LinearShape s = linear_shape(70, in, 50);
        auto w = normal_vector<floatX>(w_size(s), 2), dy = normal_vector<floatX>(y_size(s), 3);
        auto pre = normal_vector<floatX>(x_size(s), 4, 2);
        DX W(w), dY(dy), P(pre), dXd(x_size(s));
        linear_backward_input(dXd, dY, W, s, false, P);
        auto run = [&]<class R>(R) {
            auto dx = linear_input_oracle<R>(std::vector<R>(x_size(s)), convert<R>(wide(dy)), convert<R>(wide(w)), s, false);
            for (size_t i = 0; i < dx.size(); i++) dx[i] *= gelu_slope<R>(R(double(pre[i])));
            return dx;
        };
        check_close("dx", dXd.get(), run(Wide()), run(floatM()));
    }
}

// ---------------------------------------------------------------------------------------------- norms

// outputs: y, mean, rstd
template <class R> struct NormForward { std::vector<R> y, mean, rstd; };
template <class R>
NormForward<R> norm_oracle(const std::vector<R>& x, const std::vector<R>& w, const std::vector<R>* b, size_t rows,
                           int C, size_t ld, bool centre, double eps) {
    NormForward<R> f{std::vector<R>(rows * size_t(C)), std::vector<R>(rows), std::vector<R>(rows)};
    for (size_t r = 0; r < rows; r++) {
        R mean = 0, square = 0;
        for (int c = 0; centre && c < C; c++) mean += x[r * ld + size_t(c)] / C;
        for (int c = 0; c < C; c++) square += (x[r * ld + size_t(c)] - mean) * (x[r * ld + size_t(c)] - mean) / C;
        f.mean[r] = mean;
        f.rstd[r] = 1 / std::sqrt(square + R(eps));
        for (int c = 0; c < C; c++)
            f.y[r * size_t(C) + size_t(c)] =
                (x[r * ld + size_t(c)] - mean) * f.rstd[r] * w[size_t(c)] + (b ? (*b)[size_t(c)] : R(0));
    }
    return f;
}
// The backward from the definition's Jacobian: dx_i = sum_j g_j d n_j / d x_i, with n = (x - mean) rstd.
template <class R>
void norm_backward_oracle(std::vector<R>& dx, std::vector<R>& dw, std::vector<R>& db, const std::vector<R>& dy,
                          const std::vector<R>& x, const std::vector<R>& w, size_t rows, int C, size_t ld, bool centre,
                          double eps, bool add_dx, bool add_dw) {
    auto f = norm_oracle<R>(x, std::vector<R>(size_t(C), 1), nullptr, rows, C, ld, centre, eps);      // y = n
    if (!add_dw) std::fill(dw.begin(), dw.end(), R(0)), std::fill(db.begin(), db.end(), R(0));
    for (size_t r = 0; r < rows; r++)
        for (int i = 0; i < C; i++) {
            R sum = 0, ni = f.y[r * size_t(C) + size_t(i)];
            for (int j = 0; j < C; j++) {
                R nj = f.y[r * size_t(C) + size_t(j)], jacobian = (i == j ? R(1) : R(0)) - (centre ? R(1) / C : R(0)) - ni * nj / C;
                sum += dy[r * size_t(C) + size_t(j)] * w[size_t(j)] * f.rstd[r] * jacobian;
            }
            R& out = dx[r * ld + size_t(i)];
            out = (add_dx ? out : R(0)) + sum;
            dw[size_t(i)] += dy[r * size_t(C) + size_t(i)] * ni;
            db[size_t(i)] += dy[r * size_t(C) + size_t(i)];
        }
}
struct NormShape { size_t rows; int C; };
// C = 1 is left out: its output is the constant b and its gradient 0 / sqrt(eps).
// From 256 on: each number of vectors that layernorm's backward keeps in registers, and a width beyond them.
static const NormShape NORM_SHAPES[] = {{1, 2}, {1, 5}, {3, 48}, {37, 65}, {130, 128}, {9, 768},
                                        {2, 256}, {2, 384}, {2, 512}, {2, 1024}, {1, 1792}, {1, 2048}};
// (rows = rows, C = C: clang before version 16 lets no lambda capture a structured binding by [&] alone.)

TEST_CASE("layernorm forward, alone and with the residual") {
    backend_init(0);
    for (auto [rows, C] : NORM_SHAPES) {
        size_t n = rows * size_t(C);
        auto x = normal_vector<floatX>(n, 1, 1, 0.5), branch = normal_vector<floatX>(n, 2),
             w = normal_vector<floatX>(size_t(C), 3, 0.5, 1), b = normal_vector<floatX>(size_t(C), 4);
        DX X(x), Br(branch), W(w), Bi(b), Y(n), S(n), Y2(n);
        DM M(rows), Rs(rows), M2(rows), Rs2(rows);
        layernorm_forward(Y, M, Rs, X, W, Bi, rows, C);
        residual_layernorm_forward(S, Y2, M2, Rs2, X, Br, W, Bi, rows, C);
        std::vector<floatX> sum(n);
        for (size_t i = 0; i < n; i++) sum[i] = floatX(floatM(x[i]) + floatM(branch[i]));
        auto run = [&, rows = rows, C = C]<class R>(R, const std::vector<floatX>& input) {
            auto bias = convert<R>(wide(b));
            return norm_oracle<R>(convert<R>(wide(input)), convert<R>(wide(w)), &bias, rows, C, size_t(C), true, LAYERNORM_EPS);
        };
        auto ref = run(Wide(), x);
        auto naive = run(floatM(), x);
        check_close("y", Y.get(), ref.y, naive.y);
        check_close("mean", M.get(), ref.mean, naive.mean);
        check_close("rstd", Rs.get(), ref.rstd, naive.rstd);
        check_close("residual sum", S.get(), wide(sum), convert<floatM>(wide(sum)));
        auto ref2 = run(Wide(), sum);
        auto naive2 = run(floatM(), sum);
        check_close("y of the sum", Y2.get(), ref2.y, naive2.y);
        check_close("rstd of the sum", Rs2.get(), ref2.rstd, naive2.rstd);
    }
}

TEST_CASE("layernorm backward") {
    backend_init(0);
    for (auto [rows, C] : NORM_SHAPES)
        for (bool add : {false, true}) {
            size_t n = rows * size_t(C);
            auto x = normal_vector<floatX>(n, 1, 1, 0.5), w = normal_vector<floatX>(size_t(C), 3, 0.5, 1),
                 b = normal_vector<floatX>(size_t(C), 4), dy = normal_vector<floatX>(n, 5),
                 dx0 = normal_vector<floatX>(n, 6);
            auto dw0 = normal_vector<floatM>(size_t(C), 7), db0 = normal_vector<floatM>(size_t(C), 8);
            DX X(x), W(w), Bi(b), Y(n), dY(dy), dXd(dx0);
            DM M(rows), Rs(rows), dW(dw0), dB(db0);
            layernorm_forward(Y, M, Rs, X, W, Bi, rows, C);
            layernorm_backward(dXd, dW, dB, dY, X, W, M, Rs, rows, C, add, add);
            auto run = [&, rows = rows, C = C]<class R>(R) {
                auto dx = convert<R>(wide(dx0)), dw = convert<R>(dw0), db = convert<R>(db0);
                norm_backward_oracle<R>(dx, dw, db, convert<R>(wide(dy)), convert<R>(wide(x)), convert<R>(wide(w)),
                                        rows, C, size_t(C), true, LAYERNORM_EPS, add, add);
                return std::vector<std::vector<R>>{dx, dw, db};
            };
            auto ref = run(Wide());
            auto naive = run(floatM());
            check_close("dx", dXd.get(), ref[0], naive[0]);
            check_close("dw", dW.get(), ref[1], naive[1]);
            check_close("db", dB.get(), ref[2], naive[2]);
        }
}

TEST_CASE("rmsnorm on a slice of a wider matrix") {
    backend_init(0);
    for (auto [rows, C] : NORM_SHAPES)
        for (bool add : {false, true}) {
            size_t ld = size_t(C) + 3, n = rows * ld;
            auto x = normal_vector<floatX>(n, 1), w = normal_vector<floatX>(size_t(C), 3, 0.5, 1),
                 dy = normal_vector<floatX>(rows * size_t(C), 5), dx0 = normal_vector<floatX>(n, 6);
            auto dw0 = normal_vector<floatM>(size_t(C), 7);
            DX X(x), W(w), Y(rows * size_t(C)), dY(dy), dXd(dx0);
            DM Rs(rows), dW(dw0);
            rmsnorm_forward(Y, Rs, X, W, rows, C, ld);
            rmsnorm_backward(dXd, dW, dY, X, W, Rs, rows, C, ld, add);
            auto forward = [&, rows = rows, C = C]<class R>(R) {
                return norm_oracle<R>(convert<R>(wide(x)), convert<R>(wide(w)), nullptr, rows, C, ld, false,
                                      RMSNORM_EPS);
            };
            auto back = [&, rows = rows, C = C]<class R>(R) {
                auto dx = convert<R>(wide(dx0)), dw = convert<R>(dw0), db = std::vector<R>(size_t(C));
                norm_backward_oracle<R>(dx, dw, db, convert<R>(wide(dy)), convert<R>(wide(x)), convert<R>(wide(w)),
                                        rows, C, ld, false, RMSNORM_EPS, false, add);
                return std::vector<std::vector<R>>{dx, dw};
            };
            auto f = forward(Wide());
            auto fn = forward(floatM());
            check_close("y", Y.get(), f.y, fn.y);
            check_close("rstd", Rs.get(), f.rstd, fn.rstd);
            auto ref = back(Wide());
            auto naive = back(floatM());
            check_close("dx; the columns beyond C untouched", dXd.get(), ref[0], naive[0]);
            check_close("dw", dW.get(), ref[1], naive[1]);
        }
}
