// What test_cuda_matmul.cpp sees and sets of the stand-in for cuBLASLt. See fake_cublaslt.cpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

inline constexpr uint64_t FAKE_FIRST_ALGORITHM = 100;        // proposals are 100, 101, 102, 103, in this order
extern std::vector<uint64_t> fake_algorithms_run;            // one for each product made
extern float fake_ms[4];                                     // how long each of them takes
extern uint64_t fake_refused;                                // this one is no longer allowed
extern size_t fake_version;
