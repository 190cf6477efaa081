// AdamW and the global norm on the GPU: one pass over memory each. See adamw.h.
#include "layers/adamw.h"

#include <cmath>

#include "layers/cuda_common.cuh"
#include "runtime/device/rng.h"

namespace {
constexpr int BLOCK = 256;
static_assert(NORM_BLOCK == 4 * BLOCK, "sum_squares_kernel: four elements a thread");

struct UpdateConstants { float beta1, beta2, eps, correction2, rate, keep, min_value, grad_clip; };

// w rounded to bf16 by a random 16-bit number added below the bits that are kept; infinities and NaN as they are.
__device__ __forceinline__ float stochastic_bf16(float w, uint32_t random) {
    uint32_t bits = __float_as_uint(w);
    if ((bits & 0x7f800000u) == 0x7f800000u) return w;
    return __uint_as_float((bits + (random >> 16)) & 0xffff0000u);
}

// One thread: N elements. Bytes a parameter: gradient, moments and master weight read (16), moments and master written (12), the
// bf16 copy written (2): 30, memory-bound. The norm is read from device memory, so that the host never waits for it.
template <int N> __global__ void __launch_bounds__(BLOCK)
adamw_kernel(floatX* weights, float* master, float* m, float* v, const float* grad, size_t n, const float* norm, UpdateConstants k,
             Rounding rounding) {
    size_t i = (size_t(blockIdx.x) * BLOCK + threadIdx.x) * N;
    if (i >= n || !(fabsf(*norm) < INFINITY)) return;
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
    if (master) {
        store_floats(master + i, w);
        if (rounding.stochastic)
            for (int j = 0; j < N; j++) w[j] = stochastic_bf16(w[j], philox(rounding.seed, rounding.stream, rounding.first + i + j).x[0]);
    }
    store_floats(weights + i, w);
}

// Grid: one block for NORM_BLOCK elements, four a thread; squares in float, four of them added in float, then in double: accurate
// over billions of elements, at a quarter of the double additions. 4 bytes an element: memory-bound.
template <int N> __global__ void __launch_bounds__(BLOCK) sum_squares_kernel(double* sums, const float* x, size_t n) {
    double *warp_sums = reinterpret_cast<double*>(dyn_smem), sum = 0;
    size_t first = size_t(blockIdx.x) * NORM_BLOCK + threadIdx.x * N;
    float squares = 0;
    for (int k = 0; k < 4 / N; k++) {
        float v[N];
        size_t i = first + size_t(k) * BLOCK * N;
        if (i + N <= n) load_floats(v, x + i);
        else for (int j = 0; j < N; j++) v[j] = i + j < n ? x[i + j] : 0.0f;
#pragma unroll
        for (int j = 0; j < N; j++) squares += v[j] * v[j];
    }
    sum = warp_sum(double(squares));
    if (threadIdx.x % WARP == 0) warp_sums[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    double total = 0;
    for (int w = 0; w < BLOCK / WARP; w++) total += warp_sums[w];
    sums[blockIdx.x] = total;
}

// One block adds the sums in a fixed order: each thread every 256th, then the threads of each warp, then the warps.
__global__ void __launch_bounds__(BLOCK) norm_kernel(float* norm, const double* sums, size_t count) {
    double *warp_sums = reinterpret_cast<double*>(dyn_smem), sum = 0;
    for (size_t i = threadIdx.x; i < count; i += BLOCK) sum += sums[i];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) warp_sums[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    double total = 0;
    for (int w = 0; w < BLOCK / WARP; w++) total += warp_sums[w];
    *norm = float(sqrt(total));
}

// sum (= | +=) x. 8 or 12 bytes an element: memory-bound.
template <int N> __global__ void __launch_bounds__(BLOCK) add_gradient_kernel(float* sum, const float* x, size_t n, int accumulate) {
    size_t i = (size_t(blockIdx.x) * BLOCK + threadIdx.x) * N;
    if (i >= n) return;
    float a[N], b[N];
    load_floats(b, x + i);
    if (accumulate) {
        load_floats(a, sum + i);
#pragma unroll
        for (int j = 0; j < N; j++) b[j] += a[j];
    }
    store_floats(sum + i, b);
}
}  // namespace

void adamw_update(floatX* weights, floatM* master, floatM* m, floatM* v, const floatM* grad, size_t n, const floatM* norm, const AdamW& a) {
    if (n == 0) return;
    double correction1 = 1 / (1 - std::pow(a.beta1, double(a.step))), correction2 = 1 / (1 - std::pow(a.beta2, double(a.step)));
    UpdateConstants k{float(a.beta1),
                      float(a.beta2),
                      float(a.eps),
                      float(correction2),
                      float(a.lr * correction1),
                      float(1 - a.lr * a.weight_decay),
                      float(a.min_value),
                      float(a.grad_clip)};
    // Most elements four at a time, the last one to three alone.
    size_t body = all_aligned16(weights, master, m, v, grad) ? n / 4 * 4 : 0, tail = n - body;
    if (body) launch(adamw_kernel<4>, grid_size(body, 4 * BLOCK), dim3(BLOCK), 0)(weights, master, m, v, grad, body, norm, k, a.rounding);
    Rounding rest = a.rounding;
    rest.first += body;
    if (tail)
        launch(adamw_kernel<1>, grid_size(tail, BLOCK), dim3(BLOCK), 0)(weights + body, master ? master + body : nullptr, m + body,
                                                                        v + body, grad + body, tail, norm, k, rest);
}

void sum_squares(double* sums, const floatM* grad, size_t n) {
    if (n == 0) return;
    auto kernel = all_aligned16(grad) ? sum_squares_kernel<4> : sum_squares_kernel<1>;
    launch(kernel, grid_size(n, NORM_BLOCK), dim3(BLOCK), BLOCK / WARP * sizeof(double))(sums, grad, n);
}

void norm_of_sums(floatM* norm, const double* sums, size_t count) {
    launch(norm_kernel, dim3(1), dim3(BLOCK), BLOCK / WARP * sizeof(double))(norm, sums, count);
}

void add_gradient(floatM* sum, const floatM* x, size_t n, bool accumulate) {
    size_t body = all_aligned16(sum, x) ? n / 4 * 4 : 0, tail = n - body;
    if (body) launch(add_gradient_kernel<4>, grid_size(body, 4 * BLOCK), dim3(BLOCK), 0)(sum, x, body, int(accumulate));
    if (tail) launch(add_gradient_kernel<1>, grid_size(tail, BLOCK), dim3(BLOCK), 0)(sum + body, x + body, tail, int(accumulate));
}
