// What a variant tells the model about itself, as plain tables. From them follow allocation, initialisation, checkpoints,
// optimizer groups, gradient checks and the printed counts; no other file names a variant.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "attention/sdpa.h"
#include "runtime/run/config.h"
#include "runtime/device/types.h"

struct Init {
    enum Kind { normal_, uniform_, constant_ } kind;
    double a, b;                                            // normal: std; uniform: low, high; constant: value
    static Init normal(double std) { return {normal_, std, 0}; }
    static Init uniform(double low, double high) { return {uniform_, low, high}; }
    static Init constant(double value) { return {constant_, value, 0}; }
};

struct ParamSpec {
    std::string name;                                       // "q.weight"; the model puts "h.3.attn." before it
    std::vector<int64_t> shape;                             // weights are (out, in)
    Init init;
    bool decay;                                             // weight decay: matrices only
    bool adjacent = false;                                  // lies right behind the tensor before it: the two make one matrix
    double min_value = -std::numeric_limits<double>::infinity();
};

// A buffer of `per_token` elements for every one of the B * T tokens.
struct BufferSpec {
    std::string name;
    size_t per_token;
    bool master = false;                                    // floatM instead of floatX
};

struct AttentionSpec {
    std::vector<ParamSpec> params;                          // the variant's enum indexes them
    std::vector<BufferSpec> saved;                          // forward -> backward, one set per layer
    std::vector<BufferSpec> scratch;                        // gradients inside backward, one set for all layers
    int d_qk, d_v;                                          // per query head, for the attention products' FLOPs
    int rope_width;                                         // of the rotation; 0: this variant does not rotate
    size_t macs_per_token;                                  // multiply-adds of the projections, per layer
    size_t cache_elements;                                  // that decoding must keep per token and layer
};

// One layer's pointers, handed to the variant. w and dw follow `params`; saved and scratch follow their tables.
struct AttentionLayer {
    const ModelConfig& c;
    int B, T;
    const floatX* const* w;
    floatM* const* dw;
    void* const* saved;
    void* const* scratch;
    const floatM* rope;                                     // (T, rope_width / 2, 2), null when rope_width is 0
    PositionBias bias;
    floatM *dp, *da;                                        // power's gradients (NH), else null
    bool accumulate;                                        // weight gradients: += instead of = (micro-batches after the first)

    size_t rows() const { return size_t(B) * T; }
    floatX* save(int i) const { return static_cast<floatX*>(saved[i]); }
    floatM* save_master(int i) const { return static_cast<floatM*>(saved[i]); }
    floatX* grad(int i) const { return static_cast<floatX*>(scratch[i]); }
};

// Standard deviations of the initial weights, as in GPT-2: 0.02, and 0.02 / sqrt(2 L) where a branch joins the residual stream.
inline Init init_weight() { return Init::normal(0.02); }
inline Init init_residual(const ModelConfig& c) { return Init::normal(0.02 / std::sqrt(2.0 * c.L)); }
