// What an attention variant tells the model about itself beyond what every part does (model/part.h), and what it is handed.
// No other file names a variant.
#pragma once
#include "attention/sdpa.h"
#include "model/part.h"

struct AttentionSpec : PartSpec {
    int d_qk, d_v;                                          // per query head, for the attention products' FLOPs
    int rope_width;                                         // of the rotation; 0: this variant does not rotate
    size_t cache_elements;                                  // that decoding must keep per token and layer
};

// One layer's pointers, handed to the variant.
struct AttentionLayer : Part {
    const floatM* rope;                                     // (T, rope_width / 2, 2), null when rope_width is 0
    PositionBias bias;
    floatM *dp, *da;                                        // power's gradients (NH), else null
};
