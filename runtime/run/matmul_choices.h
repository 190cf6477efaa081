// Which algorithm the matrix library uses for each product, in a file: products then add in the same order and keep their
// bits, though the choice was made by timing, which no run repeats. The same file twice (layers/matmul_cublaslt.cu):
// in the run's folder, the authority for that run, shared by its ranks; and in a cache, for new runs on this machine.
//   matmul-NVIDIA-H100-80GB-HBM3-cuBLASLt-130004-bf16.txt     <- what the choices are good for
//   qv.cu matmul choices 2
//   NVIDIA H100 80GB HBM3; cuBLASLt 130004; bf16              <- the same, in full
//   0 1 65536 768 ... : 3f0000000a 0 ... 0 ; 5c1e09a7         <- the product's key; the algorithm, 8 words in
//                                                                hexadecimal; a checksum of the line up to here
// The algorithm is the library's own 64 bytes, which it allows to be stored for the same version [cuBLAS manual,
// cublasLtMatmulAlgo_t].
// Several processes may use one file at once: a line is added under a lock (flock), and only if no other process has
// added one for that key; whoever comes second takes the first one's choice. No lock is held while anything is timed: a
// rank that waits for a lock could be the one for which the GPU of the holder waits. The last line for a key counts. A
// line without its end, from a process that was killed, counts for nothing and is cut off by the next writer.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>

using MatmulKey = std::array<size_t, 20>;                    // matmul_cublaslt.cu's key_of
using MatmulAlgorithm = std::array<uint64_t, 8>;

struct MatmulChoices { std::string path, library; };         // path "": nothing is kept, nothing is found

MatmulChoices matmul_choices_in(const std::string& folder, const std::string& library);
// Where the cache is: $MATMUL_CACHE, else qv/ in $XDG_CACHE_HOME or ~/.cache; "" with MATMUL_CACHE=off, or without a home.
std::string matmul_cache_folder();

// Before a run's first product: removes the file if it cannot be used. Returns a line for the log on that, or on files for
// another device or library beside it; "" if the run will have the bits it had.
std::string matmul_choices_cleared(const MatmulChoices& c);
// For a run that branches from another: its choices, to begin with.
void matmul_choices_copy(const std::string& to_folder, const std::string& from_folder);
// These fail if the file cannot be read, understood or locked; adding also if it cannot be written.
std::optional<MatmulAlgorithm> matmul_choices_find(const MatmulChoices& c, const MatmulKey& key);
// Returns what counts from now on: `chosen`, durably in the file, or what another process has added before. `refused`: this
// one, found in the file, is of no use.
MatmulAlgorithm matmul_choices_add(const MatmulChoices& c, const MatmulKey& key, const MatmulAlgorithm& chosen,
                                   const std::optional<MatmulAlgorithm>& refused);
