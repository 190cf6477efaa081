// y = x * rstd * w,  rstd = 1 / sqrt(mean(x^2) + 1e-6)             [Zhang & Sennrich 2019, eq. 4; eps as in DeepSeek-V2]
// x: (rows, C) with row stride ld_x (a slice of a wider matrix)     y: (rows, C) packed     rstd: (rows) floatM, saved
// Backward, with n = x rstd and g = dy w:  dx = rstd (g - n mean_C(g n))     dw = sum_rows dy n
#pragma once
#include "runtime/device/types.h"

inline constexpr double RMSNORM_EPS = 1e-6;

void rmsnorm_forward(floatX* y, floatM* rstd, const floatX* x, const floatX* w, size_t rows, int C, size_t ld_x);
// sum = x + branch (the residual stream continues), then y = rmsnorm(sum), in one pass over memory. All packed.
void residual_rmsnorm_forward(floatX* sum, floatX* y, floatM* rstd, const floatX* x, const floatX* branch,
                              const floatX* w, size_t rows, int C);
// dx (row stride ld_x) (= | += when add_to_dx: the residual stream's gradient);  dw (= | += when accumulate)
void rmsnorm_backward(floatX* dx, floatM* dw, const floatX* dy, const floatX* x, const floatX* w, const floatM* rstd,
                      size_t rows, int C, size_t ld_x, bool accumulate, bool add_to_dx = false);
