// Communication (runtime/comm/comm.h), the same cases on every rank; run under mpirun with any number of processes, and without it.
// The oracle is a recursive sum written apart from tree_sum.h. test/system/comm_main.cpp adds the ranks'
// failures; test/system/test_mpi.sh runs it.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include "runtime/device/backend.h"
#include "runtime/device/bf16.h"
#include "runtime/comm/comm.h"
#include "runtime/comm/tree_sum.h"
#include "runtime/run/error.h"

// A value that depends on rank (or leaf) and index only, of sizes so different that the order of additions shows in the result.
template <class T> static T value(int rank, size_t i) {
    uint64_t h = (uint64_t(rank) + 1) * 0x9e3779b97f4a7c15u ^ (i + 7) * 0xbf58476d1ce4e5b9u;
    h ^= h >> 29, h *= 0x94d049bb133111ebu, h ^= h >> 32;
    return T(std::ldexp(double(h % 2000003) / 1000001.0 - 1.0, int(h >> 40 & 15)));
}
// ((0+1)+(2+3))+...: the left half is the largest power of two below the count.
template <class T, class Leaf> static T recursive_sum(int begin, int end, const Leaf& leaf) {
    if (end - begin == 1) return leaf(begin);
    int half = 1;
    while (half * 2 < end - begin) half *= 2;
    return recursive_sum<T>(begin, begin + half, leaf) + recursive_sum<T>(begin + half, end, leaf);
}
template <class T> static T sum_of_ranks(size_t i) {
    return recursive_sum<T>(0, comm_size(), [&](int r) { return value<T>(r, i); });
}
// Rounding of another order of additions: allowed only where comm_sums_by_tree() is false (NCCL).
template <class T> static bool same_sum(T got, T expected) {
    if (comm_sums_by_tree()) return memcmp(&got, &expected, sizeof(T)) == 0;
    const double scale = 32768.0 * comm_size() * (sizeof(T) == 4 ? 1.2e-7 : 2.3e-16);        // sum of magnitudes times the unit roundoff
    return std::abs(double(got) - double(expected)) <= scale;
}
template <class T> static void fill(std::vector<T>& v, int rank) {
    for (size_t i = 0; i < v.size(); i++) v[i] = value<T>(rank, i);
}
// A tensor in device memory with its copy on the host. upload and download are ordered with the collectives by the compute stream alone.
template <class T> struct Tensor {
    std::vector<T> host;
    T* device;
    explicit Tensor(size_t n) : host(n), device(device_alloc_array<T>(n)) {}
    ~Tensor() { device_free(device); }
    Tensor(const Tensor&) = delete;
    void upload() { copy_to_device(device, host.data(), host.size() * sizeof(T)); }
    void download() { copy_to_host(host.data(), device, host.size() * sizeof(T)); }
};
static void finish(CommRequest request) {
    comm_wait(request);
    ensure(request == -1, "comm_wait leaves %d", request);
}

TEST_CASE("tree_sum: any number of parts, blocks, in place") {
    for (int n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 31, 64})
        for (size_t count : {size_t(0), size_t(1), size_t(511), size_t(512), size_t(1300)}) {
            std::vector<std::vector<float>> parts(static_cast<size_t>(n), std::vector<float>(count));
            for (int k = 0; k < n; k++) fill(parts[size_t(k)], k);
            const int own = n / 2;                               // the result takes the place of one part
            std::vector<const float*> at;
            for (auto& part : parts) at.push_back(part.data());
            tree_sum(parts[size_t(own)].data(), at.data(), n, count);
            size_t wrong = 0;
            for (size_t i = 0; i < count; i++)
                wrong += parts[size_t(own)][i] != recursive_sum<float>(0, n, [&](int k) { return value<float>(k, i); });
            CHECK_MESSAGE(wrong == 0, n << " parts of " << count);
        }
}

