// The GPU as a device (BACKEND=cuda), and the host as an emulated GPU (BACKEND=emu). See backend.h.
#include "runtime/backend.h"

#include "layers/cuda_common.cuh"

#include <map>
#ifdef _OPENMP
#include <omp.h>
#endif

static std::map<void*, size_t> blocks;               // every allocation and its size
static size_t allocated_bytes = 0, peak_bytes = 0;
static void* scratch = nullptr;

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

void* device_scratch(size_t bytes) {
    ensure(bytes <= SCRATCH_BYTES, "a kernel needs %zu bytes of scratch memory, there are %zu; use a smaller --micro-batch or model", bytes, SCRATCH_BYTES);
    if (!scratch) scratch = device_alloc(SCRATCH_BYTES);      // backend_init does it; a test may not have called that
    return scratch;
}
void device_scratch_reserve(size_t bytes) { device_scratch(bytes); }
size_t device_fixed_bytes() { return SCRATCH_BYTES; }

static int host_threads(int threads) {
#ifdef _OPENMP
    omp_set_num_threads(threads > 0 ? threads : omp_get_num_procs());
    return threads > 0 ? threads : omp_get_num_procs();
#else
    return threads > 0 ? threads : 1;
#endif
}
static int threads_in_use = 1;

void backend_prepare(char**) {}                      // the host's threads do little here

#if defined(BACKEND_EMU)
// ------------------------------------------------------------------------------------------------ emulated
#include <sys/resource.h>
#include <unistd.h>

void backend_init(int threads) {
    threads_in_use = host_threads(threads);
    if (threads > 0) emu::use_threads(threads);
    device_scratch(0);
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
void device_zero(void* p, size_t bytes) { memset(p, 0, bytes); }
void copy_to_device(void* device, const void* host, size_t bytes) { memcpy(device, host, bytes); }
void copy_to_host(void* host, const void* device, size_t bytes) { memcpy(host, device, bytes); }
void device_synchronize() {}

DeviceFacts device_facts() {
    return {"CUDA emulated on the CPU", threads_in_use, 0, size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE))};
}
#else
// ------------------------------------------------------------------------------------------------ a GPU
static cudaStream_t stream = nullptr;
cudaStream_t compute_stream() { return stream; }

// Processes on one machine take one GPU each; the launchers say who is who.
static int local_rank() {
    for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID", "LOCAL_RANK"})
        if (const char* value = getenv(name)) return std::max(0, atoi(value));
    return 0;
}

void backend_init(int threads) {
    threads_in_use = host_threads(threads);
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    ensure(status == cudaSuccess && count > 0, "no usable NVIDIA GPU: %s; install or update its driver, or build for the processor with `make BACKEND=cpu`",
           status == cudaSuccess ? "none in this machine" : cudaGetErrorString(status));
    int device = local_rank() % count;
    cudaDeviceProp properties;
    cuda_check(cudaSetDevice(device));
    cuda_check(cudaGetDeviceProperties(&properties, device));
    ensure(properties.major >= 8, "%s is too old: its compute capability is %d.%d, this program needs 8.0 (A100) or later; build with `make BACKEND=cpu`",
           properties.name, properties.major, properties.minor);
    if (!stream) cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    device_scratch(0);
}
const char* backend_name() { return "cuda"; }

void* device_alloc(size_t bytes) {
    void* p = nullptr;
    cudaError_t status = cudaMalloc(&p, bytes ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, all = 0;
        cudaGetLastError();                          // the error is reported here, not by the next launch
        cuda_check(cudaMemGetInfo(&free_bytes, &all));
        fail("out of GPU memory: %zu bytes asked for, %zu of %zu free; a smaller --micro-batch, --context or model needs less", bytes, free_bytes, all);
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
void device_zero(void* p, size_t bytes) { cuda_check(cudaMemsetAsync(p, 0, bytes, stream)); }
// From pageable memory: returns when the source may be changed again.
void copy_to_device(void* device, const void* host, size_t bytes) { cuda_check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream)); }
void copy_to_host(void* host, const void* device, size_t bytes) {
    cuda_check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
    cuda_check(cudaStreamSynchronize(stream));
}
void device_synchronize() { cuda_check(cudaStreamSynchronize(stream)); }

// Nominal dense bf16 tensor-core FLOP/s with fp32 accumulation, from NVIDIA's data sheets. The first name found in the device's wins.
static double nominal_bf16_flops(const std::string& name) {
    static const struct { const char* part; double tflops; } table[] = {
        {"GB300", 2500}, {"B300", 2250}, {"GB200", 2500}, {"B200", 2250}, {"GH200", 989.4}, {"H200 NVL", 835.5}, {"H200", 989.4}, {"H100 NVL", 835.5},
        {"H100 PCIe", 756},   {"H100", 989.4}, {"H800", 989.4}, {"A100", 312},  {"A800", 312},  {"A30", 165},   {"A10", 125},  {"A40", 149.7},
        {"L40S", 362},  {"L40", 181},  {"L4", 121},    {"RTX 6000 Ada", 364}, {"RTX A6000", 154.8}, {"RTX 3080", 59.5}, {"RTX 3090", 71},
        {"RTX 4080", 97.5}, {"RTX 4090", 165.2}, {"RTX 5080", 112.6}, {"RTX 5090", 209.5}};
    for (const auto& row : table) if (name.find(row.part) != std::string::npos) return row.tflops * 1e12;
    return 0;
}

DeviceFacts device_facts() {
    int device = 0;
    cudaDeviceProp properties;
    cuda_check(cudaGetDevice(&device));
    cuda_check(cudaGetDeviceProperties(&properties, device));
    bool bf16_storage = sizeof(floatX) == 2;         // the table knows no fp32 peaks
    return {properties.name, threads_in_use, bf16_storage ? nominal_bf16_flops(properties.name) : 0, properties.totalGlobalMem};
}
#endif

size_t peak_memory_bytes() { return peak_bytes; }
