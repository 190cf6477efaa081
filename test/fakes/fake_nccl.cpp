// The parts of the CUDA runtime and of NCCL that runtime/comm/collectives_nccl.cpp calls, on host memory, with MPI processes as GPUs; and a
// backend on top. So the NCCL path itself runs under test_comm.cpp on a machine without GPUs (build/test-comm-nccl).
//
// Streams are queues that are worked off only when somebody asks (a query), one operation at a time and only
// as far as events allow: work runs as late as it may, so that a forgotten event shows as a wrong result.
// FAKE_FIRST=newest works on the youngest stream first: work runs early where the order is not enforced.
// Collectives are MPI's non-blocking ones: a stopped rank leaves them incomplete, as on GPUs.
// FAKE_HOLD=1 holds the main thread in the first call that orders the compute stream, as a full queue of launches does: for the watchdog.
// Every second NCCL call reports ncclInProgress for a while, as a non-blocking communicator may.
// Shows nothing about: real asynchrony, NCCL's algorithms, memory of a device.
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "runtime/device/backend.h"
#include "runtime/comm/mpi.h"

cudaStream_t compute_stream();

// ---------------------------------------------------------------------------------------------- streams and events
struct CUevent_st { uint64_t recorded = 0, reached = 0; };       // the last record queued, and the last that its stream came to
struct Operation { std::function<bool()> run; };                  // false: not yet
struct CUstream_st { std::deque<Operation> queue; };

static std::recursive_mutex mutex;                                // the watchdog thread queries events
static const std::thread::id main_thread = std::this_thread::get_id();
static std::vector<cudaStream_t> streams;

static void progress() {
    if (std::this_thread::get_id() != main_thread) return;        // MPI is for the main thread
    static const bool newest_first = getenv("FAKE_FIRST") && !strcmp(getenv("FAKE_FIRST"), "newest");
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t k = 0; k < streams.size() && !moved; k++) {
            auto& queue = streams[newest_first ? streams.size() - 1 - k : k]->queue;
            if (queue.empty() || !queue.front().run()) continue;
            queue.pop_front();
            moved = true;
        }
    }
}
static cudaError_t state_of(bool done) { return done ? cudaSuccess : cudaErrorNotReady; }

extern "C" {
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int) {
    streams.push_back(*s = new CUstream_st);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0, *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    std::erase(streams, s);
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t s) {
    std::lock_guard lock(mutex);
    progress();
    return state_of(s->queue.empty());
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
    *e = new CUevent_st;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    std::lock_guard lock(mutex);
    s->queue.push_back({[e, mark = ++e->recorded] {
        e->reached = mark;
        return true;
    }});
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    if (getenv("FAKE_HOLD") && s == compute_stream()) for (;;) usleep(100000);
    std::lock_guard lock(mutex);
    s->queue.push_back({[e, mark = e->recorded] { return e->reached >= mark; }});
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
    std::lock_guard lock(mutex);
    progress();
    return state_of(e->reached >= e->recorded);
}
const char* cudaGetErrorName(cudaError_t) { return "fake CUDA error"; }
const char* cudaGetErrorString(cudaError_t) { return "an error of the fake"; }
}

// ---------------------------------------------------------------------------------------------- NCCL
struct ncclComm {
    MPI_Comm mpi;
    int rank, size;
    int pending = 0, calls = 0;                                   // asks until the last call counts as queued
};
static ncclResult_t queued(ncclComm_t c) {
    c->pending = ++c->calls % 2 ? 3 : 0;
    return c->pending ? ncclInProgress : ncclSuccess;
}
static MPI_Datatype type_of(ncclDataType_t t) { return t == ncclDouble ? MPI_DOUBLE : t == ncclFloat ? MPI_FLOAT : MPI_UINT16_T; }
static size_t bytes_of(ncclDataType_t t) { return t == ncclDouble ? 8 : t == ncclFloat ? 4 : 2; }

