// Attention of decoding against an oracle that scores every key of every row in long double: sequences of different lengths, chunks,
// groups of heads, several pieces of the keys, a shared key, keys rotated as they are read, K and V one tensor, biases. Then the
// promise that a row's bits depend on its own sequence only. The products for few rows (layers/linear_rows.h) likewise.
#include "attention/sdpa_decode.h"

#include <algorithm>

#include "layers/linear_rows.h"
#include "layers/rope.h"
#include "test/ops/op_common.h"

namespace {
struct DecodeCase {
    const char* name;
    int NH, NKV, d_k, d_v, d_shared;
    bool same, rotate;                           // K and V one tensor; rotated as they are read
    BiasKind bias;
    std::vector<int> before, fed;                // per sequence: tokens in the cache before, tokens of this call
};
struct Rows { std::vector<int> sequence, position; int longest = 0; };

Rows rows_of(const DecodeCase& c) {
    Rows r;
    for (size_t b = 0; b < c.before.size(); b++)
        for (int i = 0; i < c.fed[b]; i++) {
            r.sequence.push_back(int(b));
            r.position.push_back(c.before[b] + i);
            r.longest = std::max(r.longest, c.before[b] + i + 1);
        }
    return r;
}

// All in T; q (rows, NH, d_k), r (rows, NH, d_shared), k, v, shared as sdpa_decode.h has them.
template <class T>
std::vector<T> oracle(const DecodeCase& c, const Rows& rows, int capacity, const std::vector<floatX>& q,
                      const std::vector<floatX>& r, const std::vector<floatX>& k, const std::vector<floatX>& v,
                      const std::vector<floatX>& shared, const std::vector<floatM>& table,
                      const std::vector<floatM>& slope, const std::vector<floatX>& p, const std::vector<floatX>& a,
                      double scale) {
    std::vector<T> out;
    for (size_t row = 0; row < rows.sequence.size(); row++)
        for (int h = 0; h < c.NH; h++) {
            const size_t head = size_t(rows.sequence[row]) * c.NKV + h / (c.NH / c.NKV);
            const int n = rows.position[row] + 1;
            std::vector<T> s(static_cast<size_t>(n));
            for (int j = 0; j < n; j++) {
                std::vector<T> key;
                for (int i = 0; i < c.d_k; i++) key.push_back(T(double(k[(head * capacity + j) * c.d_k + i])));
                if (c.rotate)
                    for (int i = 0; i < c.d_k / 2; i++) {
                        T x = key[size_t(i)], y = key[size_t(i + c.d_k / 2)],
                          cosine = T(table[size_t(j) * c.d_k + 2 * i]), sine = T(table[size_t(j) * c.d_k + 2 * i + 1]);
                        key[size_t(i)] = x * cosine - y * sine;
                        key[size_t(i + c.d_k / 2)] = x * sine + y * cosine;
                    }
                T sum = 0;
                for (int i = 0; i < c.d_k; i++) sum += T(double(q[(row * c.NH + h) * c.d_k + i])) * key[size_t(i)];
                for (int i = 0; i < c.d_shared; i++)
                    sum += T(double(r[(row * c.NH + h) * c.d_shared + i])) *
                           T(double(shared[(size_t(rows.sequence[row]) * capacity + j) * c.d_shared + i]));
                T distance = T(n - 1 - j);
                T bias = c.bias == BiasKind::alibi ? -T(slope[size_t(h)]) * distance
                         : c.bias == BiasKind::power ? -T(double(p[size_t(h)])) * std::log(1 + T(double(a[size_t(h)])) * distance) : T(0);
                s[size_t(j)] = T(scale) * sum + bias;
            }
            T top = *std::max_element(s.begin(), s.end()), total = 0;
            for (T& x : s) total += x = std::exp(x - top);
            for (int i = 0; i < c.d_v; i++) {
                T o = 0;
                for (int j = 0; j < n; j++) o += s[size_t(j)] * T(double(v[(head * capacity + j) * c.d_v + i]));
                out.push_back(o / total);
            }
        }
    return out;
}

struct Problem {                                 // one case's tensors on the device, filled by position: not by the order of calls
    DecodeCase c;
    Rows rows;
    int capacity;
    std::vector<floatX> q, r, k, v, shared, p, a;
    std::vector<floatM> table, slope;
    double scale;

