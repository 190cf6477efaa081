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
    for (size_t r = 0; r < s.rows; r++) {
        floatX* row = din + r * s.in_row;
        const floatX* from = dout + r * s.out_row;
        if (s.in_head == 0) {                                // one source for all heads: their gradients are added, then stored
            for (int i = 0; i < s.d; i++) {
                floatM sum = accumulate ? floatM(row[i]) : floatM(0);
                for (int h = 0; h < s.heads; h++) sum += floatM(from[h * s.out_head + i]);
                store(row[i], sum);
            }
            continue;
        }
        for (int h = 0; h < s.heads; h++) {
            floatX* to = row + h * s.in_head;
            for (int i = 0; i < s.d; i++) store(to[i], (accumulate ? floatM(to[i]) : floatM(0)) + floatM(from[h * s.out_head + i]));
        }
    }
}
