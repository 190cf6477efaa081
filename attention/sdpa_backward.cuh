// Causal attention backward on tensor cores [Dao 2023, arXiv:2307.08691, alg. 2], in two kernels, each with its results in
// registers and a fixed order of sums, so that there are no atomics and equal inputs give equal bits:
//   sdpa_backward_kv_kernel   a block owns a tile of keys, walks over the queries:   dV += P^T dO      dK += (scale dS)^T Q
//   sdpa_backward_q_kernel    a block owns a tile of queries, walks over the keys:   dQ += (scale dS) K, and the bias's gradients
// with P = exp2(S - lse), scale dS = P * (scale dO V^T - scale D), lse and D from sdpa_delta_kernel (sdpa_common.cuh).
// S and dP are computed in both: 7 products where one kernel with an unordered (atomic) dQ needs 5.
// The owner's rows are the rows of the score tile (the first kernel computes S^T = K Q^T), so P and dS leave one product in the
// layout in which the next one takes its left operand and never pass through shared memory.
// K_IS_V: one tile, one accumulator, dV += P^T dO + (scale dS)^T Q; scale is folded into dS before the rounding to bf16.
// FLOPs per (query, key) pair: kv kernel 4 (d_qk + d_v), q kernel 4 d_qk + 2 d_v. Bytes: as the forward, from L2, twice.
// Bound: tensor cores; where a warp owns only 16 rows (M = 1), shared memory: one fragment read for every two products.
// Shared memory is read without bank conflicts; two blocks of 128 threads fit an SM (up to 255 registers a thread, 99 KiB).
// Not for head sizes outside the list in sdpa.cu; those go to sdpa_simt.cuh.
#pragma once
#include "attention/sdpa_tile.cuh"

// Registers decide: a warp owns M x 16 rows, whose sums take M * (row length) / 2 registers a thread, and works on COLUMNS of the
// streamed tile at a time, M * COLUMNS / 2 registers for each of S and dP. BQ, BK: tile sides; shared memory stays under 99 KiB (sm_120).
template <int DQK, int DV, bool K_IS_V> struct BackwardKvTile {
    static constexpr int SUMS = K_IS_V ? DQK : DQK + DV;
    static constexpr int M = SUMS <= 128 ? 2 : 1, BK = SDPA_WARPS * 16 * M;
    static constexpr int BQ = DQK > 128 ? 32 : 64, COLUMNS = K_IS_V && DQK == 128 ? 16 : M == 2 || DQK > 128 ? 32 : 64;
    static constexpr bool HELD = K_IS_V && DQK <= 64;                    // the warp's keys in registers
    static constexpr int OWN = BK * SUMS, STAGE = BQ * (DQK + DV), TERMS = BQ + BK;       // elements, elements, floats
    static constexpr size_t SMEM = sizeof(bf16) * (OWN + 2 * STAGE) + 2 * sizeof(float2) * BQ + 2 * sizeof(float) * TERMS;
};
template <int DQK, int DV, bool K_IS_V> struct BackwardQTile {
    static constexpr int M = DQK <= 128 ? 2 : 1, BQ = SDPA_WARPS * 16 * M;
    static constexpr int BK = DQK > 64 ? 32 : 64, COLUMNS = 32;
    static constexpr bool HELD = DQK <= 64;                              // the warp's Q and dO in registers: no shared memory for them
    static constexpr int OWN = BQ * (DQK + DV), STAGE = BK * (K_IS_V ? DQK : DQK + DV), TERMS = BQ + BK;
    static constexpr size_t SMEM = sizeof(bf16) * (OWN + 2 * STAGE) + 4 * sizeof(float) * TERMS;
};

// On sm_120 ptxas needs a few registers more than there are for two of the kernels that follow: they take fewer columns at a time there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
template <int DQK, bool K_IS_V> inline constexpr bool FEWER_COLUMNS = DQK == 192 || (DQK == 64 && !K_IS_V);
#else
template <int DQK, bool K_IS_V> inline constexpr bool FEWER_COLUMNS = false;
#endif