    explicit Problem(const DecodeCase& of) : c(of), rows(rows_of(of)), capacity(rows.longest + 3) {
        const size_t n = rows.sequence.size(), sequences = c.before.size();
        q = normal_vector<floatX>(n * c.NH * c.d_k, 1);
        r = normal_vector<floatX>(n * c.NH * c.d_shared, 2);
        k = normal_vector<floatX>(sequences * c.NKV * capacity * c.d_k, 3);
        v = c.same ? k : normal_vector<floatX>(sequences * c.NKV * capacity * c.d_v, 4);
        shared = normal_vector<floatX>(sequences * capacity * c.d_shared, 5);
        table.resize(size_t(capacity) * c.d_k);
        if (c.rotate) rope_table(table.data(), capacity, c.d_k, 10000);
        for (int h = 0; h < c.NH; h++) {
            slope.push_back(floatM(0.5 / (h + 1)));
            p.push_back(floatX(0.3f + 0.2f * float(h)));
            a.push_back(floatX(0.1f + 0.1f * float(h)));
        }
        scale = 1 / std::sqrt(double(c.d_k + c.d_shared));
    }
    // The rows from `first` on, as one call of its own. weights: what it says the softmax was.
    std::vector<floatX> run(size_t first, size_t count, std::vector<floatM>* weights = nullptr) const {
        DX q_d(q), r_d(r), k_d(k), v_d(v), shared_d(shared), p_d(p), a_d(a), o(count * c.NH * c.d_v);
        DM table_d(table), slope_d(slope), partial(decode_partial_size(int(count), capacity, c.NH, c.d_v));
        DI sequence(rows.sequence), position(rows.position);
        int longest = 1 + *std::max_element(rows.position.begin() + int64_t(first), rows.position.begin() + int64_t(first + count));
        DM kept(weights ? count * c.NH * capacity : 0);
        DecodeBatch batch{int(count), capacity, longest, sequence.p + first, position.p + first, weights ? kept.p : nullptr};
        DecodeShape shape{c.NH, c.NKV, c.d_k, c.d_v, c.d_shared, size_t(c.NH) * c.d_k, size_t(c.d_k),
                          size_t(c.NH) * c.d_shared, size_t(c.d_shared), scale};
        PositionBias bias{c.bias, c.bias == BiasKind::alibi ? slope_d.p : nullptr,
                          c.bias == BiasKind::power ? p_d.p : nullptr, c.bias == BiasKind::power ? a_d.p : nullptr};
        sdpa_decode(o, partial, q_d.p + first * c.NH * c.d_k, r_d.p + first * c.NH * c.d_shared, k_d,
                    c.same ? k_d.p : v_d.p, shared_d, c.rotate ? table_d.p : nullptr, bias, shape, batch);
        if (weights) *weights = kept.get();
        return o.get();
    }
    template <class T>
    std::vector<T> expected() const {
        return oracle<T>(c, rows, capacity, q, r, k, v, shared, table, slope, p, a, scale);
    }
};

const std::vector<DecodeCase> DECODE_CASES = {
    {"one token", 1, 1, 4, 4, 0, false, false, BiasKind::none, {0}, {1}},
    {"multi-head, two lengths", 3, 3, 20, 20, 0, false, false, BiasKind::none, {5, 0}, {1, 7}},
    {"grouped, alibi, several pieces", 6, 2, 16, 16, 0, false, false, BiasKind::alibi, {600, 254, 0}, {3, 4, 2}},
    {"one key head, power", 5, 1, 33, 17, 0, false, false, BiasKind::power, {255, 40}, {2, 1}},
    {"K = V, rotated when read", 2, 2, 24, 24, 0, true, true, BiasKind::none, {259, 3}, {2, 5}},
    {"latent and shared key (MLA)", 4, 1, 40, 40, 8, true, false, BiasKind::none, {300, 0}, {1, 6}},
    {"values and context (QV-Ka)", 4, 2, 12, 12, 10, true, false, BiasKind::power, {10, 511}, {3, 2}},
    {"seventeen heads share", 17, 1, 6, 6, 3, true, false, BiasKind::alibi, {20}, {2}},
};
}  // namespace

TEST_CASE("sdpa_decode: the oracle's numbers, whatever is cached and fed") {
    backend_init(0);
    for (const DecodeCase& c : DECODE_CASES) {
        Problem p(c);
        check_close<floatX>(c.name, p.run(0, p.rows.sequence.size()), p.expected<Wide>(), p.expected<floatM>());
    }
}

TEST_CASE("sdpa_decode: a row's bits depend on its own sequence only") {
    backend_init(0);
    for (const DecodeCase& c : DECODE_CASES) {
        Problem p(c);
        const size_t n = p.rows.sequence.size(), width = size_t(c.NH) * c.d_v;
        std::vector<floatX> together = p.run(0, n);
        for (size_t row = 0; row < n; row++) {
            std::vector<floatX> alone = p.run(row, 1);
            for (size_t i = 0; i < width; i++) {
                INFO(c.name, ", row ", row, " element ", i);
                CHECK(double(alone[i]) == double(together[row * width + i]));
            }
        }
    }
}

