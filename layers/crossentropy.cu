// Softmax and cross-entropy on the GPU, in place over the padded logits. See crossentropy.h.
#include "layers/crossentropy.h"

#include "layers/cuda_common.cuh"

namespace {
constexpr int MAX_THREADS = 512;
constexpr float LOWEST = -3.402823466e38f;                   // not -infinity: LOWEST - LOWEST is 0, not NaN

// The running maximum and the sum of exp(x - maximum): one read instead of two [Milakov & Gimelshein 2018, alg. 3].
struct MaxAndSum { float max, sum; };
__device__ __forceinline__ MaxAndSum combine(MaxAndSum a, MaxAndSum b) {
    float m = fmaxf(a.max, b.max);
    return {m, a.sum * expf(a.max - m) + b.sum * expf(b.max - m)};
}

// Of one row, by the whole block; every thread gets the same bits. shared: one MaxAndSum per warp.
template <int N> __device__ MaxAndSum row_statistics(const floatX* x, int V, int Vp, MaxAndSum* shared) {
    MaxAndSum mine{LOWEST, 0.0f};
    for (int v = int(threadIdx.x) * N; v < Vp; v += int(blockDim.x) * N) {
        float logits[N], top = mine.max;
        load_floats(logits, x + v);
#pragma unroll
        for (int i = 0; i < N; i++) if (v + i < V) top = fmaxf(top, logits[i]);
        mine.sum *= expf(mine.max - top);
#pragma unroll
        for (int i = 0; i < N; i++) if (v + i < V) mine.sum += expf(logits[i] - top);
        mine.max = top;
    }
    float top = warp_max(mine.max);
    float sum = warp_sum(mine.sum * expf(mine.max - top));
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = {top, sum};
    __syncthreads();
    MaxAndSum all = shared[0];
    for (int w = 1; w < int(blockDim.x) / WARP; w++) all = combine(all, shared[w]);
    return all;
}

// Grid: one block a row. Reads the row from device memory once; the second pass walks it backwards, so that it begins with what
// the first pass left in L1 and L2, and writes it once: 4 Vp bytes a row of bf16, memory-bound. write_gradient false: losses only.
template <int N> __global__ void __launch_bounds__(MAX_THREADS)
crossentropy_kernel(float* losses, floatX* logits, const int* targets, int V, int Vp, float scale, bool write_gradient) {
    MaxAndSum* shared = reinterpret_cast<MaxAndSum*>(dyn_smem);
    size_t row = blockIdx.x;
    int target = targets[row];
    floatX* x = logits + row * Vp;
    int stride = int(blockDim.x) * N, last = (Vp - 1) / stride * stride + int(threadIdx.x) * N;
    if (target < 0) {                                        // the whole block: this row does not count
        float zero[N] = {};
        for (int v = last; v >= 0 && write_gradient; v -= stride) if (v < Vp) store_floats(x + v, zero);
        if (threadIdx.x == 0) losses[row] = 0;
        return;
    }
    float target_logit = threadIdx.x == 0 ? float(x[target]) : 0.0f;                    // before anyone overwrites it
    MaxAndSum all = row_statistics<N>(x, V, Vp, shared);
    if (threadIdx.x == 0) losses[row] = logf(all.sum) + all.max - target_logit;
    if (!write_gradient) return;
    float factor = scale / all.sum;
    for (int v = last; v >= 0; v -= stride) {
        if (v >= Vp) continue;
        float g[N];
        load_floats(g, x + v);
#pragma unroll
        for (int i = 0; i < N; i++) g[i] = v + i < V ? expf(g[i] - all.max) * factor - (v + i == target ? scale : 0.0f) : 0.0f;
        store_floats(x + v, g);
    }
}

void run(floatM* losses, floatX* logits, const int* targets, size_t rows, int V, int Vp, floatM scale, bool write_gradient) {
    if (rows == 0) return;
    bool pack = Vp % PACK == 0 && all_aligned16(logits);
    int n = pack ? PACK : 1;
    size_t threads = std::min(size_t(MAX_THREADS), round_up(ceil_div(size_t(Vp), size_t(4) * n), WARP));       // about 4 loads a thread or more
    auto kernel = pack ? crossentropy_kernel<PACK> : crossentropy_kernel<1>;
    launch(kernel, grid_size(rows), dim3(unsigned(threads)), threads / WARP * sizeof(MaxAndSum))(losses, logits, targets, V, Vp, scale, write_gradient);
}
}  // namespace

void crossentropy_forward(floatM* losses, const floatX* logits, const int* targets, size_t rows, int V, int Vp) {
    run(losses, const_cast<floatX*>(logits), targets, rows, V, Vp, 0, false);           // not written to
}

void crossentropy_forward_backward(floatM* losses, floatX* logits, const int* targets, size_t rows, int V, int Vp, floatM scale) {
    run(losses, logits, targets, rows, V, Vp, scale, true);
}