TEST_CASE("who: ranks are numbered, local ranks fit, threads are at least one") {
    CHECK(comm_rank() >= 0);
    CHECK(comm_rank() < comm_size());
    CHECK(comm_local_rank() < comm_local_size());
    CHECK(comm_local_size() <= comm_size());
    CHECK(comm_threads() >= 1);
    std::vector<double> seen(size_t(comm_size()), 0.0);
    seen[size_t(comm_rank())] = 1;
    comm_sum(seen.data(), seen.size(), "ranks");
    for (double count : seen) CHECK(count == 1);
    CHECK(std::string(comm_name()) == (comm_size() == 1 ? "single process" : comm_sums_by_tree() ? "MPI" : "NCCL"));
}

template <class T> static void reduce_scatter_case(size_t piece) {
    const size_t size = size_t(comm_size()), rank = size_t(comm_rank()), n = piece * size;
    Tensor<T> tensor(n + 2);                                     // a guard on each side
    std::vector<T>& data = tensor.host;
    fill(data, comm_rank());
    const T before = data[0], after = data[n + 1];
    tensor.upload();
    finish(comm_reduce_scatter(tensor.device + 1, piece, number_of<T>(), "test"));
    tensor.download();
    size_t wrong = 0;
    for (size_t i = rank * piece + 1; i <= (rank + 1) * piece; i++) wrong += !same_sum(data[i], sum_of_ranks<T>(i));
    CHECK_MESSAGE(wrong == 0, "reduce-scatter, piece " << piece << ", first " << data[rank * piece + 1] << " "
                                                       << sum_of_ranks<T>(rank * piece + 1));
    CHECK(data[0] == before);
    CHECK(data[n + 1] == after);
}
template <class T> static void all_gather_case(size_t piece) {
    const size_t size = size_t(comm_size()), n = piece * size;
    Tensor<T> tensor(n + 1);
    std::vector<T>& data = tensor.host;
    for (size_t i = 0; i < piece; i++) data[size_t(comm_rank()) * piece + i] = value<T>(comm_rank(), i);
    tensor.upload();
    finish(comm_all_gather(tensor.device, piece, number_of<T>(), "test"));
    tensor.download();
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        const T expected = value<T>(int(i / piece), i % piece);
        wrong += memcmp(&data[i], &expected, sizeof(T)) != 0;
    }
    CHECK_MESSAGE(wrong == 0, "all-gather, piece " << piece);
    CHECK(double(data[n]) == 0);
}
template <class T> static void all_reduce_case(size_t n) {
    Tensor<T> tensor(n + 1);
    std::vector<T>& data = tensor.host;
    fill(data, comm_rank());
    tensor.upload();
    finish(comm_all_reduce(tensor.device, n, number_of<T>(), "test"));
    tensor.download();
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) wrong += !same_sum(data[i], sum_of_ranks<T>(i));
    CHECK_MESSAGE(wrong == 0, "all-reduce of " << n);
    CHECK(data[n] == value<T>(comm_rank(), n));
    // The same bits everywhere, whatever the order was.
    double hash[2] = {0, 0};
    for (size_t i = 0; i < n; i++) hash[0] += double(data[i]) * double(i % 97 + 1);
    std::vector<double> all(size_t(comm_size()), 0.0);
    all[size_t(comm_rank())] = hash[0];
    comm_sum(all.data(), all.size(), "hashes");
    for (double other : all) CHECK(other == hash[0]);
}
TEST_CASE("tensors: reduce-scatter, all-gather, all-reduce against the oracle") {
    // 131072 floats are one message
    for (size_t piece : {size_t(1), size_t(3), size_t(1000), size_t(131071), size_t(131072), size_t(131073), size_t(700001)}) {
        reduce_scatter_case<float>(piece);
        all_gather_case<float>(piece);
    }
    for (size_t piece : {size_t(1), size_t(65537), size_t(200001)}) reduce_scatter_case<double>(piece);
    for (size_t piece : {size_t(1), size_t(777), size_t(2500001)}) all_gather_case<bf16>(piece);
    all_gather_case<double>(5001);
    for (size_t n : {size_t(0), size_t(1), size_t(2), size_t(3), size_t(5), size_t(1023), size_t(400003)}) all_reduce_case<float>(n);
    for (size_t n : {size_t(1), size_t(7), size_t(100003)}) all_reduce_case<double>(n);
}

