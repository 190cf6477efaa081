// MQA: multi-query attention [Shazeer 2019]. All query heads share one key and value head.
// Equations and code: grouped.h with NKV = 1. Cache: 2 HS elements per token and layer.
#pragma once
#include "attention/grouped.h"

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0) c.NKV = 1;
    ensure_usage(c.NKV == 1, "--kv-heads %d with ATTN=mqa: it has exactly one; build ATTN=gqa for more", c.NKV);
}
