// The emulator's own tests (BACKEND=emu): what it computes, and that it finds planted bugs. Every test runs in three orders.
#include "layers/cuda_common.cuh"

#include <doctest/doctest.h>

#include <functional>

#include "runtime/device/rng.h"

namespace {
void in_every_order(const std::function<void()>& test) {
    emu::Options saved = emu::options();
    for (emu::Order order : {emu::Order::forward, emu::Order::reverse, emu::Order::random}) {
        emu::options().order = order;
        INFO("order ", order == emu::Order::forward ? "forward" : order == emu::Order::reverse ? "reverse" : "random");
        test();
    }
    emu::options() = saved;
}

// The message of the Error that a launch must end in.
std::string error_of(const std::function<void()>& run) {
    try {
        run();
    } catch (const Error& e) {
        return e.what();
    }
    return "no error";
}
#define CHECK_ERROR(part, run) CHECK_MESSAGE(error_of(run).find(part) != std::string::npos, error_of(run))

bool has_nan(const std::vector<float>& v) {
    for (float x : v) if (std::isnan(x)) return true;
    return false;
}
struct Aligned {                                             // `n` elements of T at a 256-byte address
    template <class T> struct Array {
        std::vector<T> memory;
        T* p;
        explicit Array(size_t n) : memory(n + 256 / sizeof(T)), p(memory.data()) {
            while (reinterpret_cast<uintptr_t>(p) % 256) p++;
        }
    };
};

// ---------------------------------------------------------------------------------------------- kernels that are right

__global__ void indices_kernel(int* out) {
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = int(block * 1000 + thread);
}

__global__ void shuffles_kernel(int* out) {
    int lane = int(threadIdx.x);
    int results[] = {__shfl_sync(ALL_LANES, lane, 5),       __shfl_sync(ALL_LANES, lane, 9, 8),   __shfl_up_sync(ALL_LANES, lane, 3),
                     __shfl_up_sync(ALL_LANES, lane, 3, 8), __shfl_down_sync(ALL_LANES, lane, 2), __shfl_down_sync(ALL_LANES, lane, 2, 4),
                     __shfl_xor_sync(ALL_LANES, lane, 17),  __shfl_xor_sync(ALL_LANES, lane, 1, 2)};
    for (int i = 0; i < 8; i++) out[lane * 8 + i] = results[i];
}

__global__ void votes_kernel(unsigned* out) {
    int lane = int(threadIdx.x % WARP);
    unsigned ballot = __ballot_sync(ALL_LANES, lane & 1);
    bool any = __any_sync(ALL_LANES, threadIdx.x == 40), all = __all_sync(ALL_LANES, lane < 32);
    int few = __syncthreads_count(threadIdx.x < 5), some = __syncthreads_or(threadIdx.x == 63), every = __syncthreads_and(threadIdx.x < 63);
    out[threadIdx.x] = ballot == 0xaaaaaaaau && any == (threadIdx.x >= 32) && all && few == 5 && some && !every;
    // half a warp may meet alone, when its mask says so
    if (lane < 16) out[threadIdx.x] += __ballot_sync(0xffffu, 1) == 0xffffu;
}

// Sum over the block in shared memory; `barrier` false plants the bug.
__global__ void block_sum_kernel(float* out, const float* in, bool barrier) {
    __shared__ float part[8];
    float v = warp_sum(in[blockIdx.x * 256 + threadIdx.x]);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = v;
    if (barrier) __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0;
        for (int w = 0; w < 8; w++) total += part[w];
        out[blockIdx.x] = total;
    }
}

