// y = silu(g) u,  silu(g) = g / (1 + exp(-g))                     [Shazeer 2020, arXiv:2002.05202, eq. 5: SwiGLU, without biases]
// gate_up: (rows, 2 F), g and u side by side, as one product makes them       y: (rows, F)
// Backward, with s = 1 / (1 + exp(-g)):   dg = dy u (s + g s (1 - s))     du = dy g s
#pragma once
#include "runtime/device/types.h"

void swiglu_forward(floatX* y, const floatX* gate_up, size_t rows, int F);
// dgate_up (rows, 2 F) =
void swiglu_backward(floatX* dgate_up, const floatX* dy, const floatX* gate_up, size_t rows, int F);
