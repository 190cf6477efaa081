// Causal attention on a GPU (and its emulation): picks the kernel. Contract and equations: sdpa.h.
//   sdpa_forward.cuh, sdpa_backward.cuh   bf16 on tensor cores, for the head sizes listed below
//   sdpa_simt.cuh                         everything else: fp32, other head sizes (up to 256), rows that are not 16-byte aligned
// Compile with nvcc's -ftz=true: then exp2f is one instruction; without it three more, and some of the kernels spill registers.
// (What it changes: weights of the softmax below 2^-126 become 0.)
// In bf16 a fall back to the plain kernels is said once on stderr; it is many times slower.
// The backward's scratch, sdpa_scratch_bytes (8 bytes per query head and position, and the bias's partial sums), is part of
// device_scratch: whoever calls with more than its smallest size reserves that first. No other kernel runs between ours.
#include "attention/sdpa.h"

#include <cmath>
#include <cstdio>

#include "attention/sdpa_simt.cuh"
#include "runtime/device/backend.h"
#include "runtime/run/error.h"
#ifdef PRECISION_bf16
#include "attention/sdpa_backward.cuh"
#include "attention/sdpa_forward.cuh"
#endif

namespace {
constexpr const char* KERNEL_SIZES = "(32,32) (64,64) (96,96) (128,128) and MLA's (48,32) (96,64) (192,128)";

#ifdef PRECISION_bf16
template <int DQK, int DV, bool K_IS_V>
struct HeadSize {
    static constexpr int d_qk = DQK, d_v = DV;
    static constexpr bool k_is_v = K_IS_V;
};
template <int D, class Run> void with_k_or_v(bool k_is_v, Run run) {
    if (k_is_v) run(HeadSize<D, D, true>());
    else run(HeadSize<D, D, false>());
}
// Calls run(HeadSize<...>()) with the sizes as constants; false where there is no kernel for them.
template <class Run> bool with_head_size(int d_qk, int d_v, bool k_is_v, Run run) {
    if (d_qk == 32 && d_v == 32) return with_k_or_v<32>(k_is_v, run), true;
    if (d_qk == 64 && d_v == 64) return with_k_or_v<64>(k_is_v, run), true;
    if (d_qk == 96 && d_v == 96) return with_k_or_v<96>(k_is_v, run), true;
    if (d_qk == 128 && d_v == 128) return with_k_or_v<128>(k_is_v, run), true;
    if (d_qk == 48 && d_v == 32) return run(HeadSize<48, 32, false>()), true;
    if (d_qk == 96 && d_v == 64) return run(HeadSize<96, 64, false>()), true;
    if (d_qk == 192 && d_v == 128) return run(HeadSize<192, 128, false>()), true;
    return false;
}
#endif

bool rows_aligned(const SdpaShape& s) { return s.q_row % PACK == 0 && s.k_row % PACK == 0 && s.v_row % PACK == 0 && s.o_row % PACK == 0; }

void check_shape(const SdpaShape& s) {
    ensure(s.B > 0 && s.T > 0 && s.NKV > 0 && s.NH % s.NKV == 0, "sdpa: B %d, T %d, NH %d, NKV %d; NKV must divide NH",
           s.B, s.T, s.NH, s.NKV);
    ensure(s.d_qk > 0 && s.d_v > 0 && s.d_qk <= SIMT_MAX_D && s.d_v <= SIMT_MAX_D,
           "sdpa: head sizes d_qk %d, d_v %d; the kernels go up to %d", s.d_qk, s.d_v, SIMT_MAX_D);
    ensure(s.NH <= 65535 && s.B <= 65535, "sdpa: NH %d, B %d; a grid holds 65535 of each, use a smaller micro-batch", s.NH, s.B);
}

void say_fallback_once(const SdpaShape& s) {
    static bool said = false;
    if (said || sizeof(floatX) != 2) return;
    said = true;
    fprintf(
        stderr,
        "sdpa: no tensor-core kernel for d_qk %d, d_v %d with these strides; using the plain one, many times slower. Fast sizes: %s\n",
        s.d_qk, s.d_v, KERNEL_SIZES);
}

dim3 grid(int rows, int tile, int heads, int B) {
    return dim3(unsigned(ceil_div(size_t(rows), size_t(tile))), unsigned(heads), unsigned(B));
}
}  // namespace

void sdpa_forward(floatX* o, floatM* lse, const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s,
                  const floatM* o_rope) {
    check_shape(s);
    const float scale = float(1 / std::sqrt(double(s.d_qk)));
#ifdef PRECISION_bf16
    const bool aligned = rows_aligned(s) && all_aligned16(o, q, k, v, o_rope);
    const bool k_is_v = k == v && s.d_qk == s.d_v && s.k_row == s.v_row;
    if (aligned && with_head_size(s.d_qk, s.d_v, k_is_v, [&](auto size) {
            using Size = decltype(size);
            using Tile = ForwardTile<Size::d_qk, Size::d_v, Size::k_is_v>;
            launch(sdpa_forward_kernel<Size::d_qk, Size::d_v, Size::k_is_v>, grid(s.T, Tile::BQ, s.NH, s.B), SDPA_THREADS, Tile::SMEM)(
                o, lse, q, k, v, bias, s, scale, o_rope);
        }))
        return;
#endif
    say_fallback_once(s);
    launch(sdpa_simt_forward_kernel, grid(s.T, SIMT_OWN, s.NH, s.B), SDPA_THREADS, simt_smem(s))(o, lse, q, k, v, bias, s, scale);
    if (o_rope) rotate_output(o, o_rope, s, true);
}

