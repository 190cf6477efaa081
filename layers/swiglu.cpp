// SwiGLU on the CPU. See swiglu.h.
#include "layers/swiglu.h"

#include "layers/cpu_math.h"

void swiglu_forward(floatX* y, const floatX* gate_up, size_t rows, int F) {
#pragma omp parallel for schedule(static) if (rows * size_t(F) > 16384)
    for (size_t r = 0; r < rows; r++) {
        const floatX *g = gate_up + r * 2 * F, *u = g + F;
        floatX* out = y + r * F;
#pragma omp simd
        for (int i = 0; i < F; i++) store(out[i], floatM(g[i]) / (1 + fast_exp(-floatM(g[i]))) * floatM(u[i]));
    }
}

void swiglu_backward(floatX* dgate_up, const floatX* dy, const floatX* gate_up, size_t rows, int F) {
#pragma omp parallel for schedule(static) if (rows * size_t(F) > 16384)
    for (size_t r = 0; r < rows; r++) {
        const floatX *g = gate_up + r * 2 * F, *u = g + F, *d = dy + r * F;
        floatX *dg = dgate_up + r * 2 * F, *du = dg + F;
#pragma omp simd
        for (int i = 0; i < F; i++) {
            floatM x = floatM(g[i]), e = fast_exp(-x), s = 1 / (1 + e);     // 1 - s = e s, without the cancellation
            store(dg[i], floatM(d[i]) * floatM(u[i]) * (s + x * s * (e * s)));
            store(du[i], floatM(d[i]) * x * s);
        }
    }
}
