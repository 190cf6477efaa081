// The GPU as a device (BACKEND=cuda), and the host as an emulated GPU (BACKEND=emu). See backend.h.
#include "runtime/device/backend.h"

#include <cstring>
#include <map>
#include <vector>

#include "layers/cuda_common.cuh"
#include "layers/matmul.cuh"
#include "runtime/comm/comm.h"
#include "runtime/device/nominal_peaks.h"
#ifdef _OPENMP
#include <omp.h>
#endif

static std::map<void*, size_t> blocks;               // every allocation and its size
static size_t allocated_bytes = 0, peak_bytes = 0;

static void remember(void* p, size_t bytes) {
    blocks[p] = bytes;
    allocated_bytes += bytes;
    peak_bytes = std::max(peak_bytes, allocated_bytes);
}
static void forget(void* p) {
    auto block = blocks.find(p);
    ensure(block != blocks.end(), "device_free(%p): not from device_alloc, or freed before", p);
    allocated_bytes -= block->second;
    blocks.erase(block);
}

// All kernels use the same bytes for their partial sums, one kernel after the other. They are reserved before training. A
// kernel that asks for more is an error, not a reason to allocate: cudaMalloc would wait for the device in mid-step.
static struct { void* memory; size_t bytes; } scratch;
void device_scratch_reserve(size_t bytes) {
    bytes = std::max(bytes, SCRATCH_BYTES);
    if (bytes <= scratch.bytes) return;
    device_free(scratch.memory);
    scratch = {nullptr, 0};
    scratch = {device_alloc(bytes), bytes};
}
void* device_scratch(size_t bytes) {
    if (!scratch.memory) device_scratch_reserve(0);    // backend_init does it, but a test may not have called it
    ensure(bytes <= scratch.bytes,
           "a kernel needs %zu bytes of scratch memory and %zu are reserved "
           "(device_scratch_reserve); a smaller --micro-batch needs less",
           bytes, scratch.bytes);
    return scratch.memory;
}
size_t device_fixed_bytes() { return SCRATCH_BYTES + matmul_workspace_bytes(); }

static int host_threads(int threads) {
#ifdef _OPENMP
    static const int all = omp_get_max_threads();            // OMP_NUM_THREADS, else every core that this process may use
    omp_set_num_threads(threads > 0 ? threads : all);
    return threads > 0 ? threads : all;
#else
    return threads > 0 ? threads : 1;
#endif
}
static int threads_in_use = 1;

void backend_prepare(char**) {}                      // the host's threads do little here

static void not_in_a_recording() { ensure(!replay_is_on(), "work that is recorded or replayed waits for the device"); }

#if defined(BACKEND_EMU)
// ------------------------------------------------------------------------------------------------ emulated
#include <sys/resource.h>
#include <unistd.h>

void backend_init(int threads) {
    threads_in_use = host_threads(threads);
    if (threads > 0) emu::use_threads(threads);
    device_scratch_reserve(0);
}
const char* backend_name() { return "emu"; }

void* device_alloc(size_t bytes) {
    void* p = nullptr;
    ensure(posix_memalign(&p, 256, bytes ? bytes : 1) == 0, "out of memory: %zu bytes asked for, %zu allocated", bytes, allocated_bytes);
    memset(p, 0, bytes);
    remember(p, bytes);
    return p;
}
void device_free(void* p) {
    if (!p) return;
    forget(p);
    free(p);
}
void device_zero(void* p, size_t bytes) {
    if (!replay_takes_zero(p, bytes)) memset(p, 0, bytes);
}
// As below, a copy that is recorded reads a staging buffer when it is replayed.
static std::vector<char> staging[STAGING_BUFFERS];
static unsigned staging_next = 0;
unsigned staging_position() { return staging_next; }
void staging_queued(unsigned) {}
void copy_to_device(void* device, const void* host, size_t bytes) {
    if (bytes == 0) return;
    if (!replay_is_on()) return void(memcpy(device, host, bytes));
    std::vector<char>& b = staging[staging_next++ % STAGING_BUFFERS];
    b.assign(static_cast<const char*>(host), static_cast<const char*>(host) + bytes);
    if (!replay_takes_copy(device, b.data(), bytes)) memcpy(device, host, bytes);
}
double launch_overhead_us() { return 0; }
void copy_to_host(void* host, const void* device, size_t bytes) {
    not_in_a_recording();
    if (bytes > 0) memcpy(host, device, bytes);
}
void device_synchronize() { not_in_a_recording(); }
std::string backend_keep_choices(const std::string&) { return ""; }

DeviceFacts device_facts() {
    return {"CUDA emulated on the CPU", threads_in_use, 0, size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE))};
}
#else
// ------------------------------------------------------------------------------------------------ a GPU
static cudaStream_t stream = nullptr;
cudaStream_t compute_stream() { return stream; }

