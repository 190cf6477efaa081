// linear for the few rows of decoding: one row for every sequence, or a chunk of a prompt.
//   linear_rows_forward   y = x W^T + b   as linear_forward, with its shape            (linear_forward calls it up to FEW_ROWS rows)
//   linear_rows_absorb    x = y W         per head: a weight absorbed into the query, q~ = W_UK^T q; the shape is the layer's own
// A row of the result does not depend on the number of rows nor on the threads: decoding gives the same text for every batch
// and chunking. (Training does not need that: it has many rows, and the library's product is the fastest.)
// Memory-bound: the weights are read once and in order.
#pragma once
#include "layers/linear.h"

#if defined(__CUDACC__) || defined(BACKEND_EMU)
inline constexpr size_t FEW_ROWS = 16;           // one warp a column of W; beyond, tensor cores (whose sums depend on the shape)
#else
inline constexpr size_t FEW_ROWS = 64;           // beyond, the library's product is faster
#endif

void linear_rows_forward(floatX* y, const floatX* x, const floatX* w, const floatX* b, const LinearShape& s,
                         bool accumulate, floatX* gelu_out);
void linear_rows_absorb(floatX* x, const floatX* y, const floatX* w, const LinearShape& s);
