// x[b,t] = wte[token[b,t]] + pos[t]        pos: learned wpe (GPT-2), a fixed sinusoidal table, or null
// tokens: (B, T) int     wte: (Vp, C)     pos: (>= T, C)     x: (B, T, C)
// position: (B * T) positions of the rows where they are not 0 .. T-1 of every sequence (decoding; device memory).
// The backward adds in a fixed order of rows, so the sum does not depend on threads.
#pragma once
#include <cmath>

#include "runtime/device/types.h"

void embedding_forward(floatX* x, const int* tokens, const floatX* wte, const floatX* pos, int B, int T, int C,
                       const int* position = nullptr);
// dwte += (the tied head has already written it);  dpos (= | += when accumulate), null when pos is not learned.
// Here tokens are in host memory: the GPU's backward sorts them there.
void embedding_backward(floatM* dwte, floatM* dpos, const floatX* dx, const int* tokens, int B, int T, int C, bool accumulate);
// The fixed table of Vaswani et al. 2017, sec. 3.5: pos[t][2i] = a sin(t / 10000^(2i/C)), pos[t][2i+1] = a cos(same). Host memory.
// a = 0.02 sqrt 2 gives the rms with which token embeddings, and GPT-2's learned positions, start. (Vaswani has a = 1 and
// multiplies embeddings of rms 1 / sqrt C by sqrt C, so there too both parts are equal. a = 1 with embeddings of 0.02
// drowns the tokens: in the default comparison nothing but the frequencies of single tokens is learned, docs/LOG.md.)
inline constexpr double SINUSOID_AMPLITUDE = 0.02 * 1.4142135623730951;
inline void sinusoidal_table(floatX* pos, int T, int C) {
    for (int t = 0; t < T; t++)
        for (int c = 0; c < C; c++) {
            double angle = t / std::pow(10000.0, double(c / 2 * 2) / C);
            pos[size_t(t) * C + c] = floatX(SINUSOID_AMPLITUDE * (c % 2 ? std::cos(angle) : std::sin(angle)));
        }
}
