// bfloat16: the upper half of a float (1 sign, 8 exponent, 7 stored mantissa bits), as a storage type on host and device.
// Arithmetic is done in float: a bf16 converts to float implicitly; the way back must be written out, bf16(x),
// because it rounds (to nearest even; a NaN stays a NaN). Needs no CUDA header in host code; under nvcc the hardware's conversion is used.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#define BF16_FUNCTION __host__ __device__ __forceinline__
#else
#define BF16_FUNCTION inline
#endif

BF16_FUNCTION float bf16_bits_to_float(uint16_t bits) {
    uint32_t wide = uint32_t(bits) << 16;
#if defined(__CUDA_ARCH__)
    return __uint_as_float(wide);
#else
    float f;
    memcpy(&f, &wide, 4);
    return f;
#endif
}

// Adding 0x7fff, and one more where the kept part is odd, carries into it exactly when rounding to nearest even goes up.
BF16_FUNCTION uint16_t float_to_bf16_bits(float f) {
#if defined(__CUDA_ARCH__)
    return __bfloat16_as_ushort(__float2bfloat16_rn(f));
#else
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t nan = u >> 16 | 0x40, number = (u + 0x7fffu + (u >> 16 & 1)) >> 16;     // NaN: quiet, sign and payload's top kept
    return uint16_t((u & 0x7fffffffu) > 0x7f800000u ? nan : number);                 // a select, so that loops over bf16 vectorise
#endif
}

struct bf16 {
    uint16_t bits;

    bf16() = default;
    template <class T> requires std::is_arithmetic_v<T>
    BF16_FUNCTION explicit bf16(T x) : bits(float_to_bf16_bits(float(x))) {}
    BF16_FUNCTION operator float() const { return bf16_bits_to_float(bits); }
};
static_assert(sizeof(bf16) == 2 && std::is_trivially_copyable_v<bf16> && std::is_trivially_default_constructible_v<bf16>);
