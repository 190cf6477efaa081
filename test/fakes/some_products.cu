// A product as the layers ask for it, for test_cuda_matmul.cpp, which g++ compiles and which so cannot see matmul.cuh.
#include "layers/matmul.cuh"
#include "runtime/device/backend.h"

// D (m, 32) (= | += when accumulate) A (m, 16) B (16, 32); the memory's content does not matter
bool product_of(size_t m, bool accumulate) {
    static floatX* memory = device_alloc_array<floatX>(1 << 16);
    Matmul p{};
    p.m = m;
    p.n = 32;
    p.k = 16;
    p.a = memory;
    p.lda = 16;
    p.b = memory;
    p.ldb = 32;
    p.d = memory;
    p.ldd = 32;
    p.accumulate = accumulate;
    p.batch = 1;
    return matmul(p);
}
