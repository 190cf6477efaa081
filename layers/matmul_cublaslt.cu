// The products of BACKEND=cuda, by cuBLASLt: descriptors and algorithm are found once per shape and kept. See matmul.cuh.
// cuBLASLt is column-major: a row-major (r, c) matrix is its column-major (c, r) transpose, so D = op(A) op(B) is asked for as
// D^T = op(B)^T op(A)^T: the operands change places, the transpose flags stay. The epilogue's bias runs along D^T's rows, which are
// D's columns, as wanted.
// Which algorithm: the one that the run has in its file already; else, for a training run, the cache's; else the fastest of
// all proposals, timed when the shape first comes up (runtime/run/matmul_choices.h has both files). With MATMUL_TUNE=0 in the
// environment, and in programs that do not train unless MATMUL_TUNE=1: the first proposal, the same every time on the same
// device and library.
// Nothing is allocated on the device after matmul_start.
#include <cublasLt.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>

#include "layers/matmul_plain.cuh"
#include "runtime/comm/comm.h"
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
MatmulChoices of_run, of_cache;
bool cache_is_read = true, cache_takes_more = true;
enum class Timing { if_told_to, yes, no } timing = Timing::if_told_to;
bool tune_is(const char* value) {
    const char* tune = getenv("MATMUL_TUNE");
    return tune && strcmp(tune, value) == 0;
}

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

// Whether the library takes an algorithm from a file; then it is the plan's.
bool take(Plan& plan, const std::optional<MatmulAlgorithm>& kept) {
    if (!kept) return false;
    memcpy(&plan.algorithm, kept->data(), sizeof plan.algorithm);
    cublasLtMatmulHeuristicResult_t result;
    return cublasLtMatmulAlgoCheck(library.handle, plan.operation, plan.b, plan.a, plan.d, plan.d, &plan.algorithm, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= WORKSPACE_BYTES;
}

// The cache is a help, not a condition: what goes wrong with it is one line, and the run goes on.
template <class Work> void with_cache(bool& wanted, Work work) {
    if (!wanted || of_cache.path.empty()) return;
    try {
        work();
    } catch (const std::exception& e) {
        wanted = false;
        fprintf(stderr, "matmul: going on without the cache of matrix algorithms: %s\n", error_text(e).c_str());
    }
}

int proposals_for(const Plan& plan, const Matmul& p, Proposals& proposals) {
    cublasLtMatmulPreference_t preference;
    lt_check(cublasLtMatmulPreferenceCreate(&preference));
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE_BYTES);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(alignment(p.b)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t(alignment(p.a)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t(alignment(p.d)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t(alignment(p.d)));
    int found = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library.handle, plan.operation, plan.b, plan.a, plan.d,
                                                           plan.d, preference, PROPOSALS, proposals.data(), &found);
    lt_check(cublasLtMatmulPreferenceDestroy(preference));
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE) lt_check(status);
    return status == CUBLAS_STATUS_SUCCESS ? found : 0;
}

// Finds the plan's algorithm for a shape that comes up for the first time; false if there is none.
bool choose(Plan& plan, const Matmul& p, const Key& key) {
    const auto runs_own = matmul_choices_find(of_run, key);
    if (take(plan, runs_own)) return true;
    if (runs_own)
        fprintf(stderr, "%s: the library refuses the algorithm kept for one of the products; it is chosen again, "
                        "and the last bits of this run change\n", of_run.path.c_str());
    std::optional<MatmulAlgorithm> cached, chosen;
    with_cache(cache_is_read, [&] { cached = matmul_choices_find(of_cache, key); });
    if (take(plan, cached)) chosen = cached;
    if (!chosen) {
        Proposals proposals;
        const int found = proposals_for(plan, p, proposals);
        if (found == 0) return false;
        const bool may_time = timing == Timing::yes || (timing == Timing::if_told_to && tune_is("1"));
        const bool timed = may_time && !replay_is_on() && !p.accumulate;     // (fastest says why)
        chosen.emplace();
        memcpy(chosen->data(), &proposals[size_t(timed ? fastest(plan, p, proposals, found) : 0)].algo, sizeof *chosen);
        if (timed) with_cache(cache_takes_more, [&] { chosen = matmul_choices_add(of_cache, key, *chosen, cached); });
    }
    // Another rank, or another run through the cache, may have been first: then its choice is taken.
    return take(plan, matmul_choices_add(of_run, key, *chosen, runs_own));
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
    plan.usable = choose(plan, p, key);
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

// Every rank calls it. Timing needs a place to keep what it found and, in a run of several ranks, the same place for all.
std::string matmul_keep_choices(const std::string& folder) {
    const std::string library = format("%s; cuBLASLt %zu; %s", device_facts().name.c_str(), cublasLtGetVersion(),
                                       sizeof(floatX) == 2 ? "bf16" : "fp32");
    const bool sees_it = file_exists(folder);
    of_run = matmul_choices_in(sees_it ? folder : "", library);
    std::string note;
    if (!sees_it) note = format("%s: this rank does not see the folder; no rank times its matrix algorithms\n", folder.c_str());
    else if (comm_local_rank() == 0) note = matmul_choices_cleared(of_run);
    const bool untimed = comm_any(!sees_it || tune_is("0"), "the choice of matrix algorithms");
    timing = untimed ? Timing::no : Timing::yes;
    of_cache = matmul_choices_in(untimed ? "" : matmul_cache_folder(), library);
    if (!of_cache.path.empty()) {
        std::error_code ignored;                             // where it cannot be made, the first choice to be kept there says so
        std::filesystem::create_directories(parent_folder(of_cache.path), ignored);
    }
    return note;
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
        // Queued by the library: what it does follows from these, and must be the same in a replay (runtime/device/replay.cu).
        const void* told[] = {&plan, p.a, p.b, p.d, p.bias, p.bias_gradient, p.aux, p.accumulate ? p.d : nullptr};
        if (replay_takes_call(told, sizeof told)) return true;
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
