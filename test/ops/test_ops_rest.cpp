// The other layers against oracles: rope, embedding, cross-entropy, AdamW with the global norm. See test_ops_linear_norm.cpp.
#include "test/ops/op_common.h"

#include "layers/adamw.h"
#include "layers/crossentropy.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/rope.h"

// ---------------------------------------------------------------------------------------------- rope

static void global_norm(floatM* norm, const floatM* grad, size_t n) {
    Device<double> sums(ceil_div(n, NORM_BLOCK));
    sum_squares(sums, grad, n);
    norm_of_sums(norm, sums, ceil_div(n, NORM_BLOCK));
}

template <class R>
std::vector<R> rope_oracle(std::vector<R> out, const std::vector<R>& in, const RopeShape& s, double theta, bool inverse,
                           bool backward, bool add) {
    // forward: out[row, h] = R in[row, h];  backward: the transpose, summed over heads that share one source
    for (int b = 0; b < s.B; b++)
        for (int t = 0; t < s.T; t++)
            for (int h = 0; h < s.heads; h++)
                for (int i = 0; i < s.d / 2; i++) {
                    size_t row = size_t(b) * s.T + t;
                    size_t rotated = row * s.out_row + h * s.out_head + size_t(i),
                           source = row * s.in_row + h * s.in_head + size_t(i), half = size_t(s.d / 2);
                    // the table holds cosines and sines rounded to floatM: rounding the angle's functions is part of the contract
                    Wide angle = Wide(t) * std::pow(Wide(theta), -2.0L * i / s.d);
                    R c = R(floatM(std::cos(double(angle)))), q = R(floatM(std::sin(double(angle)))) * (inverse ? -1 : 1);
                    if (!backward) {
                        out[rotated] = in[source] * c - in[source + half] * q;
                        out[rotated + half] = in[source] * q + in[source + half] * c;
                    } else {
                        bool keep = add || (s.in_head == 0 && h > 0);
                        R first = in[rotated] * c + in[rotated + half] * q, second = in[rotated + half] * c - in[rotated] * q;
                        out[source] = (keep ? out[source] : R(0)) + first;
                        out[source + half] = (keep ? out[source + half] : R(0)) + second;
                    }
                }
    return out;
}

TEST_CASE("rope: forward, inverse, backward, one head for all") {
    backend_init(0);
    struct { const char* name; RopeShape s; } cases[] = {{"packed", {2, 9, 3, 8, 24, 8, 24, 8}},
                                                         {"inside wider rows", {1, 17, 2, 6, 29, 7, 31, 9}},
                                                         {"one head for all", {2, 5, 4, 4, 40, 10, 21, 0}},
                                                         {"in vectors", {2, 5, 3, 32, 96, 32, 112, 32}},
                                                         {"one head for all, in vectors", {2, 5, 4, 32, 160, 40, 48, 0}},
                                                         {"pairs only", {1, 3, 1, 2, 2, 2, 2, 2}}};
    for (auto& c : cases)
        for (bool inverse : {false, true}) {
            const RopeShape& s = c.s;
            size_t rows = size_t(s.B) * s.T;
            auto in = normal_vector<floatX>(rows * s.in_row, 1), out0 = normal_vector<floatX>(rows * s.out_row, 2);
            std::vector<floatM> table(size_t(s.T) * s.d);
            rope_table(table.data(), s.T, s.d, 100);
            DX In(in), Out(out0);
            DM Table(table);
            rope_forward(Out, In, Table, s, inverse);
            auto forward = [&]<class R>(R) {
                return rope_oracle<R>(convert<R>(wide(out0)), convert<R>(wide(in)), s, 100, inverse, false, false);
            };
            check_close(std::string(c.name) + ", forward", Out.get(), forward(Wide()), forward(floatM()));
            for (bool add : {false, true}) {
                DX dIn(in), dOut(out0);
                rope_backward(dIn, dOut, Table, s, add, inverse);
                auto back = [&]<class R>(R) {
                    return rope_oracle<R>(convert<R>(wide(in)), convert<R>(wide(out0)), s, 100, inverse, true, add);
                };
                check_close(std::string(c.name) + ", backward", dIn.get(), back(Wide()), back(floatM()));
            }
        }
}

