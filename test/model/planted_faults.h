// Faults in the backward, one at a time, behind the operations' own names: model/gpt.h and the variant, included after this file, call
// these. With fault == none nothing changes. Only for test_gradients.cpp, on the CPU.
#pragma once
#include "attention/sdpa.h"
#include "layers/embedding.h"
#include "layers/linear.h"

namespace planted {
enum Fault { none, dq_of_sdpa, one_weight_gradient, forgotten_weight_gradient, embedding };
inline Fault fault = none;
inline const floatM* target = nullptr;                       // whose weight gradient

inline void sdpa_backward(floatX* dq, floatX* dk, floatX* dv, floatM* dp, floatM* da, floatX* dout,
                          floatX* o, const floatM* lse, const floatX* q, const floatX* k, const floatX* v,
                          const PositionBias& bias, const SdpaShape& s, bool accumulate,
                          const floatM* rope = nullptr, const floatM* o_rope = nullptr) {
    ::sdpa_backward(dq, dk, dv, dp, da, dout, o, lse, q, k, v, bias, s, accumulate, rope, o_rope);
    if (fault != dq_of_sdpa) return;
    for (size_t r = 0; r < size_t(s.B) * s.T; r++)
        for (int i = 0; i < s.NH * s.d_qk; i++) dq[r * s.q_row + i] *= floatX(1.01);
}
inline void linear_backward_weight(floatM* dw, floatM* db, const floatX* dy, const floatX* x, const LinearShape& s, bool accumulate) {
    ::linear_backward_weight(dw, db, dy, x, s, accumulate);
    if (dw != target || (fault != one_weight_gradient && fault != forgotten_weight_gradient)) return;
    for (size_t i = 0; i < size_t(s.out) * s.ld_w; i++) dw[i] *= fault == one_weight_gradient ? floatM(1.01) : floatM(0);
}
inline void embedding_backward(floatM* dwte, floatM* dpos, const floatX* dx, const int* tokens, int B, int T, int C, bool accumulate) {
    ::embedding_backward(dwte, dpos, dx, tokens, B, T, C, accumulate);
    if (fault == embedding) ::embedding_backward(dwte, dpos, dx, tokens, B, T, C, accumulate);       // twice
}
}  // namespace planted

#define sdpa_backward planted::sdpa_backward
#define linear_backward_weight planted::linear_backward_weight
#define embedding_backward planted::embedding_backward