// d (16, 8) = a (16, 16) b (8, 16)^T, or b (16, 8) when transposed, by one warp.
__global__ void mma_kernel(float* d, const bf16* a, const bf16* b, bool transposed) {
    int lane = int(threadIdx.x), g = lane / 4, t = lane % 4;
    bf16 *tile_a = reinterpret_cast<bf16*>(dyn_smem), *tile_b = tile_a + 256;
    for (int i = lane; i < 256; i += WARP) tile_a[i] = a[i];
    for (int i = lane; i < 128; i += WARP) tile_b[i] = b[i];
    __syncwarp();
    uint32_t fa[4], fb[4];
    float sum[4] = {};
    ldmatrix_x4(fa, tile_a + lane % 16 * 16 + lane / 16 * 8);
    if (transposed) ldmatrix_x4_trans(fb, tile_b + lane % 16 * 8);
    else ldmatrix_x4(fb, tile_b + lane % 8 * 16 + lane / 8 % 2 * 8);
    mma_bf16_16816(sum, fa, fb[0], fb[1]);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

// Two stages of cp.async; `waits` false plants the bug. The last chunk is invalid: zeros.
__global__ void async_copy_kernel(float* out, const float* in, int chunks, bool waits) {
    float* stage = reinterpret_cast<float*>(dyn_smem);       // (2, 128)
    cp_async16(stage + threadIdx.x * 4, in + threadIdx.x * 4, chunks > 0);
    cp_async_commit();
    for (int k = 0; k <= chunks; k++) {
        if (k < chunks) cp_async16(stage + (k + 1) % 2 * 128 + threadIdx.x * 4, in + (k + 1) * 128 + threadIdx.x * 4, k + 1 < chunks);
        cp_async_commit();
        if (waits) cp_async_wait<1>();
        __syncwarp();
        for (int i = 0; i < 4; i++) out[k * 128 + i * WARP + threadIdx.x] = stage[k % 2 * 128 + i * WARP + threadIdx.x];
        __syncwarp();
    }
}

// Warp 0 makes, warp 1 uses, through named barriers: 1 "full", 2 "empty".
__global__ void producer_consumer_kernel(float* out, int rounds) {
    __shared__ float slot[32];
    int lane = int(threadIdx.x % WARP);
    for (int r = 0; r < rounds; r++) {
        if (threadIdx.x < WARP) {
            if (r > 0) named_barrier_sync<2>(64);
            slot[lane] = float(r * 100 + lane);
            named_barrier_arrive<1>(64);
        } else {
            named_barrier_sync<1>(64);
            out[r * 32 + lane] = slot[31 - lane];
            if (r + 1 < rounds) named_barrier_arrive<2>(64);
        }
    }
}

__global__ void order_kernel(int* out, int* next) { out[atomicAdd(next, 1)] = int(threadIdx.x); }

// Stores a 64 x 64 bf16 tile by rows and reads it by ldmatrix, chunks XORed with row >> shift: 0 is right, 6 is no swizzle.
__global__ void tile_kernel(float* out, int store_shift, int load_shift) {
    char* tile = reinterpret_cast<char*>(dyn_smem);          // rows of 128 bytes: eight 16-byte chunks
    auto chunk = [&](int row, int c, int shift) { return tile + row * 128 + (c ^ (row >> shift) % 8) * 16; };
    int lane = int(threadIdx.x);
    for (int c = 0; c < 8; c++)
        for (int row = lane; row < 64; row += WARP) store16(chunk(row, c, store_shift), make_uint4(unsigned(row * c), 0, 0, 0));
    __syncwarp();
    uint32_t r[4], sum = 0;
    for (int k = 0; k < 4; k++) {
        ldmatrix_x4(r, chunk(lane % 16, 2 * k + lane / 16, load_shift));
        sum += (r[0] + 3 * r[1] + 5 * r[2] + 7 * r[3]) * unsigned(k + 1);
    }
    out[lane] = float(sum);
}

// ---------------------------------------------------------------------------------------------- kernels with a planted bug

__global__ void exits_before_barrier_kernel() {
    if (threadIdx.x >= 40) return;
    __syncthreads();
}
__global__ void two_barriers_kernel() {
    if (threadIdx.x < 16) __syncthreads();
    else
        __syncthreads();
}
__global__ void shuffle_after_exit_kernel(int* out) {
    if (threadIdx.x % WARP >= 16) return;
    out[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1, 1);
}
__global__ void shuffle_in_a_branch_kernel(int* out) {
    if (threadIdx.x < 8) out[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1, 1);
    else __syncwarp();
}
__global__ void shuffle_from_outside_kernel(int* out) {
    if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xffu, 1, 20);
}
__global__ void not_in_own_mask_kernel() { __syncwarp(0xffffu); }
[[maybe_unused]] __global__ void overrun_kernel() { reinterpret_cast<volatile float*>(dyn_smem)[threadIdx.x + 1] = 1.0f; }
[[maybe_unused]] __global__ void block_collision_kernel(float* out) { *out = float(blockIdx.x); }
[[maybe_unused]] __global__ void static_overrun_kernel(float* out, int shift) {
    __shared__ float fixed[32];
    fixed[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 31) *out = fixed[threadIdx.x + unsigned(shift) - 16];
}
[[maybe_unused]] __global__ void misaligned_load_kernel(float* in) { in[8] = load16<float4>(in + 1).x; }
__global__ void misaligned_kernel(float* in) {
    uint32_t r[4];
    if (in) cp_async16(dyn_smem, in + 1);
    else ldmatrix_x4(r, dyn_smem + 8);
}
__global__ void different_counts_kernel() { named_barrier_sync<3>(threadIdx.x < 32 ? 64 : 32); }
__global__ void unwritten_shared_kernel(float* out) {
    __shared__ float fixed[32];
    out += blockIdx.x * 64;
    out[threadIdx.x] = fixed[threadIdx.x];
    out[32 + threadIdx.x] = reinterpret_cast<float*>(dyn_smem)[threadIdx.x];
    fixed[threadIdx.x] = 1;                                  // must not reach the next block
    reinterpret_cast<float*>(dyn_smem)[threadIdx.x] = 1;
}
}  // namespace