TEST_CASE("rope: a product of turned vectors depends on the distance only") {
    backend_init(0);
    const int T = 12, d = 8;
    std::vector<floatM> table(T * d);
    rope_table(table.data(), T, d, 10000);
    DM Table(table);
    auto q = normal_vector<floatX>(d, 1), k = normal_vector<floatX>(d, 2);
    std::vector<floatX> qs, ks;
    for (int t = 0; t < T; t++) qs.insert(qs.end(), q.begin(), q.end()), ks.insert(ks.end(), k.begin(), k.end());
    DX Q(qs), K(ks);
    RopeShape s{1, T, 1, d, d, d, d, d};
    rope_forward(Q, Q, Table, s);
    rope_forward(K, K, Table, s);
    auto a = Q.get(), b = K.get();
    auto dot = [&](int i, int j) {
        double sum = 0;
        for (int c = 0; c < d; c++) sum += double(a[size_t(i * d + c)]) * double(b[size_t(j * d + c)]);
        return sum;
    };
    for (int i = 3; i < T; i++) CHECK(dot(i, i - 3) == doctest::Approx(dot(3, 0)).epsilon(64 * unit_roundoff<floatX>()));
}

// ---------------------------------------------------------------------------------------------- embedding

TEST_CASE("embedding forward and backward, repeated tokens add up") {
    backend_init(0);
    for (int C : {1, 7, 64, 130}) {
        const int B = 3, T = 11, V = 5;
        auto wte = normal_vector<floatX>(size_t(V * C), 1), wpe = normal_vector<floatX>(size_t(T * C), 2),
             dx = normal_vector<floatX>(size_t(B * T * C), 3);
        auto dwte0 = normal_vector<floatM>(size_t(V * C), 4), dwpe0 = normal_vector<floatM>(size_t(T * C), 5);
        std::vector<int> tokens;
        for (int i = 0; i < B * T; i++) tokens.push_back(int(philox_below(9, 9, uint64_t(i), V)));
        DI Tok(tokens);
        DX Wte(wte), Wpe(wpe), X(size_t(B * T * C)), X2(size_t(B * T * C)), dX(dx);
        embedding_forward(X, Tok, Wte, Wpe, B, T, C);
        embedding_forward(X2, Tok, Wte, nullptr, B, T, C);
        for (bool add : {false, true}) {
            DM dWte(dwte0), dWpe(dwpe0), dWte2(dwte0);
            embedding_backward(dWte, dWpe, dX, tokens.data(), B, T, C, add);
            embedding_backward(dWte2, nullptr, dX, tokens.data(), B, T, C, add);
            auto run = [&]<class R>(R) {
                std::vector<R> a = convert<R>(dwte0), p = add ? convert<R>(dwpe0) : std::vector<R>(size_t(T * C));
                for (int i = 0; i < B * T; i++)
                    for (int c = 0; c < C; c++) {
                        a[size_t(tokens[size_t(i)] * C + c)] += R(double(dx[size_t(i * C + c)]));
                        p[size_t(i % T * C + c)] += R(double(dx[size_t(i * C + c)]));
                    }
                return std::vector<std::vector<R>>{a, p};
            };
            auto ref = run(Wide());
            auto naive = run(floatM());
            check_close("dwte", dWte.get(), ref[0], naive[0]);
            check_close("dwpe", dWpe.get(), ref[1], naive[1]);
            check_close("dwte alone", dWte2.get(), ref[0], naive[0]);
        }
        auto x = X.get(), x2 = X2.get();
        for (size_t i = 0; i < x.size(); i++) {
            int t = int(i) / C % T, c = int(i) % C;
            floatX e = wte[size_t(tokens[i / size_t(C)] * C + c)];
            REQUIRE(double(x[i]) == double(floatX(floatM(e) + floatM(wpe[size_t(t * C + c)]))));
            REQUIRE(double(x2[i]) == double(e));
        }
    }
}

// ---------------------------------------------------------------------------------------------- cross-entropy

