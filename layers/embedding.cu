// Token and position embedding on the GPU. See embedding.h.
// The backward adds the rows of one token in the order in which they stand in the batch, without atomics: the positions of the
// batch are sorted by (token, position) on the host, which has the tokens (by counting: time and memory grow with rows + vocabulary, and
// the GPU meanwhile works on what is queued), the sorted list is cut into chunks, and each block sums its chunk run by run.
#include "layers/embedding.h"

#include <vector>

#include "layers/cuda_common.cuh"
#include "runtime/device/backend.h"

namespace {
constexpr int BLOCK = 256;
struct TokenRow { int token, row; };

// One thread: N elements. Bytes an element of bf16: 2 written, 2 to 4 read: memory-bound.
template <int N>
__global__ void __launch_bounds__(BLOCK)
    embedding_forward_kernel(floatX* x, const int* tokens, const floatX* wte, const floatX* pos, const int* position,
                             size_t elements, int T, int C) {
    size_t i = (size_t(blockIdx.x) * BLOCK + threadIdx.x) * N;
    if (i >= elements) return;
    size_t row = i / C, c = i % C;
    float v[N];
    load_floats(v, wte + size_t(tokens[row]) * C + c);
    if (pos) {
        float p[N];
        load_floats(p, pos + (position ? size_t(position[row]) : row % T) * C + c);
#pragma unroll
        for (int k = 0; k < N; k++) v[k] += p[k];
    }
    store_floats(x + i, v);
}

// One thread: one element of dpos, summed over the batch in order. Reads dx once.
__global__ void __launch_bounds__(BLOCK) position_backward_kernel(float* dpos, const floatX* dx, int B, int T, int C, bool accumulate) {
    size_t i = size_t(blockIdx.x) * BLOCK + threadIdx.x, n = size_t(T) * C;
    if (i >= n) return;
    float sum = accumulate ? dpos[i] : 0.0f;
    for (int b = 0; b < B; b++) sum += float(dx[b * n + i]);
    dpos[i] = sum;
}

// Grid: (chunks of the sorted list, tiles of 256 columns); one thread a column. A run of equal tokens is added to dwte by the
// chunk in which it begins; what a chunk holds of a run that began earlier goes to partial[chunk] instead.
// Bytes: dx read once, two dwte rows (read, write) a distinct token: memory-bound.
__global__ void __launch_bounds__(BLOCK)
embedding_backward_kernel(float* dwte, float* partial, const floatX* dx, const TokenRow* sorted, int rows, int C, int chunk_rows) {
    int c = int(blockIdx.y) * BLOCK + int(threadIdx.x);
    if (c >= C) return;
    int begin = int(blockIdx.x) * chunk_rows, end = min(rows, begin + chunk_rows);
    bool continued = begin > 0 && sorted[begin - 1].token == sorted[begin].token;
    float sum = 0;
    for (int i = begin; i < end; i++) {
        const TokenRow at = sorted[i];
        sum += float(dx[size_t(at.row) * C + c]);
        if (i + 1 < end && sorted[i + 1].token == at.token) continue;
        if (continued) partial[size_t(blockIdx.x) * C + c] = sum;
        else dwte[size_t(at.token) * C + c] += sum;
        continued = false;
        sum = 0;
    }
}

// Grid: as above. The chunk in which a run began adds the parts that later chunks hold of it, in order.
__global__ void __launch_bounds__(BLOCK)
embedding_backward_finish_kernel(float* dwte, const float* partial, const TokenRow* sorted, int rows, int C, int chunk_rows) {
    int c = int(blockIdx.y) * BLOCK + int(threadIdx.x);
    int begin = int(blockIdx.x) * chunk_rows, end = min(rows, begin + chunk_rows);
    int token = sorted[end - 1].token;
    if (c >= C || end == rows || sorted[end].token != token) return;                    // no run goes on behind this chunk
    if (begin > 0 && sorted[begin - 1].token == token) return;                          // it began before this chunk
    float sum = 0;
    for (int chunk = int(blockIdx.x) + 1; chunk * chunk_rows < rows && sorted[chunk * chunk_rows].token == token; chunk++)
        sum += partial[size_t(chunk) * C + c];
    dwte[size_t(token) * C + c] += sum;
}

// The rows by (token, row). Host memory, kept from call to call.
const std::vector<TokenRow>& sort_by_token(const int* tokens, int rows) {
    static std::vector<TokenRow> sorted;
    static std::vector<int> place;                           // where the next row of each token goes
    int last = 0;
    for (int r = 0; r < rows; r++) {
        ensure(tokens[r] >= 0, "embedding: token %d in row %d", tokens[r], r);
        last = std::max(last, tokens[r]);
    }
    place.assign(size_t(last) + 2, 0);
    for (int r = 0; r < rows; r++) place[size_t(tokens[r]) + 1]++;
    for (size_t v = 1; v < place.size(); v++) place[v] += place[v - 1];
    sorted.resize(size_t(rows));
    for (int r = 0; r < rows; r++) sorted[size_t(place[size_t(tokens[r])]++)] = {tokens[r], r};
    return sorted;
}
}  // namespace

void embedding_forward(floatX* x, const int* tokens, const floatX* wte, const floatX* pos, int B, int T, int C, const int* position) {
    size_t elements = size_t(B) * T * C;
    if (elements == 0) return;
    bool pack = C % PACK == 0 && all_aligned16(x, wte, pos);
    auto kernel = pack ? embedding_forward_kernel<PACK> : embedding_forward_kernel<1>;
    launch(kernel, grid_size(elements, size_t(BLOCK) * (pack ? PACK : 1)), dim3(BLOCK), 0)(x, tokens, wte, pos, position, elements, T, C);
}

void embedding_backward(floatM* dwte, floatM* dpos, const floatX* dx, const int* tokens, int B, int T, int C, bool accumulate) {
    size_t rows = size_t(B) * T;
    if (rows == 0) return;
    ensure(rows < (size_t(1) << 30), "embedding: %zu rows in one pass are too many; use a smaller --micro-batch", rows);
    if (dpos) launch(position_backward_kernel, grid_size(size_t(T) * C, BLOCK), dim3(BLOCK), 0)(dpos, dx, B, T, C, accumulate);
    // Chunks of 64 rows, longer where their partial sums would not fit in the scratch memory.
    size_t sorted_bytes = round_up(rows * sizeof(TokenRow), 256);
    ensure(sorted_bytes + size_t(C) * sizeof(float) * 2 <= SCRATCH_BYTES,
           "embedding: %zu rows in one pass are too many; use a smaller --micro-batch", rows);
    size_t most_chunks = (SCRATCH_BYTES - sorted_bytes) / (size_t(C) * sizeof(float));
    size_t chunk_rows = std::max(size_t(64), ceil_div(rows, most_chunks));
    unsigned chunks = grid_size(rows, chunk_rows);
    char* scratch = static_cast<char*>(device_scratch(sorted_bytes + size_t(chunks) * C * sizeof(float)));
    TokenRow* sorted = reinterpret_cast<TokenRow*>(scratch);
    float* partial = reinterpret_cast<float*>(scratch + sorted_bytes);
    copy_to_device(sorted, sort_by_token(tokens, int(rows)).data(), rows * sizeof(TokenRow));
    dim3 grid(chunks, grid_size(size_t(C), BLOCK));
    launch(embedding_backward_kernel, grid, dim3(BLOCK), 0)(dwte, partial, dx, sorted, int(rows), C, int(chunk_rows));
    launch(embedding_backward_finish_kernel, grid, dim3(BLOCK), 0)(dwte, partial, sorted, int(rows), C, int(chunk_rows));
}
