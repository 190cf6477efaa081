// The contract of an attention variant. The Makefile's ATTN=name picks attention/name.h, which defines, for inputs x (B, T, C):
//
//   VariantOptions ATTENTION_OPTIONS                         its own command-line options (config.h), read as c.own[i]; or {}
//   void attention_defaults(ModelConfig& c)                  fills NKV and the variant's own sizes; refuses what it cannot do
//   AttentionSpec attention_spec(const ModelConfig& c)       its parameters, buffers, FLOPs and cache, as tables
//   void attention_forward(floatX* out, const floatX* x, const AttentionLayer& l)            out (B, T, C) =
//   void attention_backward(floatX* dx, const floatX* dout, const floatX* x, const AttentionLayer& l)   dx (B, T, C) =
//   void attention_decode(floatX* out, const floatX* x, const DecodeLayer& l)                out (rows, C) =
//       x: new tokens, of any sequences at any positions. Appends them to the cache, then attends to it (sdpa_decode.h).
//       Gives attention_forward's numbers up to rounding, for a chunk of a prompt and for a single token alike
//
// A variant composes linear, rope, rmsnorm, copy and sdpa, so it is the same file on every backend. To add one, write
// its file and add its name to VARIANTS in the Makefile: the gradient checks, the trainer and `make compare` find it
// there (docs/adding.md).
#pragma once
#include "attention/position.h"
#include "attention/sdpa.h"
#include "attention/spec.h"
#include "layers/copy.h"
#include "layers/linear.h"
#include "layers/linear_rows.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "runtime/run/error.h"

#ifndef ATTN
#error "compile with -DATTN=qkv (or mqa, gqa, mla, qv, qv_ka, gta)"
#endif
#define ATTN_STRING_(x) #x
#define ATTN_STRING(x) ATTN_STRING_(x)
#include ATTN_STRING(attention/ATTN.h)

inline constexpr const char* ATTENTION_NAME = ATTN_STRING(ATTN);