TEST_CASE("emu: indices of grids and blocks") {
    in_every_order([] {
        std::vector<int> out(2 * 3 * 2 * 4 * 5 * 3, -1);
        launch(indices_kernel, dim3(2, 3, 2), dim3(4, 5, 3), 0)(out.data());
        for (int i = 0; i < int(out.size()); i++) REQUIRE(out[size_t(i)] == i / 60 * 1000 + i % 60);
    });
}

TEST_CASE("emu: shuffles and votes") {
    in_every_order([] {
        std::vector<int> s(32 * 8);
        launch(shuffles_kernel, 1, 32, 0)(s.data());
        for (int l = 0; l < 32; l++) {
            int want[] = {5, l / 8 * 8 + 1, l < 3 ? l : l - 3, l % 8 < 3 ? l : l - 3, l > 29 ? l : l + 2,
                          l % 4 > 1 ? l : l + 2, l ^ 17, l ^ 1};
            for (int i = 0; i < 8; i++) REQUIRE(s[size_t(l * 8 + i)] == want[i]);
        }
        std::vector<unsigned> v(64);
        launch(votes_kernel, 1, 64, 0)(v.data());
        for (int i = 0; i < 64; i++) REQUIRE(v[size_t(i)] == (i % 32 < 16 ? 2 : 1));
    });
}

TEST_CASE("emu: mma and ldmatrix against a plain product") {
    Aligned::Array<bf16> a(256), b(128), b_transposed(128);
    for (size_t i = 0; i < 256; i++) a.p[i] = bf16(philox_normal(1, 2, i));
    for (size_t n = 0; n < 8; n++)
        for (size_t k = 0; k < 16; k++) b.p[n * 16 + k] = b_transposed.p[k * 8 + n] = bf16(philox_normal(1, 3, n * 16 + k));
    in_every_order([&] {
        for (bool transposed : {false, true}) {
            std::vector<float> d(128);
            launch(mma_kernel, 1, 32, 768)(d.data(), a.p, transposed ? b_transposed.p : b.p, transposed);
            for (size_t r = 0; r < 16; r++)
                for (size_t n = 0; n < 8; n++) {
                    double want = 0;
                    for (size_t k = 0; k < 16; k++) want += double(float(a.p[r * 16 + k])) * double(float(b.p[n * 16 + k]));
                    REQUIRE(std::fabs(double(d[r * 8 + n]) - want) < 1e-5);
                }
        }
    });
}