// 8 leaves on 1, 2, 4 or 8 ranks: each rank adds its own aligned subtree, the ranks' sums give the same bits as one rank with all 8.
template <class T> static void same_bits_case() {
    constexpr int LEAVES = 8;
    constexpr size_t PIECE = 3000;
    const int size = comm_size(), mine = LEAVES / size, first = comm_rank() * mine;
    const size_t n = PIECE * size_t(size);
    Tensor<T> reduced(n), reduce_scattered(n);
    std::vector<T>&data = reduced.host, &scattered = reduce_scattered.host;
    size_t order_matters = 0, wrong = 0;
    for (size_t i = 0; i < n; i++) data[i] = recursive_sum<T>(first, first + mine, [&](int leaf) { return value<T>(leaf, i % PIECE); });
    scattered = data;
    auto all = [&](size_t i) { return recursive_sum<T>(0, LEAVES, [&](int leaf) { return value<T>(leaf, i % PIECE); }); };
    reduced.upload();
    reduce_scattered.upload();
    finish(comm_all_reduce(reduced.device, n, number_of<T>(), "leaves"));
    finish(comm_reduce_scatter(reduce_scattered.device, PIECE, number_of<T>(), "leaves"));
    reduced.download();
    reduce_scattered.download();
    for (size_t i = 0; i < n; i++) {
        const T expected = all(i);
        T in_order = 0;
        for (int leaf = 0; leaf < LEAVES; leaf++) in_order += value<T>(leaf, i % PIECE);
        order_matters += in_order != expected;
        wrong += data[i] != expected || (i / PIECE == size_t(comm_rank()) && scattered[i] != expected);
    }
    CHECK(wrong == 0);
    CHECK(order_matters > PIECE / 10);                           // else the check above would show nothing
}
TEST_CASE("8 leaves give the same bits on 1, 2, 4 and 8 ranks") {
    if (8 % comm_size() || !comm_sums_by_tree()) return;
    same_bits_case<float>();
    same_bits_case<double>();
    std::vector<double> sums(100);
    for (size_t i = 0; i < sums.size(); i++)
        sums[i] = recursive_sum<double>(comm_rank() * 8 / comm_size(), (comm_rank() + 1) * 8 / comm_size(),
                                        [&](int leaf) { return value<double>(leaf, i); });
    comm_sum(sums.data(), sums.size(), "leaves");
    size_t wrong = 0;
    for (size_t i = 0; i < sums.size(); i++)
        wrong += sums[i] != recursive_sum<double>(0, 8, [&](int leaf) { return value<double>(leaf, i); });
    CHECK(wrong == 0);
}

