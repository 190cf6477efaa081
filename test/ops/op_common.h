// Shared by the tests of single operations. Everything goes through device memory, so the same tests run on every backend.
// Each oracle is one template: in long double it gives the reference, in floatM (results rounded to floatX) the error that a
// plain implementation of the same precision makes. The rule for an operation under test [as in flash-attention's tests]:
//   max |got - reference| <= 2 max |naive - reference| + 2 ulp of the largest reference
#pragma once
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "runtime/device/backend.h"
#include "runtime/device/rng.h"
#include "runtime/device/types.h"

using Wide = long double;

template <class T> inline double unit_roundoff() { return sizeof(T) == 8 ? 0x1p-53 : sizeof(T) == 4 ? 0x1p-24 : 0x1p-8; }

// An array in device memory, filled from and read back to host numbers.
template <class T> struct Device {
    T* p = nullptr;
    size_t n = 0;
    explicit Device(size_t count) : p(device_alloc_array<T>(count)), n(count) {}
    explicit Device(const std::vector<T>& host) : Device(host.size()) { copy_to_device(p, host.data(), n * sizeof(T)); }
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    ~Device() { device_free(p); }
    operator T*() { return p; }
    std::vector<T> get() const {
        std::vector<T> host(n);
        copy_to_host(host.data(), p, n * sizeof(T));
        return host;
    }
};
using DX = Device<floatX>;
using DM = Device<floatM>;
using DI = Device<int>;

template <class T> std::vector<T> normal_vector(size_t n, uint64_t seed, double scale = 1, double shift = 0) {
    std::vector<T> v(n);
    for (size_t i = 0; i < n; i++) v[i] = T(float(shift + scale * philox_normal(seed, 77, i)));
    return v;
}
template <class To, class From> std::vector<To> convert(const std::vector<From>& v) {
    std::vector<To> out(v.size());
    for (size_t i = 0; i < v.size(); i++) out[i] = To(v[i]);
    return out;
}
inline std::vector<Wide> wide(const std::vector<floatX>& v) {
    std::vector<Wide> out(v.size());
    for (size_t i = 0; i < v.size(); i++) out[i] = Wide(double(v[i]));
    return out;
}
// What storing in T does to a number computed in floatM.
template <class T> std::vector<Wide> stored(const std::vector<floatM>& v) {
    std::vector<Wide> out(v.size());
    for (size_t i = 0; i < v.size(); i++) out[i] = Wide(double(T(v[i])));
    return out;
}

// got: from the device. reference: in Wide. naive: the same oracle in floatM. T: the type in which the result is stored.
template <class T>
void check_close(const std::string& what, const std::vector<T>& got, const std::vector<Wide>& reference,
                 const std::vector<floatM>& naive) {
    REQUIRE(got.size() == reference.size());
    REQUIRE(naive.size() == reference.size());
    std::vector<Wide> plain = stored<T>(naive);
    double largest = 0, naive_error = 0, error = 0;
    size_t worst = 0;
    for (size_t i = 0; i < got.size(); i++) {
        double e = double(std::fabs(Wide(double(got[i])) - reference[i]));
        if (!(e <= error)) error = e, worst = i;
        naive_error = std::max(naive_error, double(std::fabs(plain[i] - reference[i])));
        largest = std::max(largest, double(std::fabs(reference[i])));
    }
    double bound = 2 * naive_error + 2 * unit_roundoff<T>() * largest;
    INFO(what, ": element ", worst, " of ", got.size(), " is ", double(got[worst]), ", should be ",
         double(reference[worst]), "; error ", error, ", allowed ", bound, " (a plain implementation: ", naive_error,
         ")");
    CHECK(error <= bound);
}
