// A part of the model (an attention variant, a norm, an MLP) declares what it holds in plain tables and is handed its
// pointers in the same order. From the tables follow allocation, initialisation, checkpoints, optimizer groups, gradient
// checks, FLOPs and the printed counts.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "runtime/device/types.h"
#include "runtime/run/config.h"

struct Init {
    enum Kind { normal_, uniform_, constant_ } kind;
    double a, b;                                            // normal: std; uniform: low, high; constant: value
    static Init normal(double std) { return {normal_, std, 0}; }
    static Init uniform(double low, double high) { return {uniform_, low, high}; }
    static Init constant(double value) { return {constant_, value, 0}; }
};
// Standard deviations of the initial weights, as in GPT-2: 0.02, and 0.02 / sqrt(2 L) where a branch joins the residual stream.
inline Init init_weight() { return Init::normal(0.02); }
inline Init init_residual(const ModelConfig& c) { return Init::normal(0.02 / std::sqrt(2.0 * c.L)); }

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
    int recompute = 0;                                      // saved only below this --recompute; else one for all layers, computed again
};                                                          //   in the backward; 0: always saved

struct PartSpec {
    std::vector<ParamSpec> params;                          // the part's enum indexes them
    std::vector<BufferSpec> saved;                          // forward -> backward, one set per layer
    std::vector<BufferSpec> scratch;                        // gradients inside backward, one set for all layers
    size_t macs_per_token = 0;                              // multiply-adds of the matrix products, per layer
};

// One layer's pointers, handed to the part's functions. w and dw follow `params`; saved and scratch follow their tables.
struct Part {
    const ModelConfig& c;
    int B, T;
    const floatX* const* w;
    floatM* const* dw;
    void* const* saved;
    void* const* scratch;
    bool accumulate;                                        // weight gradients: += instead of = (micro-batches after the first)
    int recompute = 0;                                      // the level of --recompute

    size_t rows() const { return size_t(B) * T; }
    floatX* save(int i) const { return static_cast<floatX*>(saved[i]); }
    floatM* save_master(int i) const { return static_cast<floatM*>(saved[i]); }
    floatX* grad(int i) const { return static_cast<floatX*>(scratch[i]); }
};

// Whether a call writes dx (=) or adds to it (+=).
enum class Write { set, add };
