// The products of BACKEND=cuda, by cuBLASLt: descriptors and algorithm are found once per shape and kept. See matmul.cuh.
// cuBLASLt is column-major: a row-major (r, c) matrix is its column-major (c, r) transpose, so D = op(A) op(B) is asked for as
// D^T = op(B)^T op(A)^T: the operands change places, the transpose flags stay. The epilogue's bias runs along D^T's rows, which are
// D's columns, as wanted.
// The algorithm is cuBLASLt's first proposal, the same every time on the same device and library, so that a run can be
// repeated bit for bit. MATMUL_TUNE=1 in the environment times all proposals when a shape first comes up and keeps the
// fastest: another run may then keep another one and round differently. Either way the trainer keeps the choices in a file
// of the run (matmul_keep_choices), and a resumed run takes them from there, whatever MATMUL_TUNE says now.
// Nothing is allocated on the device after matmul_start.
#include <cublasLt.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "layers/matmul_plain.cuh"
#include "runtime/device/backend.h"
#include "runtime/run/files.h"
#include "runtime/run/matmul_choices.h"

namespace {
constexpr size_t WORKSPACE_BYTES = size_t(32) << 20;         // what NVIDIA recommends for Hopper
constexpr int PROPOSALS = 8, TIMED_RUNS = 3;

void lt_check_at(cublasStatus_t status, const char* expression, const char* file, int line) {
    if (status != CUBLAS_STATUS_SUCCESS) fail("cuBLASLt: %s, from %s at %s:%d", cublasLtGetStatusName(status), expression, file, line);
}
#define lt_check(expression) lt_check_at(expression, #expression, __FILE__, __LINE__)

constexpr cudaDataType_t STORAGE = sizeof(floatX) == 2 ? CUDA_R_16BF : CUDA_R_32F;

struct Library {
    cublasLtHandle_t handle = nullptr;
    void* workspace = nullptr;
} library;
MatmulChoices choices;
bool may_time = true;                                        // false: no place to keep a choice

// Everything found out about one shape. `usable` false: cuBLASLt has no algorithm for it.
struct Plan {
    bool usable = false;
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t b = nullptr, a = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algorithm;
};

// The largest power of two up to 256 that divides the address: some algorithms need 16.
size_t alignment(const void* p) {
    size_t address = reinterpret_cast<uintptr_t>(p), a = 256;
    while (a > 1 && address % a) a /= 2;
    return a;
}

// Not `accumulate`: the library is told beta with each product and does not choose by it.
using Key = MatmulKey;
Key key_of(const Matmul& p) {
    return {p.transpose_a, p.transpose_b, p.m, p.n, p.k, p.lda, p.ldb, p.ldd, p.d_is_master, size_t(p.batch), p.batch_a, p.batch_b,
            p.batch_d, size_t(p.epilogue) * 2 + (p.bias != nullptr), alignment(p.a), alignment(p.b), alignment(p.d), alignment(p.aux),
            alignment(p.bias), alignment(p.bias_gradient)};
}

template <class T> void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
    lt_check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value));
}
template <class T> void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    lt_check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value));
}

// rows, columns as stored, column-major
cublasLtMatrixLayout_t layout(cudaDataType_t type, size_t rows, size_t columns, size_t ld, int batch, size_t stride) {
    cublasLtMatrixLayout_t l;
    lt_check(cublasLtMatrixLayoutCreate(&l, type, rows, columns, int64_t(ld)));
    if (batch == 1) return l;
    int64_t apart = int64_t(stride);
    lt_check(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch));
    lt_check(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &apart, sizeof apart));
    return l;
}

cublasLtEpilogue_t lt_epilogue(const Matmul& p) {
    switch (p.epilogue) {
        case Epilogue::bias: return CUBLASLT_EPILOGUE_BIAS;
        case Epilogue::gelu_bias: return p.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
        case Epilogue::gelu_backward: return CUBLASLT_EPILOGUE_DGELU;
        case Epilogue::bias_gradient: return CUBLASLT_EPILOGUE_BGRADB;       // our A is the library's B
        default: return CUBLASLT_EPILOGUE_DEFAULT;
    }
}