// Copies to the device pass through a ring of page-locked buffers, so that the caller may change its memory at once and the
// host can continue: cudaMemcpyAsync from ordinary memory would first wait for the work queued before it [CUDA Runtime API,
// "API synchronization behavior"]. The host waits only if a buffer's last copy, STAGING_BUFFERS copies ago, has not been made
// yet. So it is never further ahead than two to three micro-batches of tokens, targets and sorted tokens (embedding.cu).
constexpr size_t RING_BYTES = size_t(1) << 20;
struct RingBuffer { void* memory; cudaEvent_t copied; };
static RingBuffer ring[STAGING_BUFFERS];
static unsigned ring_next = 0;

static void ring_make() {
    for (RingBuffer& b : ring) {
        cuda_check(cudaMallocHost(&b.memory, RING_BYTES));
        cuda_check(cudaEventCreateWithFlags(&b.copied, cudaEventDisableTiming));
    }
}

void backend_init(int threads) {
    threads_in_use = host_threads(threads);
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    ensure(status == cudaSuccess && count > 0,
           "no usable NVIDIA GPU: %s; install or update its driver, or build for the processor with `make BACKEND=cpu`",
           status == cudaSuccess ? "none in this machine" : cudaGetErrorString(status));
    int device = comm_local_rank() % count;          // one GPU for each process of a machine; a launcher may show each only its own
    cudaDeviceProp properties;
    cuda_check(cudaSetDevice(device));
    cuda_check(cudaGetDeviceProperties(&properties, device));
    ensure(properties.major >= 8,
           "%s is too old: its compute capability is %d.%d, "
           "this program needs 8.0 (A100) or later; build with `make BACKEND=cpu`",
           properties.name, properties.major, properties.minor);
    if (stream) return;
    cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    ring_make();
    device_scratch_reserve(0);
    matmul_start();
}
const char* backend_name() { return "cuda"; }

static double gib(size_t bytes) { return double(bytes) / double(size_t(1) << 30); }

void* device_alloc(size_t bytes) {
    void* p = nullptr;
    cudaError_t status = cudaMalloc(&p, bytes ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, all = 0;
        cudaGetLastError();                          // the error is reported here, not by the next launch
        cuda_check(cudaMemGetInfo(&free_bytes, &all));
        fail(
            "out of GPU memory: %.2f GiB asked for with %.2f GiB allocated; "
            "%.2f of the GPU's %.2f GiB are free; a smaller --micro-batch, "
            "--context or model needs less",
            gib(bytes), gib(allocated_bytes), gib(free_bytes), gib(all));
    }
    cuda_check(status);
    remember(p, bytes);
    device_zero(p, bytes);
    return p;
}
void device_free(void* p) {
    if (!p) return;
    forget(p);
    cuda_check(cudaFree(p));                         // waits for the work that uses it
}
void device_zero(void* p, size_t bytes) {
    if (!replay_takes_zero(p, bytes)) cuda_check(cudaMemsetAsync(p, 0, bytes, stream));
}
unsigned staging_position() { return ring_next; }
void staging_queued(unsigned since) {
    for (; since != ring_next; since++) cuda_check(cudaEventRecord(ring[since % STAGING_BUFFERS].copied, stream));
}
double launch_overhead_us() { return 2.5; }          // not measured here: what is usual on this kind of machine
void copy_to_device(void* device, const void* host, size_t bytes) {
    for (size_t done = 0, piece; done < bytes; done += piece) {
        piece = std::min(bytes - done, RING_BYTES);
        RingBuffer& b = ring[ring_next++ % STAGING_BUFFERS];
        cuda_check(cudaEventSynchronize(b.copied));      // returns at once where nothing was recorded yet
        memcpy(b.memory, static_cast<const char*>(host) + done, piece);
        if (replay_takes_copy(static_cast<char*>(device) + done, b.memory, piece)) continue;
        cuda_check(cudaMemcpyAsync(static_cast<char*>(device) + done, b.memory, piece, cudaMemcpyHostToDevice, stream));
        cuda_check(cudaEventRecord(b.copied, stream));
    }
}
// The one place where a training step waits for the GPU. With several ranks it polls instead of blocking, so that the
// timeout of comm.h applies.
void copy_to_host(void* host, const void* device, size_t bytes) {
    not_in_a_recording();
    if (comm_size() > 1)
        comm_wait_device([] {
            cudaError_t status = cudaStreamQuery(stream);
            if (status != cudaErrorNotReady) cuda_check(status);
            return status != cudaErrorNotReady;
        });
    cuda_check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
    cuda_check(cudaStreamSynchronize(stream));
}
void device_synchronize() {
    not_in_a_recording();
    cuda_check(cudaStreamSynchronize(stream));
}
std::string backend_keep_choices(const std::string& folder) { return matmul_keep_choices(folder); }

DeviceFacts device_facts() {
    int device = 0;
    cudaDeviceProp properties;
    cuda_check(cudaGetDevice(&device));
    cuda_check(cudaGetDeviceProperties(&properties, device));
    bool bf16_storage = sizeof(floatX) == 2;         // the table has no fp32 peaks
    return {properties.name, threads_in_use, bf16_storage ? nominal_bf16_flops(properties.name) : 0, properties.totalGlobalMem};
}
#endif

size_t peak_memory_bytes() { return peak_bytes; }
