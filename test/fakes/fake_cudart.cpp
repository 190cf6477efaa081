// A stand-in for the CUDA runtime library: just what runtime/device/backend_cuda.cu calls, on the host, with
// one stream whose work is done as late as the CUDA manual allows. It counts when the host had to wait, and
// runs out of "device" memory at 1 GiB. For test_cuda_memory.cpp, so that copies, events and error paths run
// without a GPU. Not for kernels.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>

#include "test/fakes/fake_cudart.h"

float fake_clock_ms = 0;
int fake_waits = 0;
static std::deque<std::pair<uint64_t, std::function<void()>>> queue;       // ticket, work
static uint64_t last_ticket = 0;
static std::map<char*, size_t> page_locked;
static std::map<void*, size_t> device_memory;
static size_t device_used = 0;
static cudaError_t last_error = cudaSuccess;

static void enqueue(std::function<void()> work) { queue.push_back({++last_ticket, std::move(work)}); }
static void wait_for(uint64_t ticket) {              // everything up to this ticket
    if (queue.empty() || queue.front().first > ticket) return;
    fake_waits++;
    while (!queue.empty() && queue.front().first <= ticket) {
        queue.front().second();
        queue.pop_front();
    }
}
static bool is_page_locked(const void* p, size_t bytes) {
    for (auto& [start, size] : page_locked)
        if (static_cast<const char*>(p) >= start && static_cast<const char*>(p) + bytes <= start + size) return true;
    return false;
}
struct CUevent_st { uint64_t ticket = 0; float ms = 0; };

extern "C" {
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "NVIDIA H100 80GB HBM3");
    p->major = 9;
    p->totalGlobalMem = FAKE_DEVICE_BYTES;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return *s = reinterpret_cast<cudaStream_t>(&queue), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return wait_for(last_ticket), cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return wait_for(last_ticket), cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return *e = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { return *e = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) { return *ms = end->ms - begin->ms, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) { return e->ticket = last_ticket, e->ms = fake_clock_ms, cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { return wait_for(e->ticket), cudaSuccess; }
cudaError_t cudaMallocHost(void** p, size_t bytes) {
    *p = malloc(bytes);
    page_locked[static_cast<char*>(*p)] = bytes;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, size_t bytes) {
    if (bytes > FAKE_DEVICE_BYTES - device_used) return last_error = cudaErrorMemoryAllocation;
    if (posix_memalign(p, 256, bytes) != 0) return last_error = cudaErrorMemoryAllocation;       // as CUDA aligns
    memset(*p, 0xee, bytes);
    device_memory[*p] = bytes;
    device_used += bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
    wait_for(last_ticket);
    device_used -= device_memory.at(p);
    device_memory.erase(p);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* all) {
    if (last_error != cudaSuccess) return last_error;            // an error that was not fetched stays and is reported by the next call
    *all = FAKE_DEVICE_BYTES;
    *free_bytes = FAKE_DEVICE_BYTES - device_used;
    return cudaSuccess;
}
cudaError_t cudaGetLastError() {
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorFake"; }
const char* cudaGetErrorString(cudaError_t) { return "fake error"; }
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
    return enqueue([=] { memset(p, value, bytes); }), cudaSuccess;
}
// Page-locked host memory is read when the copy is made; ordinary memory makes the call wait
// [CUDA Runtime API, API synchronization behavior].
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    enqueue([=] { memcpy(to, from, bytes); });
    if (!is_page_locked(kind == cudaMemcpyHostToDevice ? from : to, bytes)) wait_for(last_ticket);
    return cudaSuccess;
}
// What nvcc's objects call when a program starts and ends.
void** __cudaRegisterFatBinary(void*) { static void* handle = nullptr; return &handle; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
// Kernels that a tested file has but no test may launch: a launch is an error, which the next call reports.
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { return last_error = cudaErrorNotSupported, 1; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorNotSupported; }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaErrorNotSupported; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }
}
