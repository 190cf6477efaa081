// The contract of an MLP, the other half of a block. The Makefile's MLP=name picks model/mlp/name.h, which defines, for x (B, T, C):
//
//   int mlp_default_width(const ModelConfig& c)                                             --mlp-width 0
//   PartSpec mlp_spec(const ModelConfig& c)                                                 its parameters, buffers and FLOPs, as tables
//   void mlp_forward(floatX* out, const floatX* x, const Part& p)                           out (B, T, C) =
//   void mlp_backward(floatX* dx, const floatX* dout, const floatX* x, const Part& p)       dx (B, T, C) =
//
// A buffer with a `recompute` level in its table is shared by all layers from that level of --recompute on, and
// mlp_backward fills it again.
// To add one, write its file: MLP=name finds it, and so do the gradient checks (docs/adding.md).
#pragma once
#include "model/part.h"

#ifndef MLP
#error "compile with -DMLP=gelu (or swiglu)"
#endif
#define MLP_STRING_(x) #x
#define MLP_STRING(x) MLP_STRING_(x)
#include MLP_STRING(model/mlp/MLP.h)

inline constexpr const char* MLP_NAME = MLP_STRING(MLP);
