// Rotary position embedding [Su et al. 2021, eq. 34], half-split pairing as in Llama: elements i and i + d/2 are rotated by
// the angle t * theta^(-2i/d), t the position in the sequence. R_t is orthogonal: its backward is its inverse, R_{-t}.
// Rows are (b, t); each row holds `heads` vectors of width d. All strides in elements.
#pragma once
#include <cmath>

#include "runtime/device/types.h"

struct RopeShape {
    int B, T, heads, d;
    size_t out_row, out_head;    // of the rotated tensor
    size_t in_row, in_head;      // of the source; in_head = 0: one head, rotated once and written to every head (MLA's k_r)
    // (B * T) positions of the rows where they are not 0 .. T-1 of every sequence (decoding; device memory)
    const int* position = nullptr;
};

// table: (T, d/2, 2) floatM, cos and sin; filled on the host.
inline void rope_table(floatM* table, int T, int d, double theta) {
    for (int t = 0; t < T; t++)
        for (int i = 0; i < d / 2; i++) {
            double angle = t * std::pow(theta, -2.0 * i / d);
            table[(size_t(t) * (d / 2) + i) * 2] = floatM(std::cos(angle));
            table[(size_t(t) * (d / 2) + i) * 2 + 1] = floatM(std::sin(angle));
        }
}
// out = R_t in, or R_{-t} in when inverse. out may be in when the layouts agree.
void rope_forward(floatX* out, const floatX* in, const floatM* table, const RopeShape& s, bool inverse = false);
// din (= | += when accumulate) R_{-t} dout (R_t when inverse); summed over the heads when in_head == 0.
void rope_backward(floatX* din, const floatX* dout, const floatM* table, const RopeShape& s, bool accumulate = false, bool inverse = false);
