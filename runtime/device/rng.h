// Counter-based random numbers: Philox4x32-10 [Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"].
// A number is a pure function of (seed, stream, index), so nothing depends on the order of calls, on threads or on processes.
#pragma once
#include <cmath>
#include <cstdint>
#include <string_view>

#if defined(__CUDACC__)
#define RNG_FUNCTION __host__ __device__ __forceinline__
#else
#define RNG_FUNCTION inline
#endif

struct Philox { uint32_t x[4]; };

RNG_FUNCTION Philox philox(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    uint32_t c[4] = {uint32_t(index), uint32_t(index >> 32), uint32_t(stream), uint32_t(stream >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t a = uint64_t(0xD2511F53u) * c[0], b = uint64_t(0xCD9E8D57u) * c[2];
        uint32_t next[4] = {uint32_t(b >> 32) ^ c[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ k1, uint32_t(a)};
        for (int i = 0; i < 4; i++) c[i] = next[i];
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c[0], c[1], c[2], c[3]}};
}

// Uniform in [0, 1) with 53 bits; `lane` 0 or 1 picks one of the two numbers that a counter gives.
inline double philox_uniform(uint64_t seed, uint64_t stream, uint64_t index, int lane = 0) {
    Philox r = philox(seed, stream, index);
    uint64_t bits = uint64_t(r.x[2 * lane]) << 32 | r.x[2 * lane + 1];
    return double(bits >> 11) * 0x1p-53;
}

// Standard normal by Box-Muller; one counter per number.
inline double philox_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    double u = 1.0 - philox_uniform(seed, stream, index, 0), v = philox_uniform(seed, stream, index, 1);
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
}

// A uniform integer in [0, n), n < 2^32 (bias below 2^-32).
inline uint32_t philox_below(uint64_t seed, uint64_t stream, uint64_t index, uint32_t n) {
    return uint32_t(uint64_t(philox(seed, stream, index).x[0]) * n >> 32);
}

// Names a stream of random numbers: FNV-1a, so "wte.weight" has its own numbers in every variant.
inline constexpr uint64_t rng_stream(std::string_view name) {
    uint64_t h = 14695981039346656037ull;
    for (char c : name) h = (h ^ uint8_t(c)) * 1099511628211ull;
    return h;
}
