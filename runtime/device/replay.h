// Launches as data, for work that is recorded once and replayed (device_repeat in backend.h, by CUDA graphs). While
// something is counted, recorded or replayed, whatever is queued on the compute stream is offered here first: kernels by
// `launch` (layers/cuda_common.cuh, emu/launch.h), copies and zeros by the backend, products by the matrix library's file.
// At all other times launch_hook is null and nothing is offered.
#pragma once
#include <cstddef>
#include <tuple>

struct KernelCall {
    const void* kernel;
    unsigned grid[3], threads[3];
    size_t smem_bytes;
    void* const* arguments;                      // one address each, as in cudaLaunchKernel; `sizes` ends with a 0
    const size_t* sizes;
    void (*run)(const KernelCall&);              // emu: executes it
};
// True: the launch has been dealt with. False: launch it.
inline bool (*launch_hook)(const KernelCall&) = nullptr;

template <class Dim, class... P, class... A>
bool hook_takes(void (*kernel)(P...), const Dim& grid, const Dim& threads, size_t smem_bytes, void (*run)(const KernelCall&), A&... a) {
    if (!launch_hook) return false;
    std::tuple<P...> values(a...);
    return std::apply([&](auto&... value) {
        void* arguments[] = {const_cast<void*>(static_cast<const void*>(&value))..., nullptr};
        const size_t sizes[] = {sizeof value..., 0};
        return launch_hook({reinterpret_cast<const void*>(kernel), {grid.x, grid.y, grid.z}, {threads.x, threads.y, threads.z}, smem_bytes,
                            arguments, sizes, run});
    }, values);
}

// True: dealt with. `staged` stays as it is until the copy is made.
bool replay_takes_copy(void* device, const void* staged, size_t bytes);
bool replay_takes_zero(void* device, size_t bytes);
// A call of a library that queues by itself what follows from these bytes. True: it is part of what will be replayed; do
// not make the call. While recording: false, the call is made into the recording.
bool replay_takes_call(const void* bytes, size_t count);
bool replay_is_on();                             // recording or replaying: nothing may wait for the device now

// The backend's staging buffers (backend_cuda.cu). A recording may use each of them once.
inline constexpr int STAGING_BUFFERS = 8;
unsigned staging_position();                     // counts the buffers handed out so far
void staging_queued(unsigned since);             // the copies from the buffers handed out since then are queued now
