// The core that all variants share: causal scaled dot-product attention [Vaswani et al. 2017, eq. 1] with a positional bias,
// computed tile by tile with the log-sum-exp saved, so that nothing of size T x T is kept [Dao et al. 2022].
//   S = s Q K^T + bias(i - j)      P = softmax_{j <= i}(S)      O = P V                s = 1 / sqrt(d_qk)
//   D = rowsum(dO * O)     dP = dO V^T     dS = P * (dP - D)     dQ = s dS K     dK = s dS^T Q     dV = P^T dO
// q, k: vectors of d_qk, v, o: of d_v; k and v have NKV heads, query head h reads head floor(h * NKV / NH).
// k and v may be the same tensor (QV): then dk == dv too and receives both terms.
// Bias: none; alibi -slope_h d; power -p_h ln(1 + a_h d) with gradients dp_h = -sum dS ln(1 + a d), da_h = -sum dS p d / (1 + a d).
#pragma once
#include <string>

#include "layers/rope.h"
#include "runtime/device/types.h"

struct SdpaShape {
    int B, T, NH, NKV, d_qk, d_v;
    size_t q_row, k_row, v_row, o_row;       // strides in elements between positions t; heads are d_qk (q, k), d_v (v, o) apart
};
enum class BiasKind { none, alibi, power };
struct PositionBias {
    BiasKind kind = BiasKind::none;
    const floatM* slope = nullptr;           // (NH), alibi
    const floatX *p = nullptr, *a = nullptr; // (NH), power
};

// lse: (B, NH, T) floatM, natural logarithm.
// o_rope: null, or rope.h's table for vectors of d_v: then o = R_{-t} P V, what the values' rotation did undone (QV's `vo`). The
// tensor-core kernel rotates what it has in registers.
void sdpa_forward(floatX* o, floatM* lse, const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s,
                  const floatM* o_rope = nullptr);
// dq, dk, dv =, with the strides of q, k, v; dout has o's. dp, da (= | += when accumulate), used with power only.
// rope: null, or the table by which whole heads of q and k were rotated (rope.h): dq and dk are then those of q and k before it,
// R_{-t} of what they would be; dk with dv in it where they are one. The tensor-core kernels rotate what they have in registers, which
// saves a read and a write of both and one rounding.
// o_rope: as in the forward; dout is the gradient of that o. Both are used up: dout, and on the CPU o, come back rotated by R_t, as the
// products need dout. D is the same before and after: rotations keep scalar products.
void sdpa_backward(floatX* dq, floatX* dk, floatX* dv, floatM* dp, floatM* da, floatX* dout, floatX* o, const floatM* lse,
                   const floatX* q, const floatX* k, const floatX* v, const PositionBias& bias, const SdpaShape& s, bool accumulate,
                   const floatM* rope = nullptr, const floatM* o_rope = nullptr);
// The same afterwards, for who has not done it in registers.
inline void rotate_back(floatX* dq, floatX* dk, const floatM* rope, const SdpaShape& s) {
    const size_t d = size_t(s.d_qk);
    rope_backward(dq, dq, rope, {s.B, s.T, s.NH, s.d_qk, s.q_row, d, s.q_row, d});
    rope_backward(dk, dk, rope, {s.B, s.T, s.NKV, s.d_qk, s.k_row, d, s.k_row, d});
}
// The rows of o or of its gradient.
inline void rotate_output(floatX* o, const floatM* o_rope, const SdpaShape& s, bool inverse) {
    const size_t d = size_t(s.d_v);
    rope_forward(o, o, o_rope, {s.B, s.T, s.NH, s.d_v, s.o_row, d, s.o_row, d}, inverse);
}

// Why this build has no kernel for these head sizes, naming the sizes that it has; "" if it has one. Asked before a run.
std::string sdpa_refusal(int d_qk, int d_v);
// Device scratch memory (device_scratch_reserve) that sdpa_backward needs for such a shape; 0 on the CPU.
size_t sdpa_scratch_bytes(const SdpaShape& s, BiasKind bias);
