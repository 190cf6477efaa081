// Attention of decoding: new tokens against cached keys and values, in fixed pieces of the keys [flash-decoding, Dao et al. 2023].
//   S_j = scale (R_j q . k_j + r . shared_j) + bias(i - j),  j = 0 .. i       O = softmax(S) V       i: the new token's position
// One call serves a chunk of a prompt and a single token, and sequences of different lengths: row r of the batch is token
// position[r] of sequence sequence[r]; its own key and value are already in the cache (cache_append).
//   k, v     (sequences, NKV, capacity, d_k | d_v); query head h reads head floor(h * NKV / NH). May be the same tensor.
//   shared   (sequences, capacity, d_shared): one more key that all heads share, with queries of its own: MLA's k^R, QV-Ka's G
//   k_rope   not null: the cached keys are not rotated yet; each is rotated while it is read (QV's K = R(V): only V is kept)
// The keys are always cut at multiples of DECODE_SPLIT, whatever else is in the batch. Each piece leaves its maximum, its
// sum and its output in `partial`, and the pieces are combined in order. So a row's bits depend on its own sequence only.
// Bound: reading the cache. On a GPU the pieces give one sequence's heads enough blocks to fill it.
#pragma once
#include "attention/sdpa.h"

inline constexpr int DECODE_SPLIT = 256;

struct DecodeBatch {
    int rows;
    int capacity;                            // positions that a sequence's cache has
    int longest;                             // largest position + 1
    const int *sequence, *position;          // (rows), device
    floatM* weights = nullptr;               // not null: receives softmax(S), (rows, NH, capacity), for attention maps
};
struct DecodeShape {
    int NH, NKV, d_k, d_v, d_shared;
    size_t q_row, q_head;                    // strides of q between rows and heads
    size_t shared_row, shared_head;          // of the queries of the shared key
    double scale;
};

inline size_t decode_partial_size(int rows, int capacity, int NH, int d_v) {
    return size_t(rows) * NH * ceil_div(size_t(capacity), size_t(DECODE_SPLIT)) * size_t(d_v + 2);
}

// o (rows, NH, d_v) =.  partial: decode_partial_size(...) floatM.
void sdpa_decode(floatX* o, floatM* partial, const floatX* q, const floatX* q_shared, const floatX* k, const floatX* v,
                 const floatX* shared, const floatM* k_rope, const PositionBias& bias, const DecodeShape& s,
                 const DecodeBatch& batch);

// cache (sequences, heads, capacity, width), at each row's sequence and position = the row's `heads` vectors, which begin at
// from + row * from_row and lie side by side.
void cache_append(floatX* cache, const floatX* from, size_t from_row, int heads, int width, const DecodeBatch& batch);