TEST_CASE("many requests at once, waited for in another order, while ranks come late") {
    const size_t size = size_t(comm_size()), rank = size_t(comm_rank());
    constexpr size_t COUNT = 12;
    CommRequest requests[COUNT];
    for (int round = 0; round < 3; round++) {
        std::vector<std::unique_ptr<Tensor<float>>> tensors;
        for (size_t k = 0; k < COUNT; k++) {
            const size_t piece = k * 50021 + 1, n = piece * size;
            tensors.push_back(std::make_unique<Tensor<float>>(n));
            fill(tensors[k]->host, comm_rank());
            tensors[k]->upload();
            float* data = tensors[k]->device;
            if ((k * 7 + rank) % 5 == 0) usleep(2000);
            requests[k] = k % 3 == 0 ? comm_reduce_scatter(data, piece, Number::f32, "many") :
                          k % 3 == 1 ? comm_all_gather(data, piece, Number::f32, "many") : comm_all_reduce(data, n, Number::f32, "many");
            if (k % 2) comm_poll();
            if (k == 6) CHECK(comm_any(rank == size - 1, "in between"));        // small operations beside them
        }
        for (size_t j = 0; j < COUNT; j++) comm_wait(requests[(j * 5 + 3 + rank) % COUNT]);       // ranks even in different orders
        size_t wrong = 0;
        for (size_t k = 0; k < COUNT; k++) {
            tensors[k]->download();
            const std::vector<float>& data = tensors[k]->host;
            const size_t piece = data.size() / size;
            for (size_t i = 0; i < data.size(); i += 1 + k * 11) {
                if (k % 3 == 0 && i / piece != rank) continue;
                wrong += k % 3 == 1 ? data[i] != value<float>(int(i / piece), i) : !same_sum(data[i], sum_of_ranks<float>(i));
            }
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("more requests than there are message tags") {
    if (comm_size() == 1 || comm_size() > 2) return;             // 33000 rendezvous take seconds where ranks share cores
    Tensor<float> x(1);
    size_t wrong = 0;
    for (int i = 0; i < 33000; i++) {
        x.host[0] = float(comm_rank() + i);
        x.upload();
        finish(comm_all_reduce(x.device, 1, Number::f32, "tags"));
        x.download();
        wrong += x.host[0] != float(2 * i + 1);
    }
    CHECK(wrong == 0);
}

TEST_CASE("sums of bf16 are refused") {
    if (comm_size() == 1) return;
    bf16 x[64] = {};
    CHECK_THROWS_AS(comm_all_reduce(x, 64, Number::bf16, "test"), Error);
}

TEST_CASE("small operations: sum, any, broadcast, barrier") {
    std::vector<double> v(1000);
    fill(v, comm_rank());
    comm_sum(v.data(), v.size(), "test");
    size_t wrong = 0;
    for (size_t i = 0; i < v.size(); i++) wrong += v[i] != sum_of_ranks<double>(i);
    CHECK(wrong == 0);
    for (int who = 0; who < comm_size(); who++) CHECK(comm_any(comm_rank() == who, "test"));
    CHECK_FALSE(comm_any(false, "test"));
    for (size_t length : {size_t(0), size_t(1), size_t(3000001)}) {
        std::string expected(length, '\0');
        for (size_t i = 0; i < length; i++) expected[i] = char(i * 31 >> 3);
        std::string bytes = comm_rank() == 0 ? expected : "something else";
        comm_broadcast(bytes, "test");
        CHECK(bytes == expected);
    }
    comm_barrier("test");
    CommRequest nothing = -1;
    comm_wait(nothing);
    comm_poll();
}

static std::string agreed(const char* error, int code, int& got_code) {
    got_code = 0;
    try {
        comm_agree(error, code, "test");
    } catch (const Error& e) {
        got_code = e.exit_code;
        return e.what();
    }
    return "";
}
TEST_CASE("agreement: the lowest rank's error, on all ranks") {
    int code;
    CHECK(agreed(nullptr, 1, code) == "");
    CHECK(agreed("", 1, code) == "");
    for (int who = 0; who < comm_size(); who++) {
        const std::string text = format("cannot read shard %d", who);
        const bool failed = comm_rank() >= who;                  // it and all above
        const std::string expected = who ? format("rank %d: cannot read shard %d", who, who) : text;
        CHECK(agreed(failed ? format("cannot read shard %d", comm_rank()).c_str() : nullptr, comm_rank() + 2, code) == expected);
        CHECK(code == who + 2);
    }
    CHECK(agreed(nullptr, 1, code) == "");
}

TEST_CASE("pieces for rank 0: any offset and length, and the result for all") {
    constexpr size_t BYTES = 11000003;
    auto byte = [](int rank, int buffer, size_t i) { return char((i * 2654435761u >> 7) + size_t(rank) * 31 + size_t(buffer) * 101); };
    for (const std::string& result : {std::string(), std::string("no space left")}) {
        if (comm_rank() != 0) {
            std::string error = comm_serve([&](int buffer, uint64_t offset, size_t bytes, void* out) {
                for (size_t i = 0; i < bytes; i++) static_cast<char*>(out)[i] = byte(comm_rank(), buffer, offset + i);
            });
            CHECK(error == result);
            continue;
        }
        size_t wrong = 0;
        for (int rank = 1; rank < comm_size(); rank++)
            for (size_t bytes : {size_t(0), size_t(1), size_t(4) << 20, (size_t(4) << 20) + 1, BYTES}) {
                const uint64_t offset = bytes == BYTES ? 0 : 12345;
                std::vector<char> got(bytes + 1, 'x');
                comm_fetch(rank, int(bytes % 3), offset, bytes, got.data());
                for (size_t i = 0; i < bytes; i++) wrong += got[i] != byte(rank, int(bytes % 3), offset + i);
                wrong += got[bytes] != 'x';
            }
        CHECK(wrong == 0);
        comm_serve_end(result);
    }
}
