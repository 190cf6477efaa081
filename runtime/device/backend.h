// The machine under the layers: memory, copies, facts. One implementation per backend (backend_cpu.cpp; CUDA and its emulation
// bring their own). "Device" memory is ordinary memory on the CPU. One compute stream: calls run in the order they are made.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

// The first call in main: settings that must be in the environment before the thread library starts (it may restart the
// program).
void backend_prepare(char** argv);
void backend_init(int threads);                    // 0: all. Picks the device; fails with one line if there is none
const char* backend_name();                        // "cpu", "cuda", "emu"

// Before a training run's first product, on every rank: the run's folder, where the algorithms that the matrix library uses
// for its products are kept, so that a resumed run has the same bits (runtime/run/matmul_choices.h). Only CUDA's library
// chooses. Returns lines for the log, or "".
std::string backend_keep_choices(const std::string& folder);

void* device_alloc(size_t bytes);                  // zeroed, 256-byte aligned; fails with the bytes asked for and available
void device_free(void* p);
void device_zero(void* p, size_t bytes);
void copy_to_device(void* device, const void* host, size_t bytes);
void copy_to_host(void* host, const void* device, size_t bytes);    // waits for the work before it
void device_synchronize();

// Scratch memory that the kernels share for partial sums. The most that any of them needs is reserved before training, so
// that nothing is allocated afterwards. device_fixed_bytes: what the backend needs in any case (its smallest scratch
// memory, the matrix library's workspace).
void device_scratch_reserve(size_t bytes);
size_t device_fixed_bytes();

template <class T> T* device_alloc_array(size_t n) { return static_cast<T*>(device_alloc(n * sizeof(T))); }

// Work that only queues, and is done again and again: one step's forward and backward, its update. The first time its
// launches are counted; from the second time on, if it is wanted, all of them are one replay of a CUDA graph, with the same
// bits (replay.cu, which says what the work may do). The CPU just does the work.
struct Repeat {
    bool wanted = false;
    size_t launches = 0;
    std::shared_ptr<struct Recording> recording;
};
void device_repeat(Repeat& r, const std::function<void()>& work);
double launch_overhead_us();                       // what a launch takes on the host, about; 0: no launches, or no matter

struct DeviceFacts {
    std::string name;                              // "AMD EPYC 9654", "NVIDIA H200"
    int threads;                                   // CPU threads in use
    double peak_flops;                             // nominal, for MFU; 0: unknown
    size_t memory_bytes;                           // all of it
};
DeviceFacts device_facts();
size_t peak_memory_bytes();                        // the process's highest resident (CPU) or allocated (GPU) memory so far
