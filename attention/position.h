// Positions, chosen at run time by --pos (the table is in docs/variants.md): what each adds to the model.
//   learned, sinusoidal   added to the token embedding (layers/embedding.h)
//   rope                  rotates queries and keys inside the variants (layers/rope.h)
//   alibi, power          a bias on the attention scores, by distance d = i - j (attention/sdpa.h)
//   none                  only the causal mask
#pragma once
#include <cmath>
#include <vector>

#include "attention/spec.h"
#include "runtime/run/config.h"

// ALiBi's slopes [Press et al. 2022, sec. 3]: for NH a power of two 2^(-8/NH), 2^(-16/NH), ...; otherwise those of the next
// lower power of two, then every other slope of twice that.
inline std::vector<double> alibi_slopes(int NH) {
    int n = 1;
    while (2 * n <= NH) n *= 2;
    std::vector<double> slopes;
    for (int i = 1; i <= n; i++) slopes.push_back(std::exp2(-8.0 * i / n));
    for (int i = 1; int(slopes.size()) < NH; i += 2) slopes.push_back(std::exp2(-4.0 * i / n));
    return slopes;
}

// Power law (KERPLE's logarithmic form [Chi et al. 2022]): bias = -p ln(1 + a d), p and a learned per head and layer, both
// kept >= 0.01 by the optimizer. Before the softmax this multiplies each weight by (1 + a d)^-p: our reading of the
// "gravitational field" of arXiv:2603.04805, whose exact formula is not public to us (inferred).
inline std::vector<ParamSpec> position_params(const ModelConfig& c) {
    if (c.pos != Position::power) return {};
    return {{"pos_p", {c.NH}, Init::uniform(0.01, 2), false, false, 0.01}, {"pos_a", {c.NH}, Init::uniform(0.01, 1), false, false, 0.01}};
}
