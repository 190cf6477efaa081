// Copies parts of rows, to put a tensor together from others: out_h[i] = in_h[i], i < d, for `heads` vectors in each of
// `rows` rows. A variant whose keys are [part of another tensor ; something else] makes them in place, with one call per
// part. With in_head = 0 the row's one vector goes to every head.
// Backward: din_h += dout_h; with in_head = 0 the sum over the heads.
#pragma once
#include "runtime/device/types.h"

struct CopyShape {
    size_t rows;
    int heads, d;
    size_t out_row, out_head;    // strides of the destination, in elements
    size_t in_row, in_head;      // of the source
};

void copy_forward(floatX* out, const floatX* in, const CopyShape& s);
// din (= | += when accumulate) dout, summed over the heads when in_head == 0.
void copy_backward(floatX* din, const floatX* dout, const CopyShape& s, bool accumulate);