TEST_CASE("cross-entropy over padded logits") {
    backend_init(0);
    struct { size_t rows; int V, Vp; double spread; } cases[] = {{1, 1, 128, 1}, {5, 29, 128, 1}, {7, 300, 384, 3},
                                                                 {3, 1021, 1024, 1}, {2, 128, 128, 30}, {3, 30, 37, 2}};
    for (auto& c : cases) {
        auto logits = normal_vector<floatX>(c.rows * size_t(c.Vp), 1, c.spread);
        std::vector<int> targets;
        for (size_t r = 0; r < c.rows; r++) targets.push_back(r == 2 ? -1 : int(philox_below(5, 5, r, uint32_t(c.V))));
        DX L1(logits), L2(logits);
        DI Tg(targets);
        DM losses(c.rows), losses2(c.rows);
        const double scale = 0.25;
        crossentropy_forward(losses, L1, Tg, c.rows, c.V, c.Vp);
        crossentropy_forward_backward(losses2, L2, Tg, c.rows, c.V, c.Vp, floatM(scale));
        auto run = [&]<class R>(R) {
            std::vector<R> loss(c.rows), d(c.rows * size_t(c.Vp));
            for (size_t r = 0; r < c.rows; r++) {
                if (targets[r] < 0) continue;
                R top = -1e30, sum = 0;
                auto at = [&](int v) { return R(double(logits[r * size_t(c.Vp) + size_t(v)])); };
                for (int v = 0; v < c.V; v++) top = std::max(top, at(v));
                for (int v = 0; v < c.V; v++) sum += std::exp(at(v) - top);
                loss[r] = std::log(sum) + top - at(targets[r]);
                for (int v = 0; v < c.V; v++)
                    d[r * size_t(c.Vp) + size_t(v)] =
                        (std::exp(at(v) - top) / sum - (v == targets[r] ? 1 : 0)) * R(scale);
            }
            return std::vector<std::vector<R>>{loss, d};
        };
        auto ref = run(Wide());
        auto naive = run(floatM());
        check_close("loss", losses.get(), ref[0], naive[0]);
        check_close("loss with gradient", losses2.get(), ref[0], naive[0]);
        check_close("dlogits", L2.get(), ref[1], naive[1]);
        auto untouched = L1.get();
        for (size_t i = 0; i < logits.size(); i++) REQUIRE(double(untouched[i]) == double(logits[i]));
    }
}

// ---------------------------------------------------------------------------------------------- AdamW

TEST_CASE("AdamW over several steps: clipping, decay, a lower bound") {
    backend_init(0);
    for (size_t n : {size_t(1), size_t(17), size_t(1000)})
        for (double clip : {0.0, 0.5}) {
            auto w = normal_vector<floatX>(n, 1);
            std::vector<floatM> w_master = convert<floatM>(wide(w));
            DX W(w);
            DM master(w_master), m(n), v(n), norm(1);
            bool separate = sizeof(floatX) != sizeof(floatM);
            auto run = [&]<class R>(R) {
                std::vector<R> p = convert<R>(w_master), a(n), b(n);
                for (int step = 1; step <= 4; step++) {
                    auto g = normal_vector<floatM>(n, 100 + uint64_t(step));
                    R square = 0;
                    for (floatM x : g) square += R(x) * R(x);
                    R length = std::sqrt(square), factor = clip > 0 && length > R(clip) ? R(clip) / length : R(1);
                    for (size_t i = 0; i < n; i++) {
                        R gi = R(g[i]) * factor;
                        a[i] = R(0.9) * a[i] + R(1 - 0.9) * gi;
                        b[i] = R(0.95) * b[i] + R(1 - 0.95) * gi * gi;
                        R mh = a[i] / (1 - std::pow(R(0.9), step)), vh = b[i] / (1 - std::pow(R(0.95), step));
                        p[i] = std::max(R(-1), p[i] - R(0.02) * (mh / (std::sqrt(vh) + R(1e-8)) + R(0.1) * p[i]));
                    }
                }
                return p;
            };
            for (int step = 1; step <= 4; step++) {
                DM g(normal_vector<floatM>(n, 100 + uint64_t(step)));
                global_norm(norm, g, n);
                if (step == 3) {                             // nothing may change
                    DM bad(std::vector<floatM>{floatM(NAN)}), infinite(std::vector<floatM>{floatM(INFINITY)});
                    adamw_update(W, separate ? master.p : nullptr, m, v, g, n, bad, {0.02, 0.9, 0.95, 1e-8, 0.1, clip, step, -1});
                    adamw_update(W, separate ? master.p : nullptr, m, v, g, n, infinite, {0.02, 0.9, 0.95, 1e-8, 0.1, clip, step, -1});
                }
                adamw_update(W, separate ? master.p : nullptr, m, v, g, n, norm, {0.02, 0.9, 0.95, 1e-8, 0.1, clip, step, -1});
            }
            auto ref = run(Wide());
            auto naive = run(floatM());
            if (separate) check_close("master", master.get(), ref, naive);
            check_close("weights", W.get(), ref, naive);
        }
}

