// The CPU's elementwise mathematics (layers/cpu_math.h): sums by sixteen running sums, and rows rounded to the type of storage.
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "layers/cpu_math.h"

static const int LENGTHS[] = {0, 1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 255, 256, 257, 511, 512, 1000};

TEST_CASE("sum_of: every term once, in one order for one length") {
    for (int n : LENGTHS) {
        CAPTURE(n);
        CHECK(sum_of(n, [](int i) { return floatM(1) + floatM(i); }) == floatM(n) * floatM(n + 1) / 2);       // exact: below 2^24
        std::vector<floatM> terms(size_t(n) + 1);             // read from memory: a product would be fused with the addition, or not
        for (int i = 0; i < n; i++) terms[size_t(i)] = std::sin(floatM(3 * i + 1)) * (i % 5 == 0 ? floatM(1000) : floatM(1));
        auto term = [t = terms.data()](int i) { return t[i]; };
        double exact = 0, size = 0;
        for (int i = 0; i < n; i++) exact += double(term(i)), size += std::fabs(double(term(i)));
        CHECK(std::fabs(double(sum_of(n, term)) - exact) <= (n / 16 + 20) * double(std::numeric_limits<floatM>::epsilon()) * size);
        // Sixteen running sums, the upper half added to the lower until one is left: written out, the same bits.
        std::vector<floatM> sums(16, 0);
        for (int i = 0; i < n; i++) sums[size_t(i % 16)] += term(i);
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; i++) sums[size_t(i)] += sums[size_t(i + half)];
        CHECK(sum_of(n, term) == sums[0]);
    }
}

TEST_CASE("store_row: what store does for each element, in place too, and nothing beyond the end") {
    for (int n : LENGTHS) {
        CAPTURE(n);
        std::vector<floatX> row(size_t(n) + 40, floatX(7)), expected = row;
        for (int i = 0; i < n; i++) {
            const floatM x = floatM(i % 2 ? -1 : 1) * std::ldexp(floatM(1) + floatM(i % 257) / 512, i % 30 - 15);
            store(row[size_t(i)], x), store(expected[size_t(i)], x);
        }
        for (int i = 0; i < n; i++) store(expected[size_t(i)], floatM(expected[size_t(i)]) * floatM(1.01));
        store_row(row.data(), size_t(n), [p = row.data()](size_t i) { return floatM(p[i]) * floatM(1.01); });
        for (size_t i = 0; i < row.size(); i++) CHECK(floatM(row[i]) == floatM(expected[i]));
    }
}

TEST_CASE("store_row: ties to even, the largest number, infinity, NaN, both zeros") {
    const floatM inf = std::numeric_limits<floatM>::infinity(), largest = std::numeric_limits<floatM>::max();
    std::vector<floatM> values = {floatM(1) + floatM(1) / 256, floatM(1) + floatM(3) / 256, -floatM(1) - floatM(3) / 256, largest, -largest,
                                  inf, -inf, 0, -floatM(0), std::numeric_limits<floatM>::quiet_NaN(), std::numeric_limits<floatM>::min()};
    for (size_t begin = 0; begin < 2; begin++)                // as a whole vector, and as what is left of one
        for (size_t n : {size_t(16), values.size()}) {
            std::vector<floatX> row(n), expected(n);
            auto value = [&](size_t i) { return values[(begin + i) % values.size()]; };
            for (size_t i = 0; i < n; i++) store(expected[i], value(i));
            store_row(row.data(), n, value);
            for (size_t i = 0; i < n; i++) {
                CAPTURE(i);
                if (std::isnan(value(i))) CHECK(std::isnan(floatM(row[i])));
                else CHECK(memcmp(&row[i], &expected[i], sizeof(floatX)) == 0);
            }
        }
}
