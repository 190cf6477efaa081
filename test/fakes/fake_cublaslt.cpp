// A stand-in for cuBLASLt: just what layers/matmul_cublaslt.cu calls. It proposes four algorithms for every shape, lets the
// fake clock of fake_cudart.cpp run for as long as the one that is asked for takes, and remembers which that was; it
// multiplies nothing. For test_cuda_matmul.cpp, so that the choice of algorithms runs without a GPU.
#include "test/fakes/fake_cublaslt.h"

#include <cublasLt.h>

#include <cstring>

#include "test/fakes/fake_cudart.h"

std::vector<uint64_t> fake_algorithms_run;
float fake_ms[4] = {1, 1, 1, 1};
uint64_t fake_refused = 0;
size_t fake_version = 130004;
static int anything;

template <class Handle> static cublasStatus_t make(Handle* h) { return *h = reinterpret_cast<Handle>(&anything), CUBLAS_STATUS_SUCCESS; }

extern "C" {
cublasStatus_t cublasLtCreate(cublasLtHandle_t* h) { return make(h); }
size_t cublasLtGetVersion() { return fake_version; }
const char* cublasLtGetStatusName(cublasStatus_t) { return "a fake status"; }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t, cudaDataType_t) { return make(d); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, const void*,
                                              size_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType, uint64_t, uint64_t, int64_t) { return make(l); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t, cublasLtMatrixLayoutAttribute_t, const void*,
                                                size_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) { return make(p); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void*, size_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
    *found = requested < 4 ? requested : 4;
    for (int i = 0; i < *found; i++) {
        memset(&results[i], 0, sizeof results[i]);
        results[i].algo.data[0] = FAKE_FIRST_ALGORITHM + uint64_t(i);
        results[i].algo.data[7] = ~uint64_t(0);              // every word is kept
        results[i].state = CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
    memset(result, 0, sizeof *result);
    const bool ours = algo->data[0] >= FAKE_FIRST_ALGORITHM && algo->data[0] < FAKE_FIRST_ALGORITHM + 4 && algo->data[7] == ~uint64_t(0);
    return ours && algo->data[0] != fake_refused ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t, const void*, const void*, cublasLtMatrixLayout_t,
                              const void*, cublasLtMatrixLayout_t, const void*, const void*, cublasLtMatrixLayout_t,
                              void*, cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t* algo, void*, size_t,
                              cudaStream_t) {
    fake_clock_ms += fake_ms[algo->data[0] - FAKE_FIRST_ALGORITHM];
    fake_algorithms_run.push_back(algo->data[0]);
    return CUBLAS_STATUS_SUCCESS;
}
}
