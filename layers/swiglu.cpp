// SwiGLU on the CPU. See swiglu.h.
#include "layers/swiglu.h"

#include "layers/cpu_math.h"

void swiglu_forward(floatX* y, const floatX* gate_up, size_t rows, int F) {
#pragma omp parallel for schedule(static) if (rows * size_t(F) > 16384)
    for (size_t r = 0; r < rows; r++) {
        const floatX *g = gate_up + r * 2 * F, *u = g + F;
        floatX* out = y + r * F;
#pragma omp simd
        for (int i = 0; i < F; i++) out[i] = g[i] / (1 + fast_exp(-g[i])) * u[i];
    }
}

void swiglu_backward(floatX* dgate_up, const floatX* dy, const floatX* gate_up, size_t rows, int F) {
#pragma omp parallel for schedule(static) if (rows * size_t(F) > 16384)
    for (size_t r = 0; r < rows; r++) {
        const floatX *g = gate_up + r * 2 * F, *u = g + F, *d = dy + r * F;
        floatX *dg = dgate_up + r * 2 * F, *du = dg + F;
#pragma omp simd
        for (int i = 0; i < F; i++) {
            floatX e = fast_exp(-g[i]), s = 1 / (1 + e);     // 1 - s = e s, without the cancellation
            dg[i] = d[i] * u[i] * (s + g[i] * s * (e * s));
            du[i] = d[i] * g[i] * s;
        }
    }
}
