// One transformer block, pre-norm as in GPT-2 [Radford et al. 2019]:
//   h = x + attention(norm_1(x))        out = h + mlp(norm_2(h))
// What it holds is declared once, in tables: those of its four parts, and the block's four activations. An addition to
// the residual stream and the norm that reads the sum are one pass over memory. So norm_1(x) is already there when the
// block begins, and the block's last addition is left to the caller, who knows the next norm (gpt_forward).
#pragma once
#include "attention/attention.h"
#include "model/mlp/mlp.h"
#include "model/norm/norm.h"

enum BlockPart { NORM_1, ATTENTION, NORM_2, FEED_FORWARD, BLOCK_PARTS };
struct NamedPart {
    const char *label, *prefix;                  // of its buffers; of its parameters, after "h.3."
    PartSpec spec;
};
inline std::vector<NamedPart> block_parts(const ModelConfig& c) {
    PartSpec attention = attention_spec(c);
    for (const ParamSpec& p : position_params(c)) attention.params.push_back(p);          // after the variant's
    return {{"ln_1", "ln_1.", norm_spec(c)}, {"attention", "attn.", attention}, {"ln_2", "ln_2.", norm_spec(c)},
            {"mlp", "mlp.", mlp_spec(c)}};
}

enum BlockSaved { NORMED_1, H, NORMED_2, OUT, BLOCK_SAVED };
inline std::vector<BufferSpec> block_saved(const ModelConfig& c) {
    const size_t C = size_t(c.C);
    return {{.name = "ln_1", .per_token = C, .recompute = 2},
            {"residual after attention", C},
            {.name = "ln_2", .per_token = C, .recompute = 2},
            {"residual after mlp", C}};
}

// One layer, as its functions are handed it.
struct Block {
    Part norm_1;
    AttentionLayer attention;
    Part norm_2, mlp;
    void* const* saved;                          // by BlockSaved
    floatX *branch, *dbranch;                    // (B, T, C): what a branch adds; the gradient of what a branch reads
    int recompute;                               // 2: the norms' outputs are computed again in the backward

    floatX* save(int i) const { return static_cast<floatX*>(saved[i]); }
};

// x and norm_1(x) -> h, and in `branch` what is still to be added to it: out = h + branch.
inline void block_forward(const Block& b, const floatX* x) {
    attention_forward(b.branch, b.save(NORMED_1), b.attention);
    norm_residual_forward(b.save(H), b.save(NORMED_2), x, b.branch, b.norm_2);            // h = x + attention(norm_1(x)), and norm_2(h)
    mlp_forward(b.branch, b.save(NORMED_2), b.mlp);
}

// dx: the gradient of out on entry, the gradient of x on return. Forward was out = h + mlp(norm_2(h)), so dh = dout +
// (what comes back through the branch): the branch's part is added to dx. The same again for h = x + attention(norm_1(x)).
// `between` is called half-way, when none of this block's gradients is due: a good moment for communication.
template <class Between> void block_backward(const Block& b, floatX* dx, const floatX* x, Between between) {
    if (b.recompute >= 2) norm_forward(b.save(NORMED_2), b.save(H), b.norm_2);
    mlp_backward(b.dbranch, dx, b.save(NORMED_2), b.mlp);
    norm_backward(dx, b.dbranch, b.save(H), b.norm_2, Write::add);
    between();
    if (b.recompute >= 2) norm_forward(b.save(NORMED_1), x, b.norm_1);
    attention_backward(b.dbranch, dx, b.save(NORMED_1), b.attention);
    norm_backward(dx, b.dbranch, x, b.norm_1, Write::add);
}
