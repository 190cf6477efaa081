// The contract of an attention variant. The Makefile's ATTN=name picks attention/name.h, which defines, for inputs x (B, T, C):
//
//   VariantOptions ATTENTION_OPTIONS                             its own command-line options (config.h), read as c.own[i]; {} when it has none
//   void attention_defaults(ModelConfig& c)                  fills NKV and the variant's own sizes; refuses what it cannot do
//   AttentionSpec attention_spec(const ModelConfig& c)       its parameters, buffers, FLOPs and cache, as tables
//   void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l)            out (B, T, C) =
//   void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l)   dx (B, T, C) =
//
// A variant composes linear, rope, rmsnorm, copy and sdpa, so it is the same file on every backend. To add one: write its file, add
// its name to VARIANTS in the Makefile; the gradient checks, the trainer and `make compare` find it there.
#pragma once
#include "attention/position.h"
#include "attention/sdpa.h"
#include "attention/spec.h"
#include "layers/copy.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "runtime/run/error.h"

#ifndef ATTN
#error "compile with -DATTN=qkv (or mqa, gqa, mla, qv, qv_ka)"
#endif
#define ATTN_STRING_(x) #x
#define ATTN_STRING(x) ATTN_STRING_(x)
#include ATTN_STRING(attention/ATTN.h)

inline constexpr const char* ATTENTION_NAME = ATTN_STRING(ATTN);
