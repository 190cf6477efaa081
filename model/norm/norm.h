// The contract of a norm: a block has two, and the model one at its end. The Makefile's NORM=name picks model/norm/name.h:
//
//   PartSpec norm_spec(const ModelConfig& c)                                    its parameters and what it saves, as tables
//   void norm_forward(floatX* y, const floatX* x, const Part& p)                y (B, T, C) = norm(x)
//   void norm_residual_forward(floatX* sum, floatX* y, const floatX* x, const floatX* branch, const Part& p)
//                                                                               sum = x + branch, y = norm(sum), in one pass over memory
//   void norm_backward(floatX* dx, const floatX* dy, const floatX* x, const Part& p, Write write)    dx (= | +=); x: what was normalised
//
// To add one, write its file: NORM=name finds it, and so do the gradient checks (docs/adding.md).
#pragma once
#include "model/part.h"

#ifndef NORM
#error "compile with -DNORM=layernorm (or rmsnorm)"
#endif
#define NORM_STRING_(x) #x
#define NORM_STRING(x) NORM_STRING_(x)
#include NORM_STRING(model/norm/NORM.h)

inline constexpr const char* NORM_NAME = NORM_STRING(NORM);
