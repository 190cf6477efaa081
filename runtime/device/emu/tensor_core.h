// ldmatrix and mma.sync with the fragment layouts of the PTX ISA (sections "ldmatrix" and "Matrix Fragments for mma.m16n8k16").
// Part of emu.h; the contracts of these functions are in layers/ptx.cuh.
#pragma once

namespace emu {
struct LdmatrixArgument { Vector16 row; uint32_t* out; uintptr_t address; };

// Matrix q of 8x8 has its rows at the addresses of lanes 8q..8q+7. Lane l receives elements (l/4, 2(l%4)) and its right
// neighbour in one register; transposed: (2(l%4), l/4) and the element below.
template <bool TRANSPOSED> EMU_NO_TSAN void ldmatrix_operation(void* const* argument, uint32_t) {
    for (int q = 0; q < 4; q++) {
        uintptr_t address[8];
        uint16_t m[8][8];
        for (int r = 0; r < 8; r++) {
            LdmatrixArgument& a = *static_cast<LdmatrixArgument*>(argument[8 * q + r]);
            __builtin_memcpy(m[r], &a.row, 16);
            address[r] = a.address;
        }
        thread_stats.ldmatrix_phases++;
        thread_stats.ldmatrix_conflicts += uint64_t(extra_cycles(address, 8));
        for (int lane = 0; lane < 32; lane++) {
            int i = lane / 4, j = 2 * (lane % 4);
            uint32_t low = TRANSPOSED ? m[j][i] : m[i][j], high = TRANSPOSED ? m[j + 1][i] : m[i][j + 1];
            static_cast<LdmatrixArgument*>(argument[lane])->out[q] = low | high << 16;
        }
    }
}
template <bool TRANSPOSED> void ldmatrix(uint32_t (&r)[4], const void* row, const char* name, Where at) {
    if (reinterpret_cast<uintptr_t>(row) & 15)
        kernel_error("%s at %s:%d: the row's address is not 16-byte aligned", name, at.file, at.line);
    // Read by the lane that names the row, so that ASan and TSan blame it.
    LdmatrixArgument a{*static_cast<const Vector16*>(row), r, reinterpret_cast<uintptr_t>(row)};
    collective(0xffffffffu, name, &a, ldmatrix_operation<TRANSPOSED>, false, at);
}

struct MmaArgument { float* d; const uint32_t* a; uint32_t b[2]; };
inline float bf16_value(uint32_t bits) {
    bits <<= 16;
    float f;
    __builtin_memcpy(&f, &bits, 4);
    return f;
}
EMU_NO_TSAN inline void mma_operation(void* const* argument, uint32_t) {
    float A[16][16], B[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const MmaArgument& m = *static_cast<MmaArgument*>(argument[lane]);
        int g = lane / 4, t = lane % 4;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++) A[g + (r & 1) * 8][2 * t + half + (r & 2) * 4] = bf16_value(m.a[r] >> 16 * half & 0xffff);
            for (int r = 0; r < 2; r++) B[2 * t + half + r * 8][g] = bf16_value(m.b[r] >> 16 * half & 0xffff);
        }
    }
    for (int row = 0; row < 16; row++) {
        float sum[8] = {};
        for (int k = 0; k < 16; k++) for (int n = 0; n < 8; n++) sum[n] += A[row][k] * B[k][n];
        for (int n = 0; n < 8; n++) static_cast<MmaArgument*>(argument[row % 8 * 4 + n / 2])->d[n % 2 + row / 8 * 2] += sum[n];
    }
}
}  // namespace emu

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, EMU_HERE) { emu::ldmatrix<false>(r, row, "ldmatrix.x4", at); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, EMU_HERE) { emu::ldmatrix<true>(r, row, "ldmatrix.x4.trans", at); }
inline void ldmatrix_x4(uint32_t (&r)[4], SharedAddress row, EMU_HERE) { ldmatrix_x4(r, reinterpret_cast<const void*>(row), at); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], SharedAddress row, EMU_HERE) {
    ldmatrix_x4_trans(r, reinterpret_cast<const void*>(row), at);
}
inline void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMU_HERE) {
    emu::MmaArgument m{d, a, {b0, b1}};
    emu::collective(0xffffffffu, "mma.m16n8k16", &m, emu::mma_operation, false, at);
}
