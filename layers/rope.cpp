// Rotary position embedding on the CPU. See rope.h.
#include "layers/rope.h"

#include <algorithm>
#include <vector>

// (x, y) -> (x cos - y sin, x sin + y cos), by the angle times `sign`; += when add
template <class In> static void rotate(floatX* out, const In* in, const floatM* table, int half, floatM sign, bool add) {
#pragma omp simd
    for (int i = 0; i < half; i++) {
        floatM c = table[2 * i], s = sign * table[2 * i + 1], x = floatM(in[i]), y = floatM(in[i + half]);
        floatM first = x * c - y * s, second = x * s + y * c;
        store(out[i], add ? floatM(out[i]) + first : first);
        store(out[i + half], add ? floatM(out[i + half]) + second : second);
    }
}

void rope_forward(floatX* out, const floatX* in, const floatM* table, const RopeShape& s, bool inverse) {
    size_t rows = size_t(s.B) * s.T;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++)
        for (int h = 0; h < s.heads; h++)
            rotate(out + r * s.out_row + h * s.out_head, in + r * s.in_row + h * s.in_head,
                   table + (s.position ? size_t(s.position[r]) : r % s.T) * s.d, s.d / 2, inverse ? -1 : 1, false);
}

void rope_backward(floatX* din, const floatX* dout, const floatM* table, const RopeShape& s, bool accumulate, bool inverse) {
    const size_t rows = size_t(s.B) * s.T;
    const floatM sign = inverse ? 1 : -1;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) {
        const floatM* angles = table + (r % s.T) * s.d;
        const floatX* from = dout + r * s.out_row;
        floatX* to = din + r * s.in_row;
        if (s.in_head != 0 || s.heads == 1) {
            for (int h = 0; h < s.heads; h++) rotate(to + h * s.in_head, from + h * s.out_head, angles, s.d / 2, sign, accumulate);
            continue;
        }
        thread_local std::vector<floatM> sum;                // one source for all heads: their gradients are added, then rotated once
        sum.assign(size_t(s.d), floatM(0));
        for (int h = 0; h < s.heads; h++)
            for (int i = 0; i < s.d; i++) sum[i] += floatM(from[h * s.out_head + i]);
        rotate(to, sum.data(), angles, s.d / 2, sign, accumulate);
    }
}