TEST_CASE("emu: named barriers hand over between warps") {
    in_every_order([] {
        std::vector<float> out(5 * 32);
        launch(producer_consumer_kernel, 1, 64, 0)(out.data(), 5);
        for (int i = 0; i < 5 * 32; i++) REQUIRE(out[size_t(i)] == float(i / 32 * 100 + 31 - i % 32));
    });
}

TEST_CASE("emu: the order is a function of the seed") {
    auto run = [](emu::Order order, uint64_t seed) {
        emu::Options saved = emu::options();
        emu::options().order = order;
        emu::options().seed = seed;
        std::vector<int> out(96);
        int next = 0;
        launch(order_kernel, 1, 96, 0)(out.data(), &next);
        emu::options() = saved;
        return out;
    };
    std::vector<int> forward(96), reverse(96);
    for (int i = 0; i < 96; i++) forward[size_t(i)] = i, reverse[size_t(i)] = 95 - i;
    CHECK(run(emu::Order::forward, 1) == forward);
    CHECK(run(emu::Order::reverse, 1) == reverse);
    CHECK(run(emu::Order::random, 1) == run(emu::Order::random, 1));
    CHECK(run(emu::Order::random, 1) != run(emu::Order::random, 2));
}

TEST_CASE("emu: a missing barrier gives wrong numbers in some order, the right kernel none") {
    std::vector<float> in(3 * 256, 1.0f), doubled(3 * 256, 2.0f);
    int wrong = 0;
    in_every_order([&] {
        std::vector<float> out(3);
        launch(block_sum_kernel, 3, 256, 0)(out.data(), in.data(), true);
        for (float v : out) REQUIRE(v == 256);
#if !defined(EMU_TSAN)                                       // TSan reports this race: see the planted bugs below
        launch(block_sum_kernel, 3, 256, 0)(out.data(), doubled.data(), false);
        for (float v : out) wrong += v != 512;
#else
        wrong++;
#endif
    });
    CHECK(wrong > 0);
}

TEST_CASE("emu: cp.async arrives at its wait, not before") {
    Aligned::Array<float> in(4 * 128);
    for (int i = 0; i < 4 * 128; i++) in.p[i] = float(i + 1);
    in_every_order([&] {
        std::vector<float> out(5 * 128);
        launch(async_copy_kernel, 1, 32, 1024)(out.data(), in.p, 4, true);
        for (int i = 0; i < 5 * 128; i++) REQUIRE(out[size_t(i)] == (i < 4 * 128 ? float(i + 1) : 0.0f));
        launch(async_copy_kernel, 1, 32, 1024)(out.data(), in.p, 4, false);
        CHECK(has_nan(out));
    });
}

TEST_CASE("emu: bank conflicts of ldmatrix and of 16-byte stores are counted; a wrong swizzle shows, in them or in the numbers") {
    in_every_order([] {
        auto run = [](int store_shift, int load_shift) {
            std::vector<float> out(32);
            emu::stats() = {};
            launch(tile_kernel, 1, 32, 64 * 128)(out.data(), store_shift, load_shift);
            return out;
        };
        const std::vector<float> right = run(0, 0);
        CHECK((emu::stats().ldmatrix_phases == 16 && emu::stats().ldmatrix_conflicts == 0));
        CHECK((emu::stats().access_phases == 64 && emu::stats().access_conflicts == 0));
        CHECK(run(6, 6) == right);
        CHECK(emu::stats().ldmatrix_conflicts == 16 * 7);    // eight rows in one bank group: eight cycles instead of one
        CHECK(emu::stats().access_conflicts == 64 * 7);
        CHECK(run(1, 1) == right);                           // consistent, but of too few rows
        CHECK(emu::stats().ldmatrix_conflicts == 16);
        CHECK(run(0, 1) != right);                           // the reader's differs from the writer's
    });
}

