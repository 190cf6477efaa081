// AdamW and the global norm on the GPU: one pass over memory each. See adamw.h.
#include "layers/adamw.h"

#include <cmath>

#include "layers/cuda_common.cuh"

namespace {
constexpr int BLOCK = 256, NORM_BLOCKS = 1024;

struct UpdateConstants { float beta1, beta2, eps, correction2, rate, keep, min_value, grad_clip; };

// One thread: N elements. Bytes a parameter: gradient, moments and master weight read (16), moments and master written (12), the
// bf16 copy written (2): 30, memory-bound. The norm is read from device memory, so that the host never waits for it.
template <int N> __global__ void __launch_bounds__(BLOCK)
adamw_kernel(floatX* weights, float* master, float* m, float* v, const float* grad, size_t n, const float* norm, UpdateConstants k) {
    size_t i = (size_t(blockIdx.x) * BLOCK + threadIdx.x) * N;
    if (i >= n) return;
    float clip = k.grad_clip > 0 && *norm > k.grad_clip ? k.grad_clip / *norm : 1.0f;
    float g[N], m1[N], m2[N], w[N];
    load_floats(g, grad + i);
    load_floats(m1, m + i);
    load_floats(m2, v + i);
    if (master) load_floats(w, master + i);
    else load_floats(w, weights + i);
#pragma unroll
    for (int j = 0; j < N; j++) {
        float gj = g[j] * clip;
        m1[j] = k.beta1 * m1[j] + (1 - k.beta1) * gj;
        m2[j] = k.beta2 * m2[j] + (1 - k.beta2) * gj * gj;
        w[j] = fmaxf(w[j] * k.keep - k.rate * m1[j] / (sqrtf(m2[j] * k.correction2) + k.eps), k.min_value);
    }
    store_floats(m + i, m1);
    store_floats(v + i, m2);
    if (master) store_floats(master + i, w);
    store_floats(weights + i, w);
}

// Stage 1. Grid: 1024 blocks or fewer, each striding over the whole range. A thread adds four squares in float, then in double:
// accurate over billions of elements, at a quarter of the double additions. 4 bytes an element: memory-bound.
template <int N> __global__ void __launch_bounds__(BLOCK) sum_of_squares_kernel(double* partial, const float* x, size_t n) {
    double *sums = reinterpret_cast<double*>(dyn_smem), sum = 0;         // one per warp
    for (size_t i = (size_t(blockIdx.x) * BLOCK + threadIdx.x) * N; i < n; i += size_t(gridDim.x) * BLOCK * N) {
        float v[N], squares = 0;
        if (i + N <= n) load_floats(v, x + i);
        else for (int j = 0; j < N; j++) v[j] = i + j < n ? x[i + j] : 0.0f;
#pragma unroll
        for (int j = 0; j < N; j++) squares += v[j] * v[j];
        sum += squares;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    double total = 0;
    for (int w = 0; w < BLOCK / WARP; w++) total += sums[w];
    partial[blockIdx.x] = total;
}

// Stage 2: one warp adds the blocks' sums in a fixed order.
__global__ void norm_kernel(float* norm, const double* partial, int blocks) {
    double sum = 0;
    for (int b = int(threadIdx.x); b < blocks; b += WARP) sum += partial[b];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) *norm = float(sqrt(sum));
}
}  // namespace

void adamw_update(floatX* weights, floatM* master, floatM* m, floatM* v, const floatM* grad, size_t n, const floatM* norm, const AdamW& a) {
    if (n == 0) return;
    double correction1 = 1 / (1 - std::pow(a.beta1, double(a.step))), correction2 = 1 / (1 - std::pow(a.beta2, double(a.step)));
    UpdateConstants k{float(a.beta1), float(a.beta2), float(a.eps), float(correction2), float(a.lr * correction1), float(1 - a.lr * a.weight_decay),
                      float(a.min_value), float(a.grad_clip)};
    // Most elements four at a time, the last one to three alone.
    size_t body = all_aligned16(weights, master, m, v, grad) ? n / 4 * 4 : 0, tail = n - body;
    if (body) launch(adamw_kernel<4>, grid_size(body, 4 * BLOCK), dim3(BLOCK), 0)(weights, master, m, v, grad, body, norm, k);
    if (tail)
        launch(adamw_kernel<1>, grid_size(tail, BLOCK), dim3(BLOCK), 0)(weights + body, master ? master + body : nullptr, m + body, v + body, grad + body,
                                                                       tail, norm, k);
}

void global_norm(floatM* norm, const floatM* grad, size_t n) {
    unsigned blocks = unsigned(std::min(size_t(NORM_BLOCKS), std::max(size_t(1), ceil_div(n, size_t(BLOCK) * 16))));
    double* partial = static_cast<double*>(device_scratch(blocks * sizeof(double)));
    auto kernel = all_aligned16(grad) ? sum_of_squares_kernel<4> : sum_of_squares_kernel<1>;
    launch(kernel, dim3(blocks), dim3(BLOCK), BLOCK / WARP * sizeof(double))(partial, grad, n);
    launch(norm_kernel, dim3(1), dim3(WARP), 0)(norm, partial, int(blocks));
}
