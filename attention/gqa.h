// GQA: grouped-query attention [Ainslie et al. 2023, arXiv:2305.13245]. NKV key/value heads, each read by NH / NKV query heads.
// Equations and code: grouped.h. --kv-heads sets NKV; the default is the largest divisor of NH that is at most max(2, NH / 3):
// 4 for 12 heads, 2 for 4 or 6. Cache: 2 NKV HS elements per token and layer.
#pragma once
#include "attention/grouped.h"

inline void attention_defaults(ModelConfig& c) {
    if (c.NKV == 0)
        for (int n = 1; n <= (c.NH / 3 > 2 ? c.NH / 3 : 2) && n <= c.NH; n++)
            if (c.NH % n == 0) c.NKV = n;
    ensure_usage(c.NKV >= 1 && c.NH % c.NKV == 0, "--kv-heads %d does not divide --heads %d", c.NKV, c.NH);
}
