// Causal attention forward on tensor cores: FlashAttention-2 [Dao 2023, arXiv:2307.08691, alg. 1] with mma.sync.
//   S = scale Q K^T + bias      m = running row maximum      P = exp2(S - m)      O = sum P V / sum P      lse = m + ln sum P
// Grid (tiles of 128 queries, NH, B), the longest rows first; tiles of one head run side by side and share K and V in the L2 cache.
// Block: 4 warps of 32 query rows each. A warp keeps its rows' O, maximum and sum in registers and walks over the keys in tiles of
// BK, which cp.async brings into one of two stages while the other is in use: one barrier per tile. 16-row warps would read every
// K and V fragment from shared memory for half as many products.
// FLOPs: 2 (d_qk + d_v) per pair, T^2 / 2 pairs per head. Bytes: Q and O once, K and V once per tile of queries, from L2.
// Bound expected: tensor cores at d = 128; at d = 64 and below, exp2 (one per pair; 16 a cycle per SM). Not yet measured on a GPU.
// K_IS_V (the variants without W_K): one tile is key and value, half the shared memory and half the reads.
// o_rope: null, or O is rotated back before it is stored (sdpa.h).
// Not for head sizes outside the list in sdpa.cu; those go to sdpa_simt.cuh.
#pragma once
#include "attention/sdpa_tile.cuh"

template <int DQK, int DV, bool K_IS_V> struct ForwardTile {
    static constexpr int M = 2, BQ = SDPA_WARPS * 16 * M;                // a warp owns M x 16 query rows
    static constexpr int BK = DQK >= 128 ? 32 : 64;               // keys per stage: 255 registers at 128; 99 KiB (sm_120) at 192
    static constexpr bool Q_IN_REGISTERS = DQK <= 64;                    // above, O and S need the registers
    static constexpr bool KEEP = DQK < 128;                              // addresses in registers; above, computed again in every tile
    static constexpr int STAGE = BK * (K_IS_V ? DQK : DQK + DV);         // elements
    static constexpr size_t SMEM = sizeof(bf16) * (BQ * DQK + 2 * STAGE) + sizeof(float) * 2 * (BQ + BK);
};

// Online softmax [Milakov & Gimelshein 2018] over a tile: score becomes P = exp2(factor score - maximum) with the maximum so far; what was
// summed with the old maximum shrinks. Rows g and g + 8 of each 16; a row's other columns are in lanes 4 g .. 4 g + 3.
// The first tile holds key 0, which every row sees: the maximum is finite from then on.
template <int M, int N, int OUT>
__device__ __forceinline__ void online_softmax(float (&score)[M][N][4], float (&out)[M][OUT][4], float (&row_max)[M][2],
                                               float (&row_sum)[M][2], float factor) {
    each<M, 2>([&](int m, int half) {
        float top = -INFINITY;
        each<N>([&](int n) { top = fmaxf(top, fmaxf(score[m][n][2 * half], score[m][n][2 * half + 1])); });
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
        top = fmaxf(row_max[m][half], factor * fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2)));
        const float shrink = exp2f(row_max[m][half] - top);
        row_max[m][half] = top;
        row_sum[m][half] *= shrink;
        each<OUT, 2>([&](int n, int i) { out[m][n][2 * half + i] *= shrink; });
    });
    each<M, N, 4>([&](int m, int n, int i) { row_sum[m][i / 2] += score[m][n][i] = exp2f(score[m][n][i] * factor - row_max[m][i / 2]); });
}