TEST_CASE("emu: shared memory starts as NaN in every block") {
    in_every_order([] {
        std::vector<float> out(5 * 64);
        launch(unwritten_shared_kernel, 5, 32, 128)(out.data());
        for (size_t i = 0; i < out.size(); i++) {
#ifdef EMU_ASAN
            if (i % 64 < 32) continue;                            // static arrays are plain statics there
#endif
            REQUIRE(std::isnan(out[i]));
        }
    });
}

TEST_CASE("emu: divergence, exits and missing lanes are errors that say where") {
    int out[64];
    in_every_order([&] {
        CHECK_ERROR("have exited", [] { launch(exits_before_barrier_kernel, 1, 128, 0)(); });
        CHECK_ERROR("__syncthreads at", [] { launch(exits_before_barrier_kernel, 1, 128, 0)(); });
        CHECK_ERROR("divergent barrier", [] { launch(two_barriers_kernel, 1, 32, 0)(); });
        CHECK_ERROR("exit", [&] { launch(shuffle_after_exit_kernel, 1, 64, 0)(out); });
        CHECK_ERROR("but lanes", [&] { launch(shuffle_in_a_branch_kernel, 1, 32, 0)(out); });
        CHECK_ERROR("takes no part", [&] { launch(shuffle_from_outside_kernel, 1, 32, 0)(out); });
        CHECK_ERROR("not in its own mask", [] { launch(not_in_own_mask_kernel, 1, 32, 0)(); });
        CHECK_ERROR("with 64 and with 32 threads", [] {
            emu::options().order = emu::Order::forward;
            launch(different_counts_kernel, 1, 64, 0)();
        });
    });
    std::string message = error_of([] { launch(two_barriers_kernel, dim3(1, 3), 32, 0)(); });
    CHECK_MESSAGE(message.find("block (0,") != std::string::npos, message);
    CHECK_MESSAGE(message.find("thread (") != std::string::npos, message);
    CHECK_MESSAGE(message.find("test_emu.cpp:") != std::string::npos, message);
    std::vector<float> in(256, 1.0f), sum(1);                // and the emulator goes on
    launch(block_sum_kernel, 1, 256, 0)(sum.data(), in.data(), true);
    CHECK(sum[0] == 256);
}

TEST_CASE("emu: addresses out of bounds or misaligned") {
    Aligned::Array<float> in(64);
    in_every_order([&] {
#if !defined(EMU_ASAN)                                       // ASan stops the program at the write itself, as it should
        CHECK_ERROR("wrote beyond its 128 bytes", [] { launch(overrun_kernel, 1, 32, 128)(); });
#endif
        CHECK_ERROR("ldmatrix.x4 at", [] { launch(misaligned_kernel, 1, 32, 1024)(nullptr); });
        CHECK_ERROR("cp.async at", [&] { launch(misaligned_kernel, 1, 32, 1024)(in.p); });
    });
}

TEST_CASE("emu: launches that a GPU refuses") {
    CHECK_ERROR("invalid launch", [] { launch(two_barriers_kernel, 1, 2048, 0)(); });
    CHECK_ERROR("invalid launch", [] { launch(two_barriers_kernel, 0, 32, 0)(); });
    CHECK_ERROR("invalid launch", [] { launch(two_barriers_kernel, dim3(1, 70000), 32, 0)(); });
    CHECK_ERROR("invalid launch", [] { launch(two_barriers_kernel, 1, 32, 228 * 1024)(); });
    CHECK_ERROR("invalid launch", [] { launch(two_barriers_kernel, 1, dim3(1, 1, 128), 0)(); });
}

