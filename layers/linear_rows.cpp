// linear for few rows on the CPU. See linear_rows.h.
#include "layers/linear_rows.h"

#include <algorithm>

#include "layers/cpu_math.h"
#include "layers/dot_rows.h"

using namespace decoding;

namespace {
constexpr int COLUMNS = 32;                      // of the output, one task's: 32 rows of W, 96 KiB at C = 768

// Runs task(head, row, rows, column, columns): blocks of FEW_ROWS rows, the columns shared among the threads.
template <class Task> void for_each_block(int batch, size_t rows, int columns, Task task) {
    const int blocks = int(ceil_div(size_t(columns), COLUMNS)), total = batch * blocks;
#pragma omp parallel for schedule(static) if (total > 1)
    for (int t = 0; t < total; t++) {
        int column = t % blocks * COLUMNS;
        for (size_t row = 0; row < rows; row += FEW_ROWS)
            task(t / blocks, row, int(std::min(FEW_ROWS, rows - row)), column, std::min(COLUMNS, columns - column));
    }
}
}  // namespace

void linear_rows_forward(floatX* y, const floatX* x, const floatX* w, const floatX* b, const LinearShape& s,
                         bool accumulate, floatX* gelu_out) {
    for_each_block(s.batch, s.rows, s.out, [&](int h, size_t row, int rows, int column, int columns) {
        floatM sum[FEW_ROWS * COLUMNS];
        dot_rows(sum, COLUMNS, x + h * s.batch_x + row * s.ld_in, s.ld_in, w + h * s.batch_w + column * s.ld_w, s.ld_w,
                 rows, columns, s.in);
        for (int r = 0; r < rows; r++) {
            floatX* out = y + h * s.batch_out + (row + r) * s.ld_out + column;
            for (int c = 0; c < columns; c++) {
                floatM v = sum[r * COLUMNS + c] + (b ? floatM(b[column + c]) : floatM(0));
                store(out[c], accumulate ? floatM(out[c]) + v : v);
            }
            if (!gelu_out) continue;
            floatX* activated = gelu_out + (out - y);
            for (int c = 0; c < columns; c++) store(activated[c], gelu(floatM(out[c])));
        }
    });
}

void linear_rows_absorb(floatX* x, const floatX* y, const floatX* w, const LinearShape& s) {
    for_each_block(s.batch, s.rows, s.in, [&](int h, size_t row, int rows, int column, int columns) {
        floatM sum[FEW_ROWS * COLUMNS];
        mix_rows(sum, COLUMNS, y + h * s.batch_out + row * s.ld_out, s.ld_out, w + h * s.batch_w + column, s.ld_w, rows, columns, s.out);
        for (int r = 0; r < rows; r++) {
            floatX* out = x + h * s.batch_x + (row + r) * s.ld_in + column;
            for (int c = 0; c < columns; c++) store(out[c], sum[r * COLUMNS + c]);
        }
    });
}