void point_at_epilogue(const Plan& plan, const Matmul& p) {
    if (p.bias) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(p.bias));
    if (p.bias_gradient) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(p.bias_gradient));
    if (p.aux) set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(p.aux));
}

cublasStatus_t run(const Plan& plan, const Matmul& p, const cublasLtMatmulAlgo_t& algorithm) {
    const float one = 1, keep = p.accumulate ? 1 : 0;
    return cublasLtMatmul(library.handle, plan.operation, &one, p.b, plan.b, p.a, plan.a, &keep, p.d, plan.d, p.d, plan.d, &algorithm,
                          library.workspace, WORKSPACE_BYTES, compute_stream());
}

using Proposals = std::array<cublasLtMatmulHeuristicResult_t, PROPOSALS>;    // a std::vector of this type breaks nvcc 13.0

// Which proposal is fastest. Every one of them writes the product itself, in place, so that no memory is needed; a product that adds to
// D must not be made twice, and a shape that comes up adding first keeps the first proposal. (A training step overwrites first.)
int fastest(const Plan& plan, const Matmul& p, const Proposals& proposals, int count) {
    if (p.accumulate) return 0;
    cudaEvent_t begin, end;
    cuda_check(cudaEventCreate(&begin));
    cuda_check(cudaEventCreate(&end));
    int best = 0;
    float best_ms = -1;
    for (int i = 0; i < count; i++)
        for (int repeat = 0; repeat < TIMED_RUNS; repeat++) {
            cuda_check(cudaEventRecord(begin, compute_stream()));
            if (run(plan, p, proposals[size_t(i)].algo) != CUBLAS_STATUS_SUCCESS) break;
            cuda_check(cudaEventRecord(end, compute_stream()));
            cuda_check(cudaEventSynchronize(end));
            float ms;
            cuda_check(cudaEventElapsedTime(&ms, begin, end));
            if (best_ms < 0 || ms < best_ms) best = i, best_ms = ms;
        }
    cuda_check(cudaEventDestroy(begin));
    cuda_check(cudaEventDestroy(end));
    return best;
}

static_assert(sizeof(MatmulAlgorithm) == sizeof(cublasLtMatmulAlgo_t));

// The run's own choice, if it has one and the library still takes it.
bool take_kept(Plan& plan, const Key& key) {
    const auto kept = choices.algorithm.find(key);
    if (kept == choices.algorithm.end()) return false;
    memcpy(&plan.algorithm, kept->second.data(), sizeof plan.algorithm);
    cublasLtMatmulHeuristicResult_t result;
    if (cublasLtMatmulAlgoCheck(library.handle, plan.operation, plan.b, plan.a, plan.d, plan.d, &plan.algorithm,
                                &result) == CUBLAS_STATUS_SUCCESS &&
        result.workspaceSize <= WORKSPACE_BYTES)
        return true;
    fprintf(
        stderr,
        "%s: the library refuses the algorithm kept for one of the products; it is chosen again, and the last bits of this run change\n",
        choices.path.c_str());
    return false;
}

