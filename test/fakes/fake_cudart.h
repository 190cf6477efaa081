// What test_cuda_memory.cpp and fake_cublaslt.cpp see of the stand-in for the CUDA runtime. See fake_cudart.cpp.
#pragma once
#include <cstddef>

extern float fake_clock_ms;                          // what events record; only fake_cublaslt.cpp moves it
extern int fake_waits;                               // how often a call had to wait for queued work
inline constexpr size_t FAKE_DEVICE_BYTES = size_t(1) << 30;