// A warp's own rows as left operands: all of them held in registers (HELD), or read from shared memory at each use.
template <int D, int M, bool HELD> struct OwnRows {
    SharedAddress row;
    uint32_t held[HELD ? D / 16 : 1][M][4];

    __device__ __forceinline__ OwnRows(const bf16* tile, int lane) : row(lane_row<D>(tile, lane)) {}
    __device__ __forceinline__ void read() {                             // once the tile is there
        if constexpr (HELD) each<D / 16, M>([&](int d, int m) { load_a<D>(held[d][m], row, m * 16, d * 16); });
    }
    __device__ __forceinline__ void part(uint32_t (&a)[M][4], int d) const {
        if constexpr (HELD) each<M, 4>([&](int m, int i) { a[m][i] = held[d][m][i]; });
        else each<M>([&](int m) { load_a<D>(a[m], row, m * 16, d * 16); });
    }
};

// s += A1 B1^T over D1 columns and dp += A2 B2^T over D2, A the warp's rows, B rows of the streamed tiles (lane_row_b).
// Where K and V are one tile, its fragments are read once for both (A1 = A2: SAME_A, B1 = B2: SAME_B).
template <bool SAME_A, bool SAME_B, int D1, int D2, bool HELD1, bool HELD2, int M, int N>
__device__ __forceinline__ void score_products(float (&s)[M][N][4], float (&dp)[M][N][4], const OwnRows<D1, M, HELD1>& a1,
                                               const OwnRows<D2, M, HELD2>& a2, SharedAddress b1, SharedAddress b2) {
    constexpr bool TOGETHER = SAME_A || SAME_B;
    uint32_t a_s[M][4], a_dp[M][4], b[4];
    each<D1 / 16>([&](int d) {
        a1.part(a_s, d);
        if constexpr (TOGETHER && !SAME_A) a2.part(a_dp, d);
        each<N / 2>([&](int n) {
            load_b<D1>(b, b1, n * 16, d * 16);
            multiply(s, 2 * n, a_s, b);
            if constexpr (!TOGETHER) return;
            if constexpr (!SAME_B) load_b<D2>(b, b2, n * 16, d * 16);
            multiply(dp, 2 * n, SAME_A ? a_s : a_dp, b);
        });
    });
    if constexpr (!TOGETHER)
        each<D2 / 16>([&](int d) {
            a2.part(a_dp, d);
            each<N / 2>([&](int n) {
                load_b<D2>(b, b2, n * 16, d * 16);
                multiply(dp, 2 * n, a_dp, b);
            });
        });
}

