// y = (x - mean) * rstd * w + b                                   [Ba et al. 2016, eq. 4], rstd = 1 / sqrt(var + 1e-5)
// x, y: (rows, C) floatX     w, b: (C)     mean, rstd: (rows) floatM, saved for backward
// Backward, with n = (x - mean) rstd and g = dy w:
//   dx = rstd (g - mean_C(g) - n mean_C(g n))      dw = sum_rows dy n      db = sum_rows dy
#pragma once
#include "runtime/device/types.h"

inline constexpr double LAYERNORM_EPS = 1e-5;

void layernorm_forward(floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* w, const floatX* b, size_t rows, int C);
// sum = x + branch (the residual stream continues), then y = layernorm(sum), in one pass over memory.
void residual_layernorm_forward(floatX* sum, floatX* y, floatM* mean, floatM* rstd, const floatX* x, const floatX* branch,
                                const floatX* w, const floatX* b, size_t rows, int C);
// dx (= | += when add_to_dx: the residual stream's gradient);  dw, db (= | += when accumulate).
void layernorm_backward(floatX* dx, floatM* dw, floatM* db, const floatX* dy, const floatX* x, const floatX* w,
                        const floatM* mean, const floatM* rstd, size_t rows, int C, bool add_to_dx, bool accumulate);
