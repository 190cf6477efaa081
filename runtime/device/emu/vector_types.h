// CUDA's built-in types and index variables. Part of emu.h.
#pragma once
#include <cstdint>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 { unsigned x, y, z; };

// may_alias: kernels read arrays of other types through these, as nvcc allows.
#define EMU_VECTOR(T, name)                                                                         \
    struct __attribute__((may_alias, aligned(2 * sizeof(T)))) name##2 { T x, y; };                  \
    struct __attribute__((may_alias, aligned(4 * sizeof(T)))) name##4 { T x, y, z, w; };            \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                      \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR(float, float)
EMU_VECTOR(int, int)
EMU_VECTOR(unsigned, uint)
#undef EMU_VECTOR

// Real variables, so that a debugger can print them and stop on them: `break layernorm.cu:40 if threadIdx.x == 5`.
inline thread_local uint3 threadIdx{}, blockIdx{};
inline thread_local dim3 blockDim{}, gridDim{};
inline constexpr int warpSize = 32;