// dk, dv =. Grid (tiles of BK keys, NKV, B), the longest columns first; a block walks over all query heads of its group, so that
// their sum needs no second pass (and MQA has only B * T / BK blocks: give it long sequences or large batches).
template <int DQK, int DV, bool K_IS_V>
__global__ void __launch_bounds__(SDPA_THREADS)
    sdpa_backward_kv_kernel(bf16* dk, bf16* dv, const bf16* dout, const float2* stats, const bf16* q, const bf16* k,
                            const bf16* v, PositionBias position_bias, SdpaShape s, int T_pad, float scale,
                            const float* rope) {
    using Tile = BackwardKvTile<DQK, DV, K_IS_V>;
    constexpr int M = Tile::M, BK = Tile::BK, BQ = Tile::BQ, COLUMNS = FEWER_COLUMNS<DQK, K_IS_V> ? 16 : Tile::COLUMNS, N = COLUMNS / 8;
    constexpr int STAGE = Tile::STAGE, TERMS = Tile::TERMS;
    bf16 *k_tile = reinterpret_cast<bf16*>(dyn_smem), *v_tile = K_IS_V ? k_tile : k_tile + BK * DQK, *stages = k_tile + Tile::OWN;
    float2* stat_stages = reinterpret_cast<float2*>(stages + 2 * STAGE);
    float* terms = reinterpret_cast<float*>(stat_stages + 2 * BQ);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, T = s.T;
    const int k0 = blockIdx.x * BK, kv = blockIdx.y, b = blockIdx.z, row0 = k0 + warp * 16 * M;      // row0: the warp's first key
    const int group = s.NH / s.NKV, first_q0 = k0 / BQ * BQ;             // the first tile of queries that sees these keys
    k += size_t(b) * T * s.k_row + size_t(kv) * DQK;
    v += size_t(b) * T * s.v_row + size_t(kv) * DV;
    q += size_t(b) * T * s.q_row;
    dout += size_t(b) * T * s.o_row;

    auto load_stage = [&](int stage, int h, int q0) {
        load_tile<BQ, DQK>(stages + stage * STAGE, q + size_t(h) * DQK, q0, T, s.q_row);
        load_tile<BQ, DV>(stages + stage * STAGE + BQ * DQK, dout + size_t(h) * DV, q0, T, s.o_row);
        if (threadIdx.x < BQ / 2)
            cp_async16(stat_stages + stage * BQ + 2 * threadIdx.x, stats + (size_t(b) * s.NH + h) * T_pad + q0 + 2 * threadIdx.x, true);
        cp_async_commit();
        if (position_bias.kind != BiasKind::none) {
            const HeadBias bias = head_bias(position_bias, h);
            for (int i = threadIdx.x; i < TERMS; i += SDPA_THREADS)
                terms[stage * TERMS + i] = bias.coefficient * bias_term(bias, q0 - k0 + i - (BK - 1));
        }
    };
    load_tile<BK, DQK>(k_tile, k, k0, T, s.k_row);
    if constexpr (!K_IS_V) load_tile<BK, DV>(v_tile, v, k0, T, s.v_row);
    load_stage(0, kv * group, first_q0);

    OwnRows<DQK, M, Tile::HELD> own_k(k_tile + warp * 16 * M * DQK, lane);
    OwnRows<DV, M, false> own_v(v_tile + warp * 16 * M * DV, lane);
    SharedAddress first_q = lane_row<DQK>(stages, lane), first_q_b = lane_row_b<DQK>(stages, lane);
    SharedAddress first_do = lane_row<DV>(stages + BQ * DQK, lane), first_do_b = lane_row_b<DV>(stages + BQ * DQK, lane);
    if constexpr (DQK != 128) keep(first_q), keep(first_q_b);         // else computed again in every tile: registers are short
    if constexpr (DQK == DV) {                                           // the same, a constant further
        first_do = first_q + BQ * DQK * 2;
        first_do_b = first_q_b + BQ * DQK * 2;
    }
    float dk_sum[M][DQK / 8][4] = {}, dv_only[M][K_IS_V ? 1 : DV / 8][4] = {};
    const bool biased = position_bias.kind != BiasKind::none;
    const float scale_log2 = scale * LOG2_E, factor = biased ? 1.0f : scale_log2;
    const int end_h = (kv + 1) * group;
    int h = kv * group, q0 = first_q0;                                   // of the tile that is loaded last
    bool first = true;
    for (int stage = 0; h < end_h; stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();
        const int distance0 = q0 + 2 * t - (row0 + g);                   // i - j of this lane's first element
        const int seen = min(T - q0, BQ);                                // queries in this tile
        q0 += BQ;
        if (q0 >= T) q0 = first_q0, h++;
        if (h < end_h) load_stage(stage ^ 1, h, q0);
        if (first) own_k.read();
        first = false;
#pragma unroll 1
        for (int c0 = 0; c0 < BQ; c0 += COLUMNS) {
            const int distance = distance0 + c0;
            // Nothing to see for this warp: all its keys come after the last of these queries, or no queries or keys are left.
            if (distance - 2 * t + g + COLUMNS - 1 < 0 || c0 >= seen || row0 >= T) continue;
            const int q_offset = (stage * STAGE + c0 * DQK) * 2, do_offset = (stage * STAGE + c0 * DV) * 2;
            float p[M][N][4] = {}, ds[M][N][4] = {};
            score_products<K_IS_V, false>(p, ds, own_k, own_v, first_q_b + q_offset, first_do_b + do_offset);
            if (biased) add_bias<Rows::keys>(p, scale_log2, terms + stage * TERMS + c0 + 2 * t + BK - 1 - (warp * 16 * M + g));
            if (distance - 2 * t + g < 16 * M - 1) mask_diagonal<Rows::keys>(p, distance);
            const float4* stat = reinterpret_cast<const float4*>(stat_stages + stage * BQ + c0) + t;     // two queries each
            each<N>([&](int n) {
                const float4 column = stat[n * 4];                       // {lse, D} of queries 2t and 2t + 1
                each<M, 4>([&](int m, int i) {
                    p[m][n][i] = exp2f(p[m][n][i] * factor - (i % 2 ? column.z : column.x));
                    ds[m][n][i] = p[m][n][i] * (ds[m][n][i] * scale - (i % 2 ? column.w : column.y));
                });
            });
            if constexpr (K_IS_V) accumulate_rows<DV>(dk_sum, p, first_do + do_offset);
            else accumulate_rows<DV>(dv_only, p, first_do + do_offset);
            accumulate_rows<DQK>(dk_sum, ds, first_q + q_offset);
        }
    }
    if (row0 >= T) return;
    rotate_rows_back<DQK>(dk_sum, rope, row0, T, lane);
    store_rows<DQK, M>(dk + size_t(b) * T * s.k_row + size_t(kv) * DQK, row0, T, s.k_row, k_tile + warp * 16 * M * DQK, dk_sum, lane);
    if constexpr (!K_IS_V)
        store_rows<DV, M>(dv + size_t(b) * T * s.v_row + size_t(kv) * DV, row0, T, s.v_row, v_tile + warp * 16 * M * DV, dv_only, lane);
}