#if defined(EMU_TSAN) || defined(EMU_ASAN)
// What a sanitizer finds ends the program or marks it as failed, so these bugs run in a child: this program again, asked for one case.
#if defined(EMU_TSAN)
TEST_CASE("planted: a barrier is missing" * doctest::skip()) {
    std::vector<float> in(256, 1.0f), out(1);
    launch(block_sum_kernel, 1, 256, 0)(out.data(), in.data(), false);
}
TEST_CASE("planted: two blocks write one number" * doctest::skip()) {
    std::vector<float> out(1);
    launch(block_collision_kernel, 64, 32, 0)(out.data());
}
#else
TEST_CASE("planted: a write beyond dynamic shared memory" * doctest::skip()) { launch(overrun_kernel, 1, 32, 128)(); }
alignas(16) float planted_array[64];
TEST_CASE("planted: a read beyond a static shared array" * doctest::skip()) { launch(static_overrun_kernel, 1, 32, 0)(planted_array, 32); }
TEST_CASE("planted: a 16-byte load at an odd address" * doctest::skip()) { launch(misaligned_load_kernel, 1, 1, 0)(planted_array); }
#endif
TEST_CASE("planted: nothing" * doctest::skip()) {
    std::vector<float> in(256, 1.0f), out(1);
    launch(block_sum_kernel, 1, 256, 0)(out.data(), in.data(), true);
    CHECK(out[0] == 256);
}

TEST_CASE("emu: the sanitizer reports planted bugs, and only these") {
    auto report_of = [](const char* name) {
        char program[4096];
        ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
        REQUIRE(n > 0);
        program[n] = 0;
        FILE* child = popen(format("'%s' --no-skip -tc='planted: %s' 2>&1", program, name).c_str(), "r");
        std::string text;
        for (int c; (c = fgetc(child)) != EOF;) text += char(c);
        return std::pair{pclose(child), text};
    };
    struct { const char *name, *report; } bugs[] = {
#if defined(EMU_TSAN)
        {"a barrier is missing", "ThreadSanitizer: data race"},
        {"two blocks write one number", "ThreadSanitizer: data race"},
#else
        {"a write beyond dynamic shared memory", "AddressSanitizer: heap-buffer-overflow"},
        {"a read beyond a static shared array", "runtime error: index 47 out of bounds"},
        {"a 16-byte load at an odd address", "misaligned address"},
#endif
        {"nothing", "1 passed"}};
    for (auto& bug : bugs) {
        const std::pair<int, std::string> result = report_of(bug.name);      // its exit status, what it printed
        CHECK_MESSAGE((result.first != 0) == (std::string(bug.name) != "nothing"), result.second);
        CHECK_MESSAGE(result.second.find(bug.report) != std::string::npos, result.second);
    }
}
#endif

TEST_CASE("bf16 rounds to nearest even and keeps NaN") {
    for (uint32_t high = 0; high < 0x10000; high++) {
        float exact = bf16_bits_to_float(uint16_t(high));
        if (std::isnan(exact)) {
            REQUIRE(std::isnan(float(bf16(exact))));
            continue;
        }
        REQUIRE(bf16(exact).bits == high);
        auto with_low = [&](uint32_t low) {
            uint32_t u = high << 16 | low;
            float f;
            memcpy(&f, &u, 4);
            return bf16(f).bits;
        };
        if ((high & 0x7f80) == 0x7f80) continue;             // infinities have no neighbours
        REQUIRE(with_low(0x7fff) == high);
        REQUIRE(with_low(0x8001) == high + 1);
        REQUIRE(with_low(0x8000) == high + high % 2);        // halfway: to even
    }
    uint32_t signalling = 0x7f800001;                        // a NaN whose payload lies in the half that is cut off
    float f;
    memcpy(&f, &signalling, 4);
    CHECK(std::isnan(float(bf16(f))));
    CHECK(float(bf16(1e39)) == INFINITY);
    CHECK(double(bf16(3)) == 3.0);
}
