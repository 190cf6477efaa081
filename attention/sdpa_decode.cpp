// Attention of decoding on the CPU. See sdpa_decode.h.
// One task: neighbouring rows of one sequence, one key/value head with all its query heads, one piece of the keys. It reads its
// piece of K and V once, in order. Tasks run in parallel; a row's sums do not depend on the tasks' borders (layers/dot_rows.h).
#include "attention/sdpa_decode.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "layers/cpu_math.h"
#include "layers/dot_rows.h"

using namespace decoding;

namespace {
constexpr int MAX_QUERIES = 48;                              // of a task: rows times query heads, so that its scores stay in L2

struct RowTile { int first, rows; };                         // rows first .. of one sequence

std::vector<RowTile> row_tiles(const DecodeBatch& batch, int group) {
    const int most = std::max(1, MAX_QUERIES / group);
    std::vector<RowTile> tiles;
    for (int r = 0; r < batch.rows; r++) {
        bool next = !tiles.empty() && tiles.back().rows < most && batch.sequence[r] == batch.sequence[r - 1];
        if (next) tiles.back().rows++;
        else tiles.push_back({r, 1});
    }
    return tiles;
}

struct Scratch {                                             // one per thread, grows to the largest task and is kept
    std::vector<floatM> memory;
    size_t used = 0;
    void reserve(size_t n) { used = 0; if (memory.size() < n) memory.resize(n); }
    floatM* take(size_t n) { floatM* p = memory.data() + used; used += round_up(n, 16); return p; }
};
thread_local Scratch scratch;

// The bias of one head at n distances from `least` on, stored backwards: the keys of a row lie in the order of falling distance.
void reversed_bias(floatM* reversed, const PositionBias& b, int h, int least, int n) {
    for (int i = 0; i < n; i++) {
        const floatM distance = floatM(least + n - 1 - i);
        if (b.kind == BiasKind::alibi) reversed[i] = -b.slope[h] * distance;
        else reversed[i] = -floatM(b.p[h]) * std::log(1 + floatM(b.a[h]) * distance);
    }
}

void rotate_keys(floatM* out, const floatX* k, const floatM* table, int first, int n, int d) {
    const int half = d / 2;
    for (int j = 0; j < n; j++) {
        const floatX* from = k + size_t(j) * d;
        const floatM* angles = table + size_t(first + j) * d;
        floatM* to = out + size_t(j) * d;
#pragma omp simd
        for (int i = 0; i < half; i++) {
            floatM c = angles[2 * i], s = angles[2 * i + 1], x = floatM(from[i]), y = floatM(from[i + half]);
            to[i] = x * c - y * s;
            to[i + half] = x * s + y * c;
        }
    }
}

// One row's scores become weights: p = exp(s - top) over its n keys, 0 up to `keys`. Returns top and the sum.
struct Softmax { floatM top, sum; };
Softmax softmax_row(floatM* row, int n, int keys) {
    floatM top = row[0];
#pragma omp simd reduction(max : top)
    for (int j = 0; j < n; j++) top = row[j] > top ? row[j] : top;
    const floatM sum = sum_of(n, [=](int j) { return row[j] = fast_exp(row[j] - top); });
    std::fill(row + n, row + keys, floatM(0));
    return {top, sum};
}
}  // namespace