// dq =, and one float2 of the bias's gradients per block in bias_partials (B, NH, tiles), for power only.
// Grid (tiles of BQ queries, NH, B), the longest rows first.
template <int DQK, int DV, bool K_IS_V>
__global__ void __launch_bounds__(SDPA_THREADS)
    sdpa_backward_q_kernel(bf16* dq, float2* bias_partials, const bf16* dout, const float2* stats, const bf16* q,
                           const bf16* k, const bf16* v, PositionBias position_bias, SdpaShape s, int T_pad,
                           float scale, const float* rope) {
    using Tile = BackwardQTile<DQK, DV, K_IS_V>;
    constexpr int M = Tile::M, BQ = Tile::BQ, BK = Tile::BK, COLUMNS = Tile::COLUMNS, N = COLUMNS / 8,
                  STAGE = Tile::STAGE, TERMS = Tile::TERMS;
    bf16 *q_tile = reinterpret_cast<bf16*>(dyn_smem), *do_tile = q_tile + BQ * DQK, *stages = q_tile + Tile::OWN;
    float* terms = reinterpret_cast<float*>(stages + 2 * STAGE);         // two stages of {the bias, the factor of da} by distance
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, T = s.T;
    const int block = int(gridDim.x - 1 - blockIdx.x), q0 = block * BQ, h = blockIdx.y, b = blockIdx.z, kv = h / (s.NH / s.NKV);
    const int row0 = q0 + warp * 16 * M;                                 // the warp's first query
    const bool biased = position_bias.kind != BiasKind::none;
    q += size_t(b) * T * s.q_row + size_t(h) * DQK;
    k += size_t(b) * T * s.k_row + size_t(kv) * DQK;
    v += size_t(b) * T * s.v_row + size_t(kv) * DV;
    dout += size_t(b) * T * s.o_row + size_t(h) * DV;
    stats += (size_t(b) * s.NH + h) * T_pad;

    TileCopy<BK, DQK> k_copy(stages, k, 0, s.k_row);
    TileCopy<BK, DV> v_copy(stages + BK * DQK, v, 0, s.v_row);
    auto load_stage = [&](int tile) {                                    // called for 0, 1, 2, ...
        k_copy.start(tile % 2 * STAGE * 2, T, s.k_row);
        k_copy.go_down(s.k_row);
        if constexpr (!K_IS_V) {
            v_copy.start(tile % 2 * STAGE * 2, T, s.v_row);
            v_copy.go_down(s.v_row);
        }
        cp_async_commit();
        if (!biased) return;
        const HeadBias bias = head_bias(position_bias, h);
        for (int i = threadIdx.x; i < TERMS; i += SDPA_THREADS) {
            int distance = q0 - tile * BK + i - (BK - 1);
            terms[tile % 2 * 2 * TERMS + i] = bias_term(bias, distance);
            terms[(tile % 2 * 2 + 1) * TERMS + i] = bias_term_a(bias, distance);
        }
    };
    load_tile<BQ, DQK>(q_tile, q, q0, T, s.q_row);
    load_tile<BQ, DV>(do_tile, dout, q0, T, s.o_row);
    load_stage(0);

    OwnRows<DQK, M, Tile::HELD> own_q(q_tile + warp * 16 * M * DQK, lane);
    OwnRows<DV, M, Tile::HELD> own_do(do_tile + warp * 16 * M * DV, lane);
    SharedAddress first_k = lane_row<DQK>(stages, lane), first_k_b = lane_row_b<DQK>(stages, lane), first_v_b = first_k_b;
    if constexpr (DQK != 128 || !K_IS_V) keep(first_k), keep(first_k_b);
    if constexpr (DQK == DV) first_v_b = K_IS_V ? first_k_b : first_k_b + BK * DQK * 2;
    else first_v_b = lane_row_b<DV>(stages + BK * DQK, lane);
    float2 row_stat[M][2];
    each<M, 2>([&](int m, int half) { row_stat[m][half] = stats[row0 + m * 16 + half * 8 + g]; });
    float dq_sum[M][DQK / 8][4] = {};
    float2 bias_sum = make_float2(0.0f, 0.0f);
    const float scale_log2 = scale * LOG2_E, factor = biased ? 1.0f : scale_log2;
    const int tiles = (min(q0 + BQ, T) + BK - 1) / BK;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) load_stage(tile + 1);
        if (tile == 0) own_q.read(), own_do.read();
