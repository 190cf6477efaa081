// One matrix product behind `linear` on the GPU. Defined by matmul_cublaslt.cu (BACKEND=cuda) or matmul_plain.cu (BACKEND=emu);
// the Makefile links one.
#pragma once
#include <string>

#include "layers/cuda_common.cuh"

enum class Epilogue {
    none,
    bias,             // D = product + bias (n)
    gelu_bias,        // aux = product + bias, D = GELU(aux)
    gelu_backward,    // D = product * GELU'(aux)
    bias_gradient,    // beside the product: bias_gradient (m) = sum over k of op(A) (m, k)
};

// D (m, n) (= | += when accumulate) op(A) (m, k) op(B) (k, n), all row-major; op transposes when its flag is set; ld* are row
// strides as stored. `batch` products at once, batch_* elements apart. A and B are floatX; D is floatM when d_is_master, else floatX.
struct Matmul {
    bool transpose_a, transpose_b;
    size_t m, n, k;
    const floatX* a;
    size_t lda;
    const floatX* b;
    size_t ldb;
    void* d;
    size_t ldd;
    bool d_is_master = false, accumulate = false;
    int batch = 1;
    size_t batch_a = 0, batch_b = 0, batch_d = 0;
    Epilogue epilogue = Epilogue::none;
    const floatX* bias = nullptr;            // may be null with gelu_bias
    floatX* aux = nullptr;                   // layout of D
    floatM* bias_gradient = nullptr;
};

// At start-up: what the library allocates, so that nothing is allocated later; and how much device memory that is.
void matmul_start();
size_t matmul_workspace_bytes();
// backend_keep_choices (backend.h)
std::string matmul_keep_choices(const std::string& folder);

// False, and nothing done, when this product cannot be had with its epilogue; with Epilogue::none it is always done.
bool matmul(const Matmul& p);