TEST_CASE("gradients of micro-batches are added; the norm's sums are per block") {
    backend_init(0);
    for (size_t n : {size_t(1), size_t(1023), size_t(1024), size_t(20005)}) {
        auto a = normal_vector<floatM>(n, 1), b = normal_vector<floatM>(n, 2);
        DM A(a), B(b);
        add_gradient(A, B, n, true);
        std::vector<floatM> sum = A.get();
        size_t wrong = 0;
        for (size_t i = 0; i < n; i++) wrong += sum[i] != a[i] + b[i];
        add_gradient(A, B, n, false);
        CHECK(wrong == 0);
        CHECK(A.get() == b);
        size_t blocks = ceil_div(n, NORM_BLOCK);
        Device<double> sums(blocks);
        sum_squares(sums, B, n);
        std::vector<double> got = sums.get();
        for (size_t i = 0; i < blocks; i++) {
            double want = 0;
            for (size_t j = i * NORM_BLOCK; j < std::min(n, (i + 1) * NORM_BLOCK); j++) want += double(b[j]) * double(b[j]);
            CHECK(std::fabs(got[i] - want) <= 1e-6 * want);          // the GPU squares in float
        }
    }
}

TEST_CASE("global norm: long arrays, the same bits for any number of threads") {
    auto g = normal_vector<floatM>(200001, 3);
    Wide square = 0;
    double naive = 0;                                        // the contract sums in double whatever floatM is
    for (floatM x : g) square += Wide(x) * Wide(x), naive += double(x) * double(x);
    double want = double(std::sqrt(square)), allowed = 2 * std::fabs(std::sqrt(naive) - want) + 2 * unit_roundoff<floatM>() * want;
    floatM first = 0;
    for (int threads : {1, 2, 3, 8}) {
        backend_init(threads);
        DM G(g), norm(1);
        global_norm(norm, G, g.size());
        floatM got = norm.get()[0];
        CHECK(std::fabs(double(got) - want) <= allowed);
        if (threads == 1) first = got;
        CHECK(got == first);
    }
    backend_init(0);
    g.insert(g.begin(), floatM(0));                          // the same numbers where no vector load can read them
    DM G(g), norm(1);
    global_norm(norm, G + 1, g.size() - 1);
    CHECK(std::fabs(double(norm.get()[0]) - want) <= allowed);
}

TEST_CASE("gelu alone: what linear_forward's gelu_out holds") {
    backend_init(0);
    for (size_t n : {size_t(1), size_t(13), size_t(4096), size_t(20001)}) {
        auto x = normal_vector<floatX>(n, 5, 3);
        DX X(x), Y(n);
        gelu_forward(Y, X, n);
        auto run = [&]<class R>(R) {
            std::vector<R> y(n);
            for (size_t i = 0; i < n; i++) {
                R v = R(x[i]);
                y[i] = v / 2 * (1 + std::tanh(std::sqrt(R(2) / R(M_PIl)) * (v + R(0.044715L) * v * v * v)));
            }
            return y;
        };
        check_close("gelu", Y.get(), run(Wide()), run(floatM()));
    }
}

TEST_CASE("stochastic rounding: one of the two neighbours, right in the mean, the same each time, whatever the cut") {
    if (sizeof(floatX) != 2) return;                         // only bf16 weights are rounded
    backend_init(0);
    const size_t n = 4099;
    AdamW still{0, 0.9, 0.95, 1e-8, 0, 0, 1, -1e30};         // lr 0: the weights are rounded, nothing else
    still.rounding = {true, 7, 3, 0};
    const float value = 1.001953125f + 0.0009f;              // between the bf16 numbers 1 and 1.0078125
    std::vector<floatM> master(n, value);
    auto round = [&](size_t begin, size_t end, uint64_t first) {
        DX W(end - begin);
        DM M(std::vector<floatM>(master.begin() + long(begin), master.begin() + long(end))), m(end - begin),
            v(end - begin), g(end - begin), norm(std::vector<floatM>{1});
        AdamW a = still;
        a.rounding.first = first;
        adamw_update(W, M, m, v, g, end - begin, norm, a);
        return W.get();
    };
    std::vector<floatX> all = round(0, n, 0), again = round(0, n, 0), tail = round(1001, n, 1001), other = round(0, n, n);
    double sum = 0, differ = 0;
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        float x = float(all[i]);
        wrong += x != 1.0f && x != 1.0078125f;
        wrong += x != float(again[i]) || (i >= 1001 && x != float(tail[i - 1001]));
        differ += x != float(other[i]);
        sum += x;
    }
    CHECK(wrong == 0);
    CHECK(differ > 0.3 * n);                                 // 2 p (1 - p) = 0.46
    double p = (double(value) - 1) / 0.0078125, deviation = 0.0078125 * std::sqrt(p * (1 - p) / double(n));
    CHECK(std::fabs(sum / double(n) - double(value)) < 4 * deviation);
}
