// Softmax and cross-entropy on the GPU, in place over the padded logits. See crossentropy.h.
#include "layers/crossentropy.h"

#include "layers/cuda_common.cuh"

namespace {
constexpr int MAX_THREADS = 512;
constexpr float LOWEST = -2e38f;                             // not -infinity: LOWEST - LOWEST is 0, not NaN
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// The running maximum, in units of log2, and the sum of exp(x - maximum): one read instead of two [Milakov & Gimelshein 2018, alg. 3].
// `max` is the largest logit times log2(e), rounded; that all take off this same number, the rounded one, makes its rounding cancel.
struct MaxAndSum { float max, sum; };
__device__ __forceinline__ float exp_of(float x, float max) { return exp2f(fmaf(x, LOG2_E, -max)); }
__device__ __forceinline__ MaxAndSum combine(MaxAndSum a, MaxAndSum b) {
    float m = fmaxf(a.max, b.max);
    return {m, a.sum * exp2f(a.max - m) + b.sum * exp2f(b.max - m)};
}

// N logits of which the first `real` count; ALL: all of them, known at compile time.
template <int N, bool ALL> __device__ __forceinline__ void add_logits(MaxAndSum& mine, const floatX* x, int real) {
    float logits[N];
    load_floats(logits, x);
    float top = logits[0];
#pragma unroll
    for (int i = 1; i < N; i++) if (ALL || i < real) top = fmaxf(top, logits[i]);
    top = fmaxf(mine.max, top * LOG2_E);
    float sum = mine.sum * exp2f(mine.max - top);
#pragma unroll
    for (int i = 0; i < N; i++) if (ALL || i < real) sum += exp_of(logits[i], top);
    mine = {top, sum};
}

// Of one row, by the whole block; every thread gets the same bits. shared: one MaxAndSum per warp.
template <int N> __device__ MaxAndSum row_statistics(const floatX* x, int V, MaxAndSum* shared) {
    MaxAndSum mine{LOWEST, 0.0f};
    int v = int(threadIdx.x) * N, stride = int(blockDim.x) * N;
#pragma unroll 2
    for (; v + N <= V; v += stride) add_logits<N, true>(mine, x + v, N);
    if (v < V) add_logits<N, false>(mine, x + v, V - v);     // the vector that padding begins in
    float top = warp_max(mine.max);
    float sum = warp_sum(mine.sum * exp2f(mine.max - top));
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = {top, sum};
    __syncthreads();
    MaxAndSum all = shared[0];
    for (int w = 1; w < int(blockDim.x) / WARP; w++) all = combine(all, shared[w]);
    return all;
}

// Grid: one block a row. Reads the row from device memory once; the second pass walks it backwards, so that it begins with what
// the first pass left in L1 and L2, and writes it once: 4 Vp bytes a row of bf16. About 12 instructions an element in both passes
// (docs/gpu/sass.tsv), so bound by memory. write_gradient false: losses only.
template <int N> __global__ void __launch_bounds__(MAX_THREADS)
crossentropy_kernel(float* losses, floatX* logits, const int* targets, int V, int Vp, float scale, bool write_gradient) {
    MaxAndSum* shared = reinterpret_cast<MaxAndSum*>(dyn_smem);
    size_t row = blockIdx.x;
    int target = targets[row];
    floatX* x = logits + row * Vp;
    const int stride = int(blockDim.x) * N, first = int(threadIdx.x) * N;
    if (target < 0) {                                        // the whole block: this row does not count
        float zero[N] = {};
        for (int v = first; v < Vp && write_gradient; v += stride) store_floats(x + v, zero);
        if (threadIdx.x == 0) losses[row] = 0;
        return;
    }
    const bool owns_target = target / N % int(blockDim.x) == int(threadIdx.x);
    const float target_logit = owns_target ? float(x[target]) : 0.0f;                   // before it is overwritten, by this thread
    MaxAndSum all = row_statistics<N>(x, V, shared);
    // -ln p: as a quotient, which is exactly 1 for a lone column, unless it overflows
    if (owns_target) {
        const float log2_of = fmaf(target_logit, LOG2_E, -all.max);
        losses[row] = log2_of > -60 ? logf(all.sum / exp2f(log2_of)) : LN_2 * (log2f(all.sum) - log2_of);
    }
    if (!write_gradient) return;
    const float factor = scale / all.sum;
    int v = (Vp - 1) / stride * stride + first;              // the thread's last vector, or behind it
    for (; v >= 0 && v + N > V; v -= stride) {               // padding, wholly or in part
        if (v >= Vp) continue;
        float g[N];
        load_floats(g, x + v);
#pragma unroll
        for (int i = 0; i < N; i++) g[i] = v + i < V ? exp_of(g[i], all.max) * factor : 0.0f;
        store_floats(x + v, g);
    }
#pragma unroll 2
    for (; v >= 0; v -= stride) {
        float g[N];
        load_floats(g, x + v);
#pragma unroll
        for (int i = 0; i < N; i++) g[i] = exp_of(g[i], all.max) * factor;
        store_floats(x + v, g);
    }
    if (owns_target) x[target] = floatX(exp_of(target_logit, all.max) * factor - scale);
}

void run(floatM* losses, floatX* logits, const int* targets, size_t rows, int V, int Vp, floatM scale, bool write_gradient) {
    if (rows == 0) return;
    bool pack = Vp % PACK == 0 && all_aligned16(logits);
    int n = pack ? PACK : 1;
    // about 4 loads a thread or more
    size_t threads = std::min(size_t(MAX_THREADS), round_up(ceil_div(size_t(Vp), size_t(4) * n), WARP));
    auto kernel = pack ? crossentropy_kernel<PACK> : crossentropy_kernel<1>;
    launch(kernel, grid_size(rows), dim3(unsigned(threads)), threads / WARP * sizeof(MaxAndSum))(
        losses, logits, targets, V, Vp, scale, write_gradient);
}
}  // namespace

void crossentropy_forward(floatM* losses, const floatX* logits, const int* targets, size_t rows, int V, int Vp) {
    run(losses, const_cast<floatX*>(logits), targets, rows, V, Vp, 0, false);           // not written to
}

void crossentropy_forward_backward(floatM* losses, floatX* logits, const int* targets, size_t rows, int V, int Vp, floatM scale) {
    run(losses, logits, targets, rows, V, Vp, scale, true);
}