Plan make_plan(const Matmul& p, const Key& key) {
    Plan plan;
    cudaDataType_t d_type = p.d_is_master ? CUDA_R_32F : STORAGE;
    cublasOperation_t op_a = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, op_b = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    lt_check(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));     // full fp32 with floatX = float: no TF32
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, op_b);
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, op_a);
    set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, lt_epilogue(p));
    if (p.bias) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, STORAGE);
    if (p.bias_gradient) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
    if (p.aux) set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t(p.ldd));
    if (p.aux) set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, STORAGE);
    point_at_epilogue(plan, p);
    plan.b = p.transpose_b ? layout(STORAGE, p.k, p.n, p.ldb, p.batch, p.batch_b) : layout(STORAGE, p.n, p.k, p.ldb, p.batch, p.batch_b);
    plan.a = p.transpose_a ? layout(STORAGE, p.m, p.k, p.lda, p.batch, p.batch_a) : layout(STORAGE, p.k, p.m, p.lda, p.batch, p.batch_a);
    plan.d = layout(d_type, p.n, p.m, p.ldd, p.batch, p.batch_d);
    if (take_kept(plan, key)) {
        plan.usable = true;
        return plan;
    }

    cublasLtMatmulPreference_t preference;
    lt_check(cublasLtMatmulPreferenceCreate(&preference));
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE_BYTES);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(alignment(p.b)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t(alignment(p.a)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t(alignment(p.d)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t(alignment(p.d)));
    Proposals proposals;
    int found = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library.handle, plan.operation, plan.b, plan.a, plan.d,
                                                           plan.d, preference, PROPOSALS, proposals.data(), &found);
    lt_check(cublasLtMatmulPreferenceDestroy(preference));
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE) lt_check(status);
    plan.usable = status == CUBLAS_STATUS_SUCCESS && found > 0;
    if (!plan.usable) return plan;
    const char* tune = getenv("MATMUL_TUNE");
    plan.algorithm = proposals[size_t(may_time && tune && *tune == '1' ? fastest(plan, p, proposals, found) : 0)].algo;
    MatmulAlgorithm words;
    memcpy(words.data(), &plan.algorithm, sizeof words);
    matmul_choices_add(choices, key, words);
    return plan;
}

// Slow products must not pass unseen; small ones do not matter.
void say_fallback_once(const Matmul& p) {
    static bool said = false;
    if (said || double(p.m) * double(p.n) * double(p.k) < 1e9) return;
    said = true;
    fprintf(
        stderr,
        "matmul: cuBLASLt has no algorithm for %zu x %zu x %zu with these strides; using our own kernel, many times slower\n",
        p.m, p.n, p.k);
}
}  // namespace

void matmul_start() {
    if (library.handle) return;
    lt_check(cublasLtCreate(&library.handle));
    library.workspace = device_alloc(WORKSPACE_BYTES);
}
size_t matmul_workspace_bytes() { return WORKSPACE_BYTES; }

std::string matmul_keep_choices(const std::string& path) {
    may_time = file_exists(parent_folder(path));
    if (!may_time) return format("%s: this rank does not see the folder; its matrix algorithms are not timed", parent_folder(path).c_str());
    return matmul_choices_open(choices, path,
                               format("%s; cuBLASLt %zu; %s", device_facts().name.c_str(), cublasLtGetVersion(),
                                      sizeof(floatX) == 2 ? "bf16" : "fp32"));
}

bool matmul(const Matmul& p) {
    if (p.m == 0 || p.n == 0 || p.batch == 0) return true;
    // GELU's auxiliary matrix: leading dimension a multiple of 8, address of 16 [cuBLAS manual, cublasLtEpilogue_t]; bf16 only.
    if (p.epilogue == Epilogue::gelu_bias || p.epilogue == Epilogue::gelu_backward)
        if (sizeof(floatX) != 2 || p.ldd % 8 != 0 || !all_aligned16(p.aux)) return false;
    if (p.k == 0) {                              // an empty sum: cuBLASLt refuses it
        if (p.epilogue != Epilogue::none) return false;
        matmul_plain(p);
        return true;
    }
    static std::map<Key, Plan> plans;
    const Key key = key_of(p);
    auto found = plans.find(key);
    if (found == plans.end()) found = plans.emplace(key, make_plan(p, key)).first;
    Plan& plan = found->second;
    if (plan.usable) {
        point_at_epilogue(plan, p);
        cublasStatus_t status = run(plan, p, plan.algorithm);
        if (status == CUBLAS_STATUS_SUCCESS) return true;
        if (status != CUBLAS_STATUS_NOT_SUPPORTED) lt_check(status);
        plan.usable = false;                     // refused in spite of the proposal: as if there had been none
    }
    if (p.epilogue != Epilogue::none) return false;
    say_fallback_once(p);
    matmul_plain(p);
    return true;
}
