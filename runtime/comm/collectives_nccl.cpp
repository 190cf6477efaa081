// Reduce-scatter, all-gather and all-reduce of tensors in GPU memory, by NCCL; MPI starts it. See comm.h.
//
// The calls are queued on a stream of their own, ordered by two events: that stream waits for the compute stream's work
// so far (`ready`), and comm_wait makes the compute stream wait for the result (`done`). The host never waits here.
// In-place forms [NCCL user guide, "In-place operations"]: reduce-scatter receives at send + rank * piece, all-gather
// sends from receive + rank * piece. NCCL adds in the order of its rings and trees, not in that of tree_sum.h: the same
// order in every run with the same ranks and the same NCCL.
//
// Hung partners: the communicator is non-blocking (NCCL 2.14 and later), so the host is never held inside NCCL. It waits
// for the device through comm_wait_device, under the timeout and the roll call of wait.cpp. One case escapes that: the
// main thread can be held inside a CUDA call when the queue of launches after a hung collective is full. The watchdog
// thread notices it and ends this process, and the launcher then ends the others. It decides from times alone and makes
// no CUDA call: that could wait for a lock which the held thread has.
// Compiled by g++ against NCCL's and CUDA's C headers; run without a GPU against test/fakes/fake_nccl.cpp.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "runtime/comm/mpi.h"

cudaStream_t compute_stream();                                  // backend_cuda.cu

// How long the watchdog waits after the timeout (or as long as the timeout, if that is less): the roll call, which names
// the culprit, comes first.
static constexpr double WATCHDOG_GRACE_SECONDS = 30;

struct Flight {                                                 // a collective that the device has not finished, as far as we have looked
    CommRequest request;
    cudaEvent_t done;
    const char* collective;
    std::string what;
    int64_t step;
    double queued;                                              // comm_clock()
};
static ncclComm_t nccl = nullptr;
static cudaStream_t stream = nullptr;
static cudaEvent_t ready = nullptr;
static CommRequest next_request = 0;
static std::vector<cudaEvent_t> free_events;

// Shared with the watchdog thread.
static std::mutex flights_mutex;
static std::deque<Flight> flights;                              // oldest first
static double main_thread_seen = 0;                             // when it last came by
static bool watchdog_ends = false;
static std::condition_variable watchdog_wakes;
static struct Watchdog {
    std::thread thread;
    void stop() {
        if (!thread.joinable()) return;
        {
            std::lock_guard<std::mutex> lock(flights_mutex);
            watchdog_ends = true;
        }
        watchdog_wakes.notify_all();
        thread.join();
    }
    ~Watchdog() { stop(); }                                     // an exit without comm_finalize
} watchdog;

static void cuda_check_at(cudaError_t status, const char* expression, int line) {
    if (status == cudaSuccess) return;
    fail("%s: %s, from %s at %s:%d", cudaGetErrorName(status), cudaGetErrorString(status), expression, __FILE__, line);
}
#define cuda_check(expression) cuda_check_at(expression, #expression, __LINE__)

static void nccl_check_at(ncclResult_t status, const char* expression, int line) {
    if (status == ncclSuccess || status == ncclInProgress) return;
    fail("NCCL: %s (%s), from %s at %s:%d%s", ncclGetErrorString(status), ncclGetLastError(nccl), expression, __FILE__, line,
         status == ncclInvalidUsage ? "; often two ranks on one GPU: start at most one rank per GPU" :
         status == ncclSystemError || status == ncclRemoteError ? "; NCCL_DEBUG=INFO in the environment tells more" : "");
}
#define nccl_check(expression) nccl_check_at(expression, #expression, __LINE__)

// A non-blocking call is complete, for the host, when the communicator's state is no longer "in progress". Later errors, such as a lost
// network link, show in the same state.
static void wait_until_queued(const char* collective, const char* what) {
    wait_until([] {
        ncclResult_t state = ncclSuccess;
        nccl_check(ncclCommGetAsyncError(nccl, &state));
        nccl_check_at(state, "the communicator's state", __LINE__);
        return state != ncclInProgress;
    }, collective, what);
}

// ---------------------------------------------------------------------------------------------- watchdog
static void watch() {
    std::unique_lock<std::mutex> lock(flights_mutex);
    while (!watchdog_wakes.wait_for(lock, std::chrono::seconds(1), [] { return watchdog_ends; })) {
        const double patience = comm.timeout_seconds + std::clamp(comm.timeout_seconds, 3.0, WATCHDOG_GRACE_SECONDS), now = comm_clock();
        if (comm.timeout_seconds <= 0 || comm.ending || flights.empty() || now - main_thread_seen < patience) continue;
        const Flight& oldest = flights.front();
        if (now - oldest.queued < patience) continue;
        fprintf(stderr,
                "error: rank %d: %s of %s of step %lld was queued %.0f s ago, "
                "and the main thread has not come by for %.0f s, held inside a CUDA call: another rank is hung, "
                "stopped or lost; "
                "this rank is ended, and the launcher ends the others\n",
                comm.rank, oldest.collective, oldest.what.c_str(), static_cast<long long>(oldest.step),
                now - oldest.queued, now - main_thread_seen);
        _exit(EXIT_FAILED);
    }
}

// ---------------------------------------------------------------------------------------------- start and end
void tensors_start() {}                                         // the device is not chosen yet

