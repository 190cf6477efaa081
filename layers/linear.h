// y = x W^T + b, for `batch` independent heads at once when batch > 1 (each with its own slice of x, W and y).
//   dx = dy W     dW = dy^T x     db = sum over rows of dy
// x: (rows, in) with row stride ld_in     w: (out, in) with row stride ld_w     b: (out) or null     y: (rows, out), stride ld_out
// Strides are in elements. A head's slice starts at head * batch_x of x, head * batch_w of w, head * batch_out of y; 0 shares it.
// This is the only layer that calls a library: a plain matrix product (CPU: oneDNN, OpenBLAS or our own; CUDA: cuBLASLt).
#pragma once
#include "runtime/device/types.h"

struct LinearShape {
    size_t rows;
    int in, out;
    size_t ld_in, ld_w, ld_out;
    int batch = 1;
    size_t batch_x = 0, batch_w = 0, batch_out = 0;
};
inline LinearShape linear_shape(size_t rows, int in, int out) { return {rows, in, out, size_t(in), size_t(in), size_t(out)}; }

// With up to FEW_ROWS rows, a row of y does not depend on the others (linear_rows.h); with more, the library's order of
// summation depends on the shape.
// y (= | += when accumulate). With gelu_out (same layout as y): y keeps the pre-activation, gelu_out = GELU(y), in one pass.
void linear_forward(floatX* y, const floatX* x, const floatX* w, const floatX* b, const LinearShape& s, bool accumulate = false,
                    floatX* gelu_out = nullptr);
// dx (= | += when accumulate). With pre_gelu (layout of x): dx = (dy W) * GELU'(pre_gelu), the backward of a GELU that fed x.
void linear_backward_input(floatX* dx, const floatX* dy, const floatX* w, const LinearShape& s, bool accumulate = false,
                           const floatX* pre_gelu = nullptr);
// dw, db (= | += when accumulate); db may be null. With batch_w == 0 and batch > 1 the heads' gradients are summed, in order.
void linear_backward_weight(floatM* dw, floatM* db, const floatX* dy, const floatX* x, const LinearShape& s, bool accumulate);
// out = GELU(x), n elements: the pass of linear_forward's gelu_out again, where its result was not kept.
void gelu_forward(floatX* out, const floatX* x, size_t n);
