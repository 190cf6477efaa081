// Two kernels as the layers launch theirs, for test_cuda_replay.cpp, which g++ compiles; what they do on the stand-in for
// the CUDA runtime is said below once more, for the host.
#include "layers/cuda_common.cuh"
#include "test/fakes/fake_cudart.h"

struct Factors { float keep; double take; };                 // with padding, as the layers' structs may have

__global__ void blend_kernel(float* sum, const float* x, int n, Factors f) {
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) sum[i] = sum[i] * f.keep + x[i] * float(f.take);
}
__global__ void count_kernel(float* counter) { *counter += 1; }

void register_some_kernels() {
    fake_kernel(reinterpret_cast<const void*>(blend_kernel), {{sizeof(float*), sizeof(float*), sizeof(int), sizeof(Factors)}, [](void** a) {
        float *sum = *static_cast<float**>(a[0]), *x = *static_cast<float**>(a[1]);
        const Factors f = *static_cast<Factors*>(a[3]);
        for (int i = 0; i < *static_cast<int*>(a[2]); i++) sum[i] = sum[i] * f.keep + x[i] * float(f.take);
    }});
    fake_kernel(reinterpret_cast<const void*>(count_kernel), {{sizeof(float*)}, [](void** a) { **static_cast<float**>(a[0]) += 1; }});
}
void blend(float* sum, const float* x, int n, float keep, double take, int threads) {
    launch(blend_kernel, dim3(1), dim3(unsigned(threads)), 0)(sum, x, n, Factors{keep, take});
}
void count(float* counter) { launch(count_kernel, dim3(1), dim3(1), 0)(counter); }