void comm_start_devices() {
    if (comm.size == 1 || nccl) return;
    std::string id(sizeof(ncclUniqueId), '\0');
    if (comm.rank == 0) {
        ncclUniqueId made;
        nccl_check(ncclGetUniqueId(&made));
        memcpy(id.data(), &made, sizeof made);
    }
    comm_broadcast(id, "NCCL's id");
    ncclUniqueId unique;
    memcpy(&unique, id.data(), sizeof unique);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    nccl_check(ncclCommInitRankConfig(&nccl, comm.size, unique, comm.rank, &config));
    wait_until_queued("start of NCCL", "");
    int least = 0, greatest = 0;                                // a collective's few blocks run before the next layer's many
    cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    cuda_check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
    cuda_check(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
    main_thread_seen = comm_clock();
    watchdog_ends = false;
    watchdog.thread = std::thread(watch);
}

void tensors_finish() {
    if (!nccl) return;
    wait_until([] { return flights.empty(); }, "the device", "");
    watchdog.stop();
    nccl_check(ncclCommFinalize(nccl));
    wait_until_queued("end of NCCL", "");
    nccl_check(ncclCommDestroy(nccl));
    nccl = nullptr;
    for (cudaEvent_t event : free_events) cuda_check(cudaEventDestroy(event));
    free_events.clear();
    cuda_check(cudaEventDestroy(ready));
    cuda_check(cudaStreamDestroy(stream));
}
const char* tensors_name() { return "NCCL"; }
bool comm_sums_by_tree() { return comm.size == 1; }

// ---------------------------------------------------------------------------------------------- requests
void tensors_advance() {
    if (!nccl) return;
    std::lock_guard<std::mutex> lock(flights_mutex);
    main_thread_seen = comm_clock();
    while (!flights.empty()) {
        const cudaError_t status = cudaEventQuery(flights.front().done);
        if (status == cudaErrorNotReady) break;
        cuda_check(status);
        free_events.push_back(flights.front().done);
        flights.pop_front();
        comm.progress++;
    }
    ncclResult_t state = ncclSuccess;
    nccl_check(ncclCommGetAsyncError(nccl, &state));
    nccl_check_at(state, "the communicator's state", __LINE__);
}

bool tensors_oldest(std::string& collective, std::string& what) {
    std::lock_guard<std::mutex> lock(flights_mutex);
    if (flights.empty()) return false;
    collective = flights.front().collective;
    what = flights.front().what;
    return true;
}

static ncclDataType_t type_of(Number type) { return type == Number::f64 ? ncclDouble : type == Number::f32 ? ncclFloat : ncclBfloat16; }
static size_t bytes_of(Number type) { return type == Number::f64 ? 8 : type == Number::f32 ? 4 : 2; }

// queue: makes the NCCL call on `stream`
static CommRequest start(const char* collective, const char* what, const std::function<ncclResult_t()>& queue) {
    ensure(nccl, "%s of %s before comm_start_devices", collective, what);
    tensors_advance();
    cuda_check(cudaEventRecord(ready, compute_stream()));
    cuda_check(cudaStreamWaitEvent(stream, ready, 0));
    nccl_check_at(queue(), collective, __LINE__);
    wait_until_queued(collective, what);                        // only then does an event on the stream come after the call
    cudaEvent_t done;
    if (free_events.empty()) {
        cuda_check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    } else {
        done = free_events.back();
        free_events.pop_back();
    }
    cuda_check(cudaEventRecord(done, stream));
    std::lock_guard<std::mutex> lock(flights_mutex);
    flights.push_back({next_request, done, collective, what, comm.step, comm_clock()});
    return next_request++;
}
static void ensure_sum(Number type, const char* what) {
    ensure(type != Number::bf16, "sum of %s: sums are made of f32 or f64, not of bf16", what);
}

CommRequest comm_reduce_scatter(void* data, size_t piece, Number type, const char* what) {
    if (comm.size == 1 || piece == 0) return -1;
    ensure_sum(type, what);
    char* own = static_cast<char*>(data) + size_t(comm.rank) * piece * bytes_of(type);
    return start("reduce-scatter", what, [=] { return ncclReduceScatter(data, own, piece, type_of(type), ncclSum, nccl, stream); });
}
CommRequest comm_all_gather(void* data, size_t piece, Number type, const char* what) {
    if (comm.size == 1 || piece == 0) return -1;
    char* own = static_cast<char*>(data) + size_t(comm.rank) * piece * bytes_of(type);
    return start("all-gather", what, [=] { return ncclAllGather(own, data, piece, type_of(type), nccl, stream); });
}
CommRequest comm_all_reduce(void* data, size_t n, Number type, const char* what) {
    if (comm.size == 1 || n == 0) return -1;
    ensure_sum(type, what);
    return start("all-reduce", what, [=] { return ncclAllReduce(data, data, n, type_of(type), ncclSum, nccl, stream); });
}

void comm_wait(CommRequest& request) {
    // A flight that has left the list is done, and the compute stream's later work is launched after that.
    for (const Flight& flight : flights)                        // only the main thread changes the list
        if (flight.request == request) cuda_check(cudaStreamWaitEvent(compute_stream(), flight.done, 0));
    request = -1;
}
void comm_poll() {
    if (comm.size == 1) return;
    tensors_advance();
    answer_roll_call();
}