void sdpa_decode(floatX* o, floatM* partial, const floatX* q, const floatX* q_shared, const floatX* k, const floatX* v,
                 const floatX* shared, const floatM* k_rope, const PositionBias& bias, const DecodeShape& s,
                 const DecodeBatch& batch) {
    const int group = s.NH / s.NKV, splits = int(ceil_div(size_t(batch.longest), size_t(DECODE_SPLIT)));
    const size_t piece = size_t(s.d_v) + 2;                  // of `partial`: maximum, sum, output
    const std::vector<RowTile> tiles = row_tiles(batch, group);
    auto partial_of = [&](int row, int h, int split) { return partial + ((size_t(row) * s.NH + h) * splits + split) * piece; };
    const int tasks = int(tiles.size()) * s.NKV * splits;
#pragma omp parallel for schedule(dynamic, 1)
    for (int task = 0; task < tasks; task++) {
        const RowTile tile = tiles[size_t(task / splits / s.NKV)];
        const int kv = task / splits % s.NKV, split = task % splits, j0 = split * DECODE_SPLIT;
        const int sequence = batch.sequence[tile.first], queries = tile.rows * group, d_all = s.d_k + s.d_shared;
        const auto [lowest, highest] = std::minmax_element(batch.position + tile.first, batch.position + tile.first + tile.rows);
        const int last = *highest, distances = last - *lowest + DECODE_SPLIT;
        const int keys = std::min(DECODE_SPLIT, last + 1 - j0);
        if (keys <= 0) continue;
        scratch.reserve(size_t(queries) * (d_all + DECODE_SPLIT + s.d_v) + size_t(distances) +
                        (k_rope ? size_t(DECODE_SPLIT) * s.d_k : 0) + 80);
        floatM *bias_h = scratch.take(size_t(distances)), *q_c = scratch.take(size_t(queries) * d_all),
               *scores = scratch.take(size_t(queries) * DECODE_SPLIT), *out = scratch.take(size_t(queries) * s.d_v);
        for (int r = 0; r < tile.rows; r++)
            for (int g = 0; g < group; g++) {
                const size_t row = size_t(tile.first + r), h = size_t(kv) * group + g;
                floatM* to = q_c + (size_t(r) * group + g) * d_all;
                for (int c = 0; c < s.d_k; c++) to[c] = floatM(q[row * s.q_row + h * s.q_head + c]) * floatM(s.scale);
                for (int c = 0; c < s.d_shared; c++)
                    to[s.d_k + c] = floatM(q_shared[row * s.shared_row + h * s.shared_head + c]) * floatM(s.scale);
            }
        const size_t head = (size_t(sequence) * s.NKV + kv) * batch.capacity + j0;
        if (k_rope) {
            floatM* rotated = scratch.take(size_t(DECODE_SPLIT) * s.d_k);
            rotate_keys(rotated, k + head * s.d_k, k_rope, j0, keys, s.d_k);
            dot_rows(scores, DECODE_SPLIT, q_c, d_all, rotated, s.d_k, queries, keys, s.d_k);
        } else {
            dot_rows(scores, DECODE_SPLIT, q_c, d_all, k + head * s.d_k, s.d_k, queries, keys, s.d_k);
        }
        if (s.d_shared > 0)
            dot_rows(scores, DECODE_SPLIT, q_c + s.d_k, d_all,
                     shared + (size_t(sequence) * batch.capacity + j0) * s.d_shared, s.d_shared, queries, keys,
                     s.d_shared, true);
        for (int g = 0; g < group; g++) {
            const int h = kv * group + g, furthest = last - j0, nearest = std::max(0, *lowest - (j0 + keys - 1));
            if (bias.kind != BiasKind::none) reversed_bias(bias_h, bias, h, nearest, furthest - nearest + 1);
            for (int r = 0; r < tile.rows; r++) {
                const int row = tile.first + r, position = batch.position[row], n = std::min(keys, position + 1 - j0);
                floatM* weights = scores + (size_t(r) * group + g) * DECODE_SPLIT;
                if (n <= 0) {                                // the row has no keys in this piece: it adds nothing to the product below
                    std::fill(weights, weights + keys, floatM(0));
                    continue;
                }
                if (bias.kind != BiasKind::none) {
                    const floatM* at = bias_h + (last - position);
#pragma omp simd
                    for (int j = 0; j < n; j++) weights[j] += at[j];
                }
                Softmax softmax = softmax_row(weights, n, keys);
                floatM* to = partial_of(row, h, split);
                to[0] = softmax.top;
                to[1] = softmax.sum;
                if (batch.weights) std::copy(weights, weights + n, batch.weights + (size_t(row) * s.NH + h) * batch.capacity + j0);
            }
        }
        mix_rows(out, s.d_v, scores, DECODE_SPLIT, v + head * s.d_v, s.d_v, queries, s.d_v, keys);
        for (int i = 0; i < queries; i++) {
            const int row = tile.first + i / group;
            if (batch.position[row] >= j0)
                std::copy(out + size_t(i) * s.d_v, out + size_t(i + 1) * s.d_v,
                          partial_of(row, kv * group + i % group, split) + 2);
        }
    }
#pragma omp parallel for collapse(2) schedule(static)
    for (int row = 0; row < batch.rows; row++)
        for (int h = 0; h < s.NH; h++) {
            const int pieces = batch.position[row] / DECODE_SPLIT + 1;
            floatM top = partial_of(row, h, 0)[0], sum = 0;
            for (int i = 1; i < pieces; i++) top = std::max(top, partial_of(row, h, i)[0]);
            floatX* to = o + (size_t(row) * s.NH + h) * s.d_v;
            std::vector<floatM>& mixed = scratch.memory;
            if (mixed.size() < size_t(s.d_v)) mixed.resize(size_t(s.d_v));
            std::fill(mixed.begin(), mixed.begin() + s.d_v, floatM(0));
            for (int i = 0; i < pieces; i++) {
                const floatM *from = partial_of(row, h, i), weight = fast_exp(from[0] - top);
                sum += weight * from[1];
                for (int c = 0; c < s.d_v; c++) mixed[size_t(c)] += weight * from[2 + c];
            }
            for (int c = 0; c < s.d_v; c++) store(to[c], mixed[size_t(c)] / sum);
            if (!batch.weights) continue;
            floatM* weights = batch.weights + (size_t(row) * s.NH + h) * batch.capacity;
            for (int j = 0; j <= batch.position[row]; j++) weights[j] *= fast_exp(partial_of(row, h, j / DECODE_SPLIT)[0] - top) / sum;
            std::fill(weights + batch.position[row] + 1, weights + batch.capacity, floatM(0));
        }
}

void cache_append(floatX* cache, const floatX* from, size_t from_row, int heads, int width, const DecodeBatch& batch) {
    for (int r = 0; r < batch.rows; r++)
        for (int h = 0; h < heads; h++) {
            const floatX* vector = from + size_t(r) * from_row + size_t(h) * width;
            size_t slot = (size_t(batch.sequence[r]) * heads + h) * batch.capacity + batch.position[r];
            std::copy(vector, vector + width, cache + slot * width);
        }
}
