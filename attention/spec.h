// What an attention variant declares beyond what every part does (model/part.h), and what it is handed.
// No other file names a variant.
#pragma once
#include "attention/sdpa.h"
#include "attention/sdpa_decode.h"
#include "model/part.h"

// What decoding keeps of every token in every layer: `heads` vectors of `width`. In memory (sequences, heads, capacity, width).
struct CacheSpec {
    std::string name;
    int heads, width;
};

struct AttentionSpec : PartSpec {
    std::vector<CacheSpec> cache;                           // what a decoder holds per token, one set per layer
    std::vector<BufferSpec> decode;                         // of the tokens being decoded, one set for all layers
    int d_v_decode = 0;                                     // per query head in sdpa_decode, where absorption makes it wider than d_v
    std::string cache_note;                                 // what a user should know about the cache; "" for nothing
    int d_qk, d_v;                                          // per query head, for the attention products' FLOPs
    int rope_width;                                         // of the rotation; 0: this variant does not rotate
};

// Elements that decoding keeps per token and layer.
inline size_t cache_elements(const AttentionSpec& s) {
    size_t n = 0;
    for (const CacheSpec& c : s.cache) n += size_t(c.heads) * size_t(c.width);
    return n;
}

// One layer's pointers, handed to the variant.
struct AttentionLayer : Part {
    const floatM* rope;                                     // (T, rope_width / 2, 2), null when rope_width is 0
    PositionBias bias;
    floatM *dp, *da;                                        // power's gradients (NH), else null
};

// One layer's pointers for decoding. x and out have batch.rows rows; cache and decode follow their tables.
struct DecodeLayer {
    const ModelConfig& c;
    const DecodeBatch& batch;
    const floatX* const* w;
    floatX* const* cache;
    void* const* scratch;
    floatM* partial;                                        // for sdpa_decode
    const floatM* rope;                                     // as in AttentionLayer, for every position of the cache
    PositionBias bias;

    size_t rows() const { return size_t(batch.rows); }
    floatX* row(int i) const { return static_cast<floatX*>(scratch[i]); }
    floatM* row_master(int i) const { return static_cast<floatM*>(scratch[i]); }
};
