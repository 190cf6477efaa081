// Copies of parts of rows on the CPU. See copy.h.
#include "layers/copy.h"

void copy_forward(floatX* out, const floatX* in, const CopyShape& s) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < s.rows; r++)
        for (int h = 0; h < s.heads; h++) {
            floatX* to = out + r * s.out_row + h * s.out_head;
            const floatX* from = in + r * s.in_row + h * s.in_head;
            for (int i = 0; i < s.d; i++) to[i] = from[i];
        }
}

void copy_backward(floatX* din, const floatX* dout, const CopyShape& s, bool accumulate) {
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < s.rows; r++)
        for (int h = 0; h < s.heads; h++) {
            floatX* to = din + r * s.in_row + h * s.in_head;
            const floatX* from = dout + r * s.out_row + h * s.out_head;
            const bool add = accumulate || (s.in_head == 0 && h > 0);
            for (int i = 0; i < s.d; i++) to[i] = add ? to[i] + from[i] : from[i];
        }
}
