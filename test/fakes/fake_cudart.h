// What the tests and fake_cublaslt.cpp see of the stand-in for the CUDA runtime. See fake_cudart.cpp.
#pragma once
#include <cstddef>
#include <functional>
#include <vector>

extern float fake_clock_ms;                          // what events record; only fake_cublaslt.cpp moves it
extern int fake_waits;                               // how often a call had to wait for queued work
inline constexpr size_t FAKE_DEVICE_BYTES = size_t(1) << 30;

// A kernel that may be launched: its arguments' sizes, and what it does, on the host.
struct FakeKernel { std::vector<size_t> sizes; std::function<void(void**)> run; };
void fake_kernel(const void* stub, FakeKernel kernel);
extern int fake_launches;                            // of kernels, one by one or into a recording
extern int fake_updates;                             // of nodes of an executable graph
extern int fake_graph_launches;