template <int DQK, int DV, bool K_IS_V>
__global__ void __launch_bounds__(SDPA_THREADS) sdpa_forward_kernel(bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v,
                                                                    PositionBias position_bias, SdpaShape s, float scale,
                                                                    const float* o_rope) {
    using Tile = ForwardTile<DQK, DV, K_IS_V>;
    constexpr int M = Tile::M, BQ = Tile::BQ, BK = Tile::BK, N = BK / 8, STAGE = Tile::STAGE, STAGE_BYTES = STAGE * 2;
    bf16 *q_tile = reinterpret_cast<bf16*>(dyn_smem), *stages = q_tile + BQ * DQK;
    float* terms = reinterpret_cast<float*>(stages + 2 * STAGE);         // the bias by distance, two stages of BQ + BK
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int q0 = int(gridDim.x - 1 - blockIdx.x) * BQ, h = blockIdx.y, b = blockIdx.z, kv = h / (s.NH / s.NKV), T = s.T;
    const int row0 = q0 + warp * 16 * M;                                 // the warp's first query
    q += size_t(b) * T * s.q_row + size_t(h) * DQK;
    k += size_t(b) * T * s.k_row + size_t(kv) * DQK;
    v += size_t(b) * T * s.v_row + size_t(kv) * DV;

    const bool biased = position_bias.kind != BiasKind::none;
    load_tile<BQ, DQK>(q_tile, q, q0, T, s.q_row);
    TileCopy<BK, DQK> k_copy(stages, k, 0, s.k_row);
    TileCopy<BK, DV> v_copy(stages + BK * DQK, v, 0, s.v_row);
    auto load_stage = [&](int tile) {                                    // called for 0, 1, 2, ...
        if constexpr (Tile::KEEP || K_IS_V) {
            k_copy.start(tile % 2 * STAGE_BYTES, T, s.k_row);
            k_copy.go_down(s.k_row);
            if constexpr (!K_IS_V) {
                v_copy.start(tile % 2 * STAGE_BYTES, T, s.v_row);
                v_copy.go_down(s.v_row);
            }
        } else {                                                         // no register left for the pointers
            bf16* stage = stages + tile % 2 * STAGE;
            load_tile<BK, DQK>(stage, k, tile * BK, T, s.k_row);
            if constexpr (!K_IS_V) load_tile<BK, DV>(stage + BK * DQK, v, tile * BK, T, s.v_row);
        }
        cp_async_commit();
        if (!biased) return;
        const HeadBias bias = head_bias(position_bias, h);
        for (int i = threadIdx.x; i < BQ + BK; i += SDPA_THREADS)
            terms[tile % 2 * (BQ + BK) + i] = bias.coefficient * bias_term(bias, q0 - tile * BK + i - (BK - 1));
    };
    load_stage(0);
    const SharedAddress q_row = lane_row<DQK>(q_tile + warp * 16 * M * DQK, lane);
    SharedAddress first_k_row = lane_row_b<DQK>(stages, lane), first_v_row = lane_row<DV>(K_IS_V ? stages : stages + BK * DQK, lane);
    if constexpr (Tile::KEEP) keep(first_k_row), keep(first_v_row);

    uint32_t q_part[Tile::Q_IN_REGISTERS ? DQK / 16 : 1][M][4];
    float out[M][DV / 8][4] = {}, row_max[M][2], row_sum[M][2] = {};     // rows g and g + 8 of each 16
    each<M, 2>([&](int m, int half) { row_max[m][half] = -INFINITY; });
    // Scores stay unscaled (the scale joins exp2's multiply-add), unless a bias must be added to them: score = factor * S either way.
    const float scale_log2 = scale * LOG2_E, factor = biased ? 1.0f : scale_log2;
    const int tiles = (min(q0 + BQ, T) + BK - 1) / BK;

    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();                                                 // this stage is there; everyone is done with the other
        if (tile + 1 < tiles) load_stage(tile + 1);
        const SharedAddress k_row = first_k_row + tile % 2 * STAGE_BYTES, v_row = first_v_row + tile % 2 * STAGE_BYTES;
        const int k0 = tile * BK;
        if constexpr (Tile::Q_IN_REGISTERS)
            if (tile == 0) each<DQK / 16, M>([&](int d, int m) { load_a<DQK>(q_part[d][m], q_row, m * 16, d * 16); });
        if (k0 > row0 + 16 * M - 1 || row0 >= T) continue;               // wholly above the diagonal, or past the end, for this warp

        float score[M][N][4] = {};
        if constexpr (Tile::Q_IN_REGISTERS)
            each<DQK / 16, N / 2>([&](int d, int n) {
                uint32_t part[4];
                load_b<DQK>(part, k_row, n * 16, d * 16);
                multiply(score, 2 * n, q_part[d], part);
            });
        else score_product<DQK>(score, q_row, k_row);
        const int distance = row0 + g - (k0 + 2 * t);                    // i - j of this lane's first element
        if (biased) add_bias<Rows::queries>(score, scale_log2, terms + tile % 2 * (BQ + BK) + distance - (q0 - k0) + BK - 1);
        if (k0 + BK - 1 > row0) mask_diagonal<Rows::queries>(score, distance);
        online_softmax(score, out, row_max, row_sum, factor);
        accumulate_rows<DV>(out, score, v_row);
    }

    each<M, 2>([&](int m, int half) {
        float sum = row_sum[m][half];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        const int row = row0 + m * 16 + half * 8 + g;
        if (t == 0 && row < T) lse[(size_t(b) * s.NH + h) * T + row] = row_max[m][half] * LN_2 + logf(sum);
        const float inverse = 1.0f / sum;
        each<DV / 8, 2>([&](int n, int i) { out[m][n][2 * half + i] *= inverse; });
    });
    rotate_rows_back<DV>(out, o_rope, row0, T, lane);
    if (row0 < T)
        store_rows<DV, M>(o + size_t(b) * T * s.o_row + size_t(h) * DV, row0, T, s.o_row, q_tile + warp * 16 * M * DQK, out, lane);
}
