// A stand-in for the CUDA runtime library: just what runtime/device/backend_cuda.cu and replay.cu call, on the host,
// with one stream whose work is done as late as the CUDA manual allows. It counts when the host had to wait, and
// runs out of "device" memory at 1 GiB. For test_cuda_memory.cpp and test_cuda_replay.cpp, so that copies, events,
// graphs and error paths run without a GPU. Kernels: only those for which a test gives a function of the host's.
// While the stream records, what is queued becomes a node with a copy of its arguments; a graph's launch queues its
// nodes as they are then, so that a change afterwards comes too late for it.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

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

// ---- kernels and graphs
static std::map<const void*, FakeKernel> kernels;
void fake_kernel(const void* stub, FakeKernel kernel) { kernels[stub] = std::move(kernel); }
int fake_launches = 0, fake_updates = 0, fake_graph_launches = 0;

struct CUgraphNode_st {                                      // a kernel, or a copy, or (from null) a memset
    const void* kernel = nullptr;
    std::vector<std::vector<char>> arguments;
    void* to = nullptr;
    const void* from = nullptr;
    size_t bytes = 0;
    int value = 0;

    void set_arguments(void** given) {
        arguments.clear();
        for (size_t size : kernels.at(kernel).sizes) {
            const char* p = static_cast<const char*>(given[arguments.size()]);
            arguments.emplace_back(p, p + size);
        }
    }
    void run() {
        if (!kernel) return void(from ? memcpy(to, from, bytes) : memset(to, value, bytes));
        std::vector<void*> pointers;
        for (auto& a : arguments) pointers.push_back(a.data());
        kernels.at(kernel).run(pointers.data());
    }
};
using Nodes = std::vector<std::unique_ptr<CUgraphNode_st>>;
struct CUgraph_st { Nodes nodes; };
struct CUgraphExec_st { std::map<cudaGraphNode_t, size_t> place; std::vector<CUgraphNode_st> nodes; };
static CUgraph_st* recording = nullptr;
static cudaGraphNode_t newest = nullptr;

static void submit(CUgraphNode_st node) {
    if (!recording) return enqueue([node]() mutable { node.run(); });
    recording->nodes.push_back(std::make_unique<CUgraphNode_st>(std::move(node)));
    newest = recording->nodes.back().get();
}
static cudaError_t launch_kernel(const void* kernel, void** arguments) {
    if (!kernels.count(kernel)) return last_error = cudaErrorNotSupported;   // one that no test may launch
    fake_launches++;
    CUgraphNode_st node;
    node.kernel = kernel;
    node.set_arguments(arguments);
    return submit(std::move(node)), cudaSuccess;
}
// What waits for a stream that records, or marks a place in it, ends the recording on a GPU.
static cudaError_t not_while_recording() { return recording ? last_error = cudaErrorStreamCaptureUnsupported : cudaSuccess; }

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
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    if (recording) return not_while_recording();
    return wait_for(last_ticket), cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t) { return wait_for(last_ticket), cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return *e = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { return *e = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) { return *ms = end->ms - begin->ms, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) {
    if (recording) return not_while_recording();
    return e->ticket = last_ticket, e->ms = fake_clock_ms, cudaSuccess;
}
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
    CUgraphNode_st node;
    node.to = p;
    node.value = value;
    node.bytes = bytes;
    return submit(std::move(node)), cudaSuccess;
}
// Page-locked host memory is read when the copy is made; ordinary memory makes the call wait
// [CUDA Runtime API, API synchronization behavior].
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    const bool waits = !is_page_locked(kind == cudaMemcpyHostToDevice ? from : to, bytes);
    if (waits && recording) return not_while_recording();
    CUgraphNode_st node;
    node.to = to;
    node.from = from;
    node.bytes = bytes;
    submit(std::move(node));
    if (waits) wait_for(last_ticket);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
    if (recording) return cudaErrorIllegalState;
    recording = new CUgraph_st;
    return newest = nullptr, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
    *graph = recording;
    return recording = nullptr, *graph ? cudaSuccess : cudaErrorIllegalState;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*,
                                     const cudaGraphNode_t** dependencies, const cudaGraphEdgeData**, size_t* count) {
    *status = recording ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    *dependencies = &newest;
    *count = newest ? 1 : 0;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
    *executable = new CUgraphExec_st;
    for (auto& node : graph->nodes) {
        (*executable)->place[node.get()] = (*executable)->nodes.size();
        (*executable)->nodes.push_back(*node);
    }
    return cudaSuccess;
}
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t e, cudaGraphNode_t node, const cudaKernelNodeParams* p) {
    CUgraphNode_st& n = e->nodes[e->place.at(node)];
    if (!n.kernel || n.kernel != p->func) return cudaErrorInvalidValue;
    fake_updates++;
    return n.set_arguments(p->kernelParams), cudaSuccess;
}
cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t e, cudaGraphNode_t node, void* to, const void* from, size_t bytes,
                                               cudaMemcpyKind) {
    CUgraphNode_st& n = e->nodes[e->place.at(node)];
    if (n.kernel || !n.from) return cudaErrorInvalidValue;
    fake_updates++;
    n.to = to;
    n.from = from;
    n.bytes = bytes;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t) {
    if (recording) return not_while_recording();
    fake_graph_launches++;
    for (const CUgraphNode_st& node : e->nodes) submit(node);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) { return delete e, cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void** arguments, size_t, cudaStream_t) {
    return launch_kernel(kernel, arguments);
}
// What nvcc's objects call when a program starts and ends.
void** __cudaRegisterFatBinary(void*) { static void* handle = nullptr; return &handle; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
// kernel<<<...>>>(...): the configuration is pushed, the stub that nvcc made for the kernel pops it and launches by a handle.
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { return 0; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaSuccess; }
cudaError_t __cudaGetKernel(cudaKernel_t* handle, const void* stub) {
    *handle = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));
    return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t handle, dim3, dim3, void** arguments, size_t, cudaStream_t) {
    return launch_kernel(handle, arguments);
}
}
