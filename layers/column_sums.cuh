// Sums over the rows of a matrix, in two stages without atomics: every block sums some rows (stage 1, in the caller's kernel or
// in column_sums), then one kernel adds the blocks' rows of partial sums in order (stage 2). The same bits run after run.
#pragma once
#include "layers/cuda_common.cuh"

// out (columns) (= | += when accumulate) sum over rows of x (rows, columns), row stride ld.
void column_sums(floatM* out, const floatX* x, size_t rows, int columns, size_t ld, bool accumulate);
// Stage 2: out (columns) (= | +=) sum over blocks of partial (blocks, ld), the first `columns` of each row.
void finish_column_sums(floatM* out, const float* partial, int blocks, int columns, size_t ld, bool accumulate);
