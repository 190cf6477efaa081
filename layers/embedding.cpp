// Token and position embedding on the CPU. See embedding.h.
#include "layers/embedding.h"

#include <algorithm>

void embedding_forward(floatX* x, const int* tokens, const floatX* wte, const floatX* pos, int B, int T, int C, const int* position) {
    size_t rows = size_t(B) * T;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++) {
        const floatX *e = wte + size_t(tokens[r]) * C, *p = pos ? pos + (position ? size_t(position[r]) : r % T) * C : nullptr;
        floatX* out = x + r * C;
        if (p) for (int c = 0; c < C; c++) store(out[c], e[c] + p[c]);
        else std::copy(e, e + C, out);
    }
}

// Each thread owns a block of columns and walks all rows in order, so that two rows with the same token never race.
void embedding_backward(floatM* dwte, floatM* dpos, const floatX* dx, const int* tokens, int B, int T, int C, bool accumulate) {
    constexpr int COLUMNS = 64;
    int blocks = int(ceil_div(size_t(C), COLUMNS));
#pragma omp parallel for schedule(static)
    for (int block = 0; block < blocks; block++) {
        int begin = block * COLUMNS, n = std::min(COLUMNS, C - begin);
        for (size_t r = 0; r < size_t(B) * T; r++) {
            const floatX* d = dx + r * C + begin;
            floatM* token_row = dwte + size_t(tokens[r]) * C + begin;
#pragma omp simd
            for (int c = 0; c < n; c++) token_row[c] += d[c];
            if (!dpos) continue;
            floatM* pos_row = dpos + (r % T) * C + begin;
            bool first = r < size_t(T) && !accumulate;
#pragma omp simd
            for (int c = 0; c < n; c++) pos_row[c] = (first ? floatM(0) : pos_row[c]) + d[c];
        }
    }
}
