// x[b,t] = wte[token[b,t]] + pos[t]        pos: learned wpe (GPT-2), a fixed sinusoidal table, or null
// tokens: (B, T) int     wte: (Vp, C)     pos: (>= T, C)     x: (B, T, C)
// The backward adds in a fixed order of rows, so the sum does not depend on threads.
#pragma once
#include "runtime/types.h"

void embedding_forward(floatX* x, const int* tokens, const floatX* wte, const floatX* pos, int B, int T, int C);
// dwte += (the tied head has written it before);  dpos (= | += when accumulate), null when pos is not learned.
void embedding_backward(floatM* dwte, floatM* dpos, const floatX* dx, const int* tokens, int B, int T, int C, bool accumulate);
// The fixed table of Vaswani et al. 2017, sec. 3.5: pos[t][2i] = sin(t / 10000^(2i/C)), pos[t][2i+1] = cos(same). Host memory.
void sinusoidal_table(floatX* pos, int T, int C);