void sdpa_backward(floatX* dq, floatX* dk, floatX* dv, floatM* dp, floatM* da, floatX* dout, floatX* o, const floatM* lse,
                   const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s, bool accumulate,
                   const floatM* rope, const floatM* o_rope) {
    check_shape(s);
    const bool k_is_v = dk == dv;
    ensure(!k_is_v || (k == v && s.d_qk == s.d_v && s.k_row == s.v_row), "sdpa_backward: dk and dv are one tensor, k and v are not");
    const float scale = float(1 / std::sqrt(double(s.d_qk)));
    const int T_pad = int(round_up(size_t(s.T), STAT_ROWS));
    const size_t rows = size_t(s.B) * s.NH * T_pad, most_tiles = ceil_div(size_t(s.T), SIMT_OWN);
    float2* stats = static_cast<float2*>(device_scratch(sdpa_scratch_bytes(s, bias.kind)));
    float2* partials = stats + rows;
    const bool aligned = rows_aligned(s) && all_aligned16(o, q, k, v, dout, dq, dk, dv, rope);
    launch(aligned && s.d_v % PACK == 0 ? sdpa_delta_kernel<PACK> : sdpa_delta_kernel<1>,
           grid_size(rows * DELTA_LANES, SDPA_THREADS), SDPA_THREADS, 0)(stats, o, dout, lse, s, T_pad, scale);
    if (o_rope) rotate_output(dout, o_rope, s, false);       // D, above, is the same before
    int bias_tiles = 0;                              // blocks per head that left a partial sum of the bias's gradients
    bool done = false;
#ifdef PRECISION_bf16
    done = aligned && with_head_size(s.d_qk, s.d_v, k_is_v, [&](auto size) {
        using Size = decltype(size);
        using KvTile = BackwardKvTile<Size::d_qk, Size::d_v, Size::k_is_v>;
        using QTile = BackwardQTile<Size::d_qk, Size::d_v, Size::k_is_v>;
        launch(sdpa_backward_kv_kernel<Size::d_qk, Size::d_v, Size::k_is_v>, grid(s.T, KvTile::BK, s.NKV, s.B), SDPA_THREADS, KvTile::SMEM)(
            dk, dv, dout, stats, q, k, v, bias, s, T_pad, scale, rope);
        launch(sdpa_backward_q_kernel<Size::d_qk, Size::d_v, Size::k_is_v>, grid(s.T, QTile::BQ, s.NH, s.B), SDPA_THREADS, QTile::SMEM)(
            dq, partials, dout, stats, q, k, v, bias, s, T_pad, scale, rope);
        bias_tiles = int(ceil_div(size_t(s.T), QTile::BQ));
    });
#endif
    if (!done) {
        say_fallback_once(s);
        launch(sdpa_simt_kv_kernel, grid(s.T, SIMT_OWN, s.NKV, s.B), SDPA_THREADS, simt_smem(s))(
            dk, dv, dout, stats, q, k, v, bias, s, T_pad, scale, int(k_is_v));
        launch(sdpa_simt_q_kernel, grid(s.T, SIMT_OWN, s.NH, s.B), SDPA_THREADS, simt_smem(s))(
            dq, partials, dout, stats, q, k, v, bias, s, T_pad, scale);
        bias_tiles = int(most_tiles);
        if (rope) rotate_back(dq, dk, rope, s);
    }
    if (bias.kind == BiasKind::power)
        launch(sdpa_bias_gradient_kernel, unsigned(s.NH), 32, 0)(dp, da, partials, bias, s.B, s.NH, bias_tiles, int(accumulate));
}

// Asked for sizes that a run wants to train with, so in bf16 the plain kernel's sizes count as refused: nobody should wait for those.
std::string sdpa_refusal(int d_qk, int d_v) {
#ifdef PRECISION_bf16
    if (with_head_size(d_qk, d_v, false, [](auto) {})) return "";
    return format("no bf16 kernel for head sizes d_qk %d, d_v %d; there are %s", d_qk, d_v, KERNEL_SIZES);
#else
    if (d_qk > 0 && d_v > 0 && d_qk <= SIMT_MAX_D && d_v <= SIMT_MAX_D) return "";
    return format("no kernel for head sizes d_qk %d, d_v %d; both can be 1 to %d", d_qk, d_v, SIMT_MAX_D);
#endif
}
size_t sdpa_scratch_bytes(const SdpaShape& s, BiasKind bias) {
    size_t rows = size_t(s.B) * s.NH * round_up(size_t(s.T), STAT_ROWS), tiles = ceil_div(size_t(s.T), SIMT_OWN);
    return sizeof(float2) * (rows + (bias == BiasKind::power ? size_t(s.B) * s.NH * tiles : 0));
}
