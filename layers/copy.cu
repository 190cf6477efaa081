// Copies of parts of rows on the GPU. See copy.h.
#include "layers/copy.h"

#include "layers/cuda_common.cuh"

namespace {
constexpr int BLOCK = 256;

// The strides of the side that is read and of the side that is written. `sum` source heads are added up for one written one.
struct Parts {
    int heads, d, sum;
    size_t from_row, from_head, to_row, to_head;
    bool add;
};

// Grid: one thread for N elements of one written head of one row. Each element is read and written once: memory-bound.
template <int N> __global__ void __launch_bounds__(BLOCK) copy_kernel(floatX* to, const floatX* from, size_t rows, Parts p) {
    size_t index = size_t(blockIdx.x) * BLOCK + threadIdx.x;
    int per_head = p.d / N, i = int(index % per_head) * N, head = int(index / per_head % p.heads);
    size_t row = index / per_head / p.heads;
    if (row >= rows) return;
    floatX* out = to + row * p.to_row + head * p.to_head + i;
    float total[N] = {};
    if (p.add) load_floats(total, out);
    for (int h = 0; h < p.sum; h++) {                        // in order: the same bits run after run
        float v[N];
        load_floats(v, from + row * p.from_row + (head + h) * p.from_head + i);
#pragma unroll
        for (int k = 0; k < N; k++) total[k] += v[k];
    }
    store_floats(out, total);
}

void copy(floatX* to, const floatX* from, size_t rows, const Parts& p) {
    if (rows == 0 || p.d == 0) return;
    bool pack = p.d % PACK == 0 && p.from_row % PACK == 0 && p.from_head % PACK == 0 && p.to_row % PACK == 0 && p.to_head % PACK == 0 &&
                all_aligned16(to, from);
    size_t threads = rows * size_t(p.heads) * size_t(p.d / (pack ? PACK : 1));
    auto kernel = pack ? copy_kernel<PACK> : copy_kernel<1>;
    launch(kernel, grid_size(threads, BLOCK), dim3(BLOCK), 0)(to, from, rows, p);
}
}  // namespace

void copy_forward(floatX* out, const floatX* in, const CopyShape& s) {
    copy(out, in, s.rows, {s.heads, s.d, 1, s.in_row, s.in_head, s.out_row, s.out_head, false});
}

void copy_backward(floatX* din, const floatX* dout, const CopyShape& s, bool accumulate) {
    const bool shared = s.in_head == 0;
    copy(din, dout, s.rows, {shared ? 1 : s.heads, s.d, shared ? s.heads : 1, s.out_row, s.out_head, s.in_row, s.in_head, accumulate});
}