// post starts the MPI operation when the stream comes to it; afterwards it is tested. What post holds lives until it is done.
static ncclResult_t queue_collective(ncclComm_t c, cudaStream_t s, const std::function<MPI_Request()>& post) {
    std::lock_guard lock(mutex);
    s->queue.push_back({[post, started = false, request = MPI_Request(MPI_REQUEST_NULL)]() mutable {
        if (!started) request = post();
        started = true;
        int done = 0;
        mpi_check(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
        return done != 0;
    }});
    return queued(c);
}

extern "C" {
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    memset(id, 7, sizeof *id);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* c, int size, ncclUniqueId id, int rank, ncclConfig_t*) {
    for (char byte : id.internal)
        if (byte != 7) return ncclInvalidArgument;                // the id of rank 0 has to arrive everywhere
    *c = new ncclComm{MPI_COMM_NULL, rank, size};
    mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &(*c)->mpi));
    return queued(*c);
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* state) {
    *state = c->pending > 0 && c->pending-- ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t c) { return queued(c); }
ncclResult_t ncclCommDestroy(ncclComm_t c) {
    MPI_Comm_free(&c->mpi);
    delete c;
    return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t) { return "fake NCCL error"; }
const char* ncclGetLastError(ncclComm_t) { return ""; }

// In place only, with the pointers that NCCL asks for.
ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c, cudaStream_t s) {
    char* base = static_cast<char*>(const_cast<void*>(send));
    if (receive != base + size_t(c->rank) * n * bytes_of(t) || op != ncclSum || t == ncclBfloat16) return ncclInvalidArgument;
    auto all = std::make_shared<std::vector<char>>();             // MPI's in-place form puts the result elsewhere: send from a copy
    return queue_collective(c, s, [=] {
        all->assign(base, base + n * size_t(c->size) * bytes_of(t));
        MPI_Request request;
        mpi_check(MPI_Ireduce_scatter_block(all->data(), receive, int(n), type_of(t), MPI_SUM, c->mpi, &request));
        return request;
    });
}
ncclResult_t ncclAllGather(const void* send, void* receive, size_t n, ncclDataType_t t, ncclComm_t c, cudaStream_t s) {
    if (send != static_cast<char*>(receive) + size_t(c->rank) * n * bytes_of(t)) return ncclInvalidArgument;
    return queue_collective(c, s, [=] {
        MPI_Request request;
        mpi_check(MPI_Iallgather(MPI_IN_PLACE, 0, type_of(t), receive, int(n), type_of(t), c->mpi, &request));
        return request;
    });
}
ncclResult_t ncclAllReduce(const void* send, void* receive, size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c, cudaStream_t s) {
    if (send != receive || op != ncclSum || t == ncclBfloat16) return ncclInvalidArgument;
    return queue_collective(c, s, [=] {
        MPI_Request request;
        mpi_check(MPI_Iallreduce(MPI_IN_PLACE, receive, int(n), type_of(t), MPI_SUM, c->mpi, &request));
        return request;
    });
}
}

// ---------------------------------------------------------------------------------------------- the backend
static cudaStream_t compute = nullptr;
cudaStream_t compute_stream() { return compute; }
const char* backend_name() { return "fake"; }
void backend_init(int) {
    if (!compute) cudaStreamCreateWithPriority(&compute, 0, 0);
}
void device_synchronize() {
    comm_wait_device([] { return cudaStreamQuery(compute) == cudaSuccess; });
}
void* device_alloc(size_t bytes) { return calloc(1, bytes); }
void device_free(void* p) {
    device_synchronize();
    free(p);
}
static void queue_work(const std::function<void()>& work) {
    std::lock_guard lock(mutex);
    compute->queue.push_back({[work] {
        work();
        return true;
    }});
}
void copy_to_device(void* device, const void* host, size_t bytes) {          // the source may be changed at once
    auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(host), static_cast<const char*>(host) + bytes);
    queue_work([=] { memcpy(device, staged->data(), bytes); });
}
void copy_to_host(void* host, const void* device, size_t bytes) {
    queue_work([=] { memcpy(host, device, bytes); });
    device_synchronize();
}