#pragma unroll 1
        for (int c0 = 0; c0 < BK; c0 += COLUMNS) {
            const int k0 = tile * BK + c0;
            if (k0 > row0 + 16 * M - 1 || row0 >= T) continue;           // wholly above the diagonal, or past the end, for this warp
            const int k_offset = (tile % 2 * STAGE + c0 * DQK) * 2, v_offset = (tile % 2 * STAGE + c0 * DV) * 2;
            float p[M][N][4] = {}, ds[M][N][4] = {};
            score_products<false, K_IS_V>(p, ds, own_q, own_do, first_k_b + k_offset, first_v_b + v_offset);
            const int distance = row0 + g - (k0 + 2 * t);                // i - j of this lane's first element
            const float *term = terms + tile % 2 * 2 * TERMS + distance - (q0 - tile * BK) + BK - 1, *term_a = term + TERMS;
            // read again: registers are short
            if (biased) add_bias<Rows::queries>(p, scale_log2, term, head_bias(position_bias, h).coefficient);
            if (k0 + COLUMNS - 1 > row0) mask_diagonal<Rows::queries>(p, distance);
            each<M, N, 4>([&](int m, int n, int i) {
                ds[m][n][i] = exp2f(p[m][n][i] * factor - row_stat[m][i / 2].x) * (ds[m][n][i] * scale - row_stat[m][i / 2].y);
            });
            if (position_bias.kind == BiasKind::power)
                each<M, N, 4>([&](int m, int n, int i) {
                    bias_sum.x += ds[m][n][i] * term[distance_of<Rows::queries>(m, n, i)];
                    bias_sum.y += ds[m][n][i] * term_a[distance_of<Rows::queries>(m, n, i)];
                });
            accumulate_rows<DQK>(dq_sum, ds, first_k + k_offset);
        }
    }
    if (row0 < T) {
        rotate_rows_back<DQK>(dq_sum, rope, row0, T, lane);
        store_rows<DQK, M>(dq + size_t(b) * T * s.q_row + size_t(h) * DQK, row0, T, s.q_row, q_tile + warp * 16 * M * DQK, dq_sum, lane);
    }
    if (position_bias.kind == BiasKind::power)
        store_bias_partial(bias_partials + (size_t(b) * s.NH + h) * gridDim.x + block, bias_sum, 1.0f / scale, terms);
}
