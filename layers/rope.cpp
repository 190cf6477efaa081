// Rotary position embedding on the CPU. See rope.h.
#include "layers/rope.h"

// (x, y) -> (x cos - y sin, x sin + y cos), by the angle times `sign`; += when add
static void rotate(floatX* out, const floatX* in, const floatM* table, int half, floatM sign, bool add) {
    for (int i = 0; i < half; i++) {
        floatM c = table[2 * i], s = sign * table[2 * i + 1], x = in[i], y = in[i + half];
        floatM first = x * c - y * s, second = x * s + y * c;
        out[i] = add ? out[i] + first : first;
        out[i + half] = add ? out[i + half] + second : second;
    }
}

void rope_forward(floatX* out, const floatX* in, const floatM* table, const RopeShape& s, bool inverse) {
    size_t rows = size_t(s.B) * s.T;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++)
        for (int h = 0; h < s.heads; h++)
            rotate(out + r * s.out_row + h * s.out_head, in + r * s.in_row + h * s.in_head, table + (s.position ? size_t(s.position[r]) : r % s.T) * s.d,
                   s.d / 2, inverse ? -1 : 1, false);
}

void rope_backward(floatX* din, const floatX* dout, const floatM* table, const RopeShape& s, bool accumulate, bool inverse) {
    size_t rows = size_t(s.B) * s.T;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++)
        for (int h = 0; h < s.heads; h++)
            rotate(din + r * s.in_row + h * s.in_head, dout + r * s.out_row + h * s.out_head, table + (r % s.T) * s.d, s.d / 2,
                   inverse ? 1 : -1, accumulate || (s.in_head == 0 && h > 0));
}