TEST_CASE("sdpa_decode: the weights it reports sum to 1 and make the output it reports") {
    backend_init(0);
    for (const DecodeCase& c : DECODE_CASES) {
        Problem p(c);
        const size_t n = p.rows.sequence.size();
        std::vector<floatM> weights;
        std::vector<floatX> o = p.run(0, n, &weights);
        for (size_t i = 0; i < n * size_t(c.NH); i++) {
            const size_t row = i / size_t(c.NH), head = size_t(p.rows.sequence[row]) * c.NKV + i % size_t(c.NH) / size_t(c.NH / c.NKV);
            double sum = 0, first = 0;
            for (int j = 0; j < p.capacity; j++) {
                const double weight = double(weights[i * p.capacity + j]);
                sum += weight;
                first += weight * double(p.v[(head * p.capacity + j) * c.d_v]);
                if (j > p.rows.position[row]) CHECK(weight == 0);
            }
            INFO(c.name, ", row ", row);
            CHECK(sum == doctest::Approx(1).epsilon(1e-5));
            CHECK(double(o[i * c.d_v]) == doctest::Approx(first).epsilon(sizeof(floatX) == 2 ? 0.02 : 1e-4).scale(1));
        }
    }
}

TEST_CASE("cache_append: every vector in its place, nothing else written") {
    backend_init(0);
    const int heads = 3, width = 5, capacity = 9;
    std::vector<int> sequence{1, 1, 0}, position{4, 5, 8};
    std::vector<floatX> from = normal_vector<floatX>(3 * 20, 9);
    DX cache(2 * heads * capacity * width), from_d(from);
    DI sequence_d(sequence), position_d(position);
    cache_append(cache, from_d, 20, heads, width, {3, capacity, 9, sequence_d, position_d});
    std::vector<double> want(2 * heads * capacity * width);
    for (size_t r = 0; r < 3; r++)
        for (int h = 0; h < heads; h++)
            for (int c = 0; c < width; c++)
                want[((size_t(sequence[r]) * heads + h) * capacity + position[r]) * width + c] =
                    double(from[r * 20 + size_t(h * width + c)]);
    std::vector<floatX> got = cache.get();
    for (size_t i = 0; i < got.size(); i++) {
        INFO("element ", i);
        CHECK(double(got[i]) == want[i]);
    }
}

TEST_CASE("linear_rows: forward and absorbed against the oracle; each row's bits its own") {
    backend_init(0);
    struct Size { size_t rows; int in, out, batch; bool share_w, vectors = false; };
    for (Size z : {Size{1, 40, 33, 1, false}, Size{3, 7, 70, 2, false}, Size{FEW_ROWS, 50, 9, 1, false},
                   Size{FEW_ROWS + 3, 16, 64, 3, true}, Size{1, 64, 33, 1, false, true}, Size{11, 40, 20, 2, false, true}}) {
        const size_t in_row = size_t(z.in) * z.batch + (z.vectors ? 8 : 1), out_row = size_t(z.out) * z.batch + 2,
                     w_row = size_t(z.in) + (z.vectors ? 8 : 3), w_head = z.share_w ? 0 : w_row * z.out;
        std::vector<floatX> x = normal_vector<floatX>(z.rows * in_row, 1),
                            w = normal_vector<floatX>(w_row * z.out * z.batch, 2),
                            y = normal_vector<floatX>(z.rows * out_row, 3);
        DX x_d(x), w_d(w), y_d(y), forward(z.rows * out_row), absorbed(z.rows * in_row);
        LinearShape s{z.rows, z.in, z.out, in_row, w_row, out_row, z.batch, size_t(z.in), w_head, size_t(z.out)};
        linear_rows_forward(forward, x_d, w_d, nullptr, s, false, nullptr);
        linear_rows_absorb(absorbed, y_d, w_d, s);
        auto products = [&]<class T>(bool transposed, T) {
            std::vector<T> out(z.rows * (transposed ? in_row : out_row));
            for (size_t r = 0; r < z.rows; r++)
                for (int h = 0; h < z.batch; h++)
                    for (int o = 0; o < z.out; o++)
                        for (int i = 0; i < z.in; i++) {
                            T weight = T(double(w[h * w_head + o * w_row + i]));
                            if (transposed) out[r * in_row + h * z.in + i] += T(double(y[r * out_row + h * z.out + o])) * weight;
                            else out[r * out_row + h * z.out + o] += T(double(x[r * in_row + h * z.in + i])) * weight;
                        }
            return out;
        };
        check_close<floatX>("forward", forward.get(), products(false, Wide()), products(false, floatM()));
        check_close<floatX>("absorbed", absorbed.get(), products(true, Wide()), products(true, floatM()));
        std::vector<floatX> all = forward.get(), all_absorbed = absorbed.get();
        for (size_t r = 0; r < z.rows; r++) {
            LinearShape one = s;
            one.rows = 1;
            DX y1(out_row), x1(in_row);
            linear_rows_forward(y1, x_d.p + r * in_row, w_d, nullptr, one, false, nullptr);
            linear_rows_absorb(x1, y_d.p + r * out_row, w_d, one);
            std::vector<floatX> a = y1.get(), b = x1.get();
            for (size_t i = 0; i < out_row; i++) CHECK(double(a[i]) == double(all[r * out_row + i]));
            for (size_t i = 0; i < in_row; i++) CHECK(double(b[i]) == double(all_absorbed[r * in_row + i]));
        }
    }
}
