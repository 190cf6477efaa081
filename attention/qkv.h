// QKV: multi-head attention [Vaswani et al. 2017, sec. 3.2.2], the baseline. Every query head has its own key and value head.
// Equations and code: grouped.h with NKV = NH. Cache: 2 NH HS elements per token and layer.
#pragma once
#include "attention/grouped.h"

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0) c.NKV = c.NH;
    ensure_usage(c.NKV == c.NH, "--kv-heads %d with ATTN=qkv: it has as many as --heads %d; build ATTN=gqa for fewer", c.NKV, c.NH);
}
