// The paths that a GPU kernel takes only for long inputs: several tiles a block, runs of a token over several chunks, several turns
// of a block's loop over a row. Backend-neutral; small widths keep it quick in emulation.
#include "test/ops/op_common.h"

#include "layers/crossentropy.h"
#include "layers/embedding.h"
#include "layers/layernorm.h"
#include "layers/linear.h"

TEST_CASE("layernorm backward: more rows than one tile for each block") {
    backend_init(0);
    const size_t rows = 8192 + 333;
    const int C = 16;
    auto x = normal_vector<floatX>(rows * C, 1), dy = normal_vector<floatX>(rows * C, 2),
         w = normal_vector<floatX>(C, 3, 0.5, 1), b = normal_vector<floatX>(C, 4);
    DX X(x), dY(dy), W(w), Bi(b), Y(rows * C), dXd(rows * C);
    DM M(rows), Rs(rows), dW(C), dB(C);
    layernorm_forward(Y, M, Rs, X, W, Bi, rows, C);
    layernorm_backward(dXd, dW, dB, dY, X, W, M, Rs, rows, C, false, false);
    auto mean = M.get(), rstd = Rs.get();
    auto run = [&]<class R>(R) {
        std::vector<std::vector<R>> out{std::vector<R>(rows * C), std::vector<R>(C), std::vector<R>(C)};
        for (size_t r = 0; r < rows; r++) {
            R g[16], n[16], mean_g = 0, mean_gn = 0;
            for (int c = 0; c < C; c++) {
                R d = R(double(dy[r * C + size_t(c)]));
                n[c] = (R(double(x[r * C + size_t(c)])) - R(mean[r])) * R(rstd[r]);
                g[c] = d * R(double(w[size_t(c)]));
                mean_g += g[c] / C;
                mean_gn += g[c] * n[c] / C;
                out[1][size_t(c)] += d * n[c];
                out[2][size_t(c)] += d;
            }
            for (int c = 0; c < C; c++) out[0][r * C + size_t(c)] = R(rstd[r]) * (g[c] - mean_g - n[c] * mean_gn);
        }
        return out;
    };
    auto ref = run(Wide());
    auto naive = run(floatM());
    check_close("dx", dXd.get(), ref[0], naive[0]);
    check_close("dw", dW.get(), ref[1], naive[1]);
    check_close("db", dB.get(), ref[2], naive[2]);
}

TEST_CASE("bias gradient: many rows") {
    backend_init(0);
    for (int out : {5, 8}) {
        const size_t rows = 20011;
        auto x = normal_vector<floatX>(rows, 1), dy = normal_vector<floatX>(rows * size_t(out), 2);
        DX X(x), dY(dy);
        DM dW(size_t(out) * 1), dB(static_cast<size_t>(out));
        linear_backward_weight(dW, dB, dY, X, linear_shape(rows, 1, out), false);
        auto run = [&]<class R>(R) {
            std::vector<R> sum(static_cast<size_t>(out));
            for (size_t r = 0; r < rows; r++) for (int o = 0; o < out; o++) sum[size_t(o)] += R(double(dy[r * size_t(out) + size_t(o)]));
            return sum;
        };
        check_close("db", dB.get(), run(Wide()), run(floatM()));
    }
}

TEST_CASE("embedding backward: few tokens, so that a token's rows fill several chunks") {
    backend_init(0);
    for (int V : {1, 2, 5})
        for (int C : {3, 264}) {
            const int B = 3, T = 211;
            std::vector<int> tokens(size_t(B) * T);
            for (size_t i = 0; i < tokens.size(); i++) tokens[i] = int(philox_below(9, 1, i, uint32_t(V)));
            auto dx = normal_vector<floatX>(tokens.size() * size_t(C), 2);
            auto dwte0 = normal_vector<floatM>(size_t(V) * size_t(C), 3);
            DX dX(dx);
            DM dWte(dwte0), dPos(size_t(T) * size_t(C));
            embedding_backward(dWte, dPos, dX, tokens.data(), B, T, C, false);
            auto run = [&]<class R>(R, bool position) {
                std::vector<R> sum = position ? std::vector<R>(size_t(T) * size_t(C)) : convert<R>(dwte0);
                for (size_t r = 0; r < tokens.size(); r++)
                    for (size_t c = 0; c < size_t(C); c++)
                        sum[(position ? r % size_t(T) : size_t(tokens[r])) * size_t(C) + c] += R(double(dx[r * size_t(C) + c]));
                return sum;
            };
            check_close("dwte", dWte.get(), run(Wide(), false), run(floatM(), false));
            check_close("dpos", dPos.get(), run(Wide(), true), run(floatM(), true));
            std::vector<floatM> first = dWte.get();
            copy_to_device(dWte, dwte0.data(), dwte0.size() * sizeof(floatM));
            embedding_backward(dWte, dPos, dX, tokens.data(), B, T, C, false);
            CHECK(dWte.get() == first);                      // the same bits again
        }
}

TEST_CASE("cross-entropy: rows longer than a block reads at once, the maximum late") {
    backend_init(0);
    const size_t rows = 3;
    const int V = 9001, Vp = 9088;
    auto logits = normal_vector<floatX>(rows * Vp, 1, 2);
    logits[0] = floatX(90.0f);                               // the first column, far above the target; then one late; then none outstanding
    logits[Vp + V - 1] = floatX(40.0f);
    for (size_t r = 0; r < rows; r++) for (int v = V; v < Vp; v++) logits[r * Vp + size_t(v)] = floatX(200.0f);
    std::vector<int> targets{7, V - 1, 4500};
    DX L(logits);
    DI Tg(targets);
    DM losses(rows);
    crossentropy_forward_backward(losses, L, Tg, rows, V, Vp, floatM(0.5));
    auto run = [&]<class R>(R, bool gradient) {
        std::vector<R> loss(rows), g(rows * Vp);
        for (size_t r = 0; r < rows; r++) {
            R top = R(double(logits[r * Vp])), sum = 0;
            for (int v = 0; v < V; v++) top = std::max(top, R(double(logits[r * Vp + size_t(v)])));
            for (int v = 0; v < V; v++) sum += std::exp(R(double(logits[r * Vp + size_t(v)])) - top);
            loss[r] = std::log(sum) + top - R(double(logits[r * Vp + size_t(targets[r])]));
            for (int v = 0; v < V; v++)
                g[r * Vp + size_t(v)] =
                    (std::exp(R(double(logits[r * Vp + size_t(v)])) - top) / sum - R(v == targets[r])) * R(0.5);
        }
        return gradient ? g : loss;
    };
    check_close("losses", losses.get(), run(Wide(), false), run(floatM(), false));
    check_close("dlogits", L.get(), run(Wide(), true), run(floatM(), true));
}
