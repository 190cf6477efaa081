// Which algorithm the matrix library uses for each product of a run, in a file of the run: a resumed run then adds in the
// same order and keeps its bits, though the choice may have been made by timing (MATMUL_TUNE=1), which no run repeats.
// One file a rank, matmul-RANK.txt in the run's folder, rewritten whole when a shape first comes up:
//   qv.cu matmul choices 1
//   NVIDIA H100 80GB HBM3; cuBLASLt 130004; bf16              <- library: what the choices are good for
//   0 1 65536 768 ... : 3f0000000a 0 ... 0                    <- the product's key; the algorithm, 8 words in hexadecimal
// The algorithm is the library's own 64 bytes, which it allows to be stored for the same version [cuBLAS manual,
// cublasLtMatmulAlgo_t]. Not for sharing between devices or versions: another one's file is not used and is replaced.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

using MatmulKey = std::array<size_t, 20>;                    // matmul_cublaslt.cu's key_of
using MatmulAlgorithm = std::array<uint64_t, 8>;

struct MatmulChoices {
    std::string path, library;                               // path "": nothing is kept
    std::map<MatmulKey, MatmulAlgorithm> algorithm;
};

inline std::string matmul_choices_name(int rank) { return "/matmul-" + std::to_string(rank) + ".txt"; }

// Reads the file if there is one. Returns what a reader of the log should know, "" if nothing: a file for another library
// (its choices are dropped), or one that cannot be understood (dropped too; the run goes on).
std::string matmul_choices_open(MatmulChoices& c, const std::string& path, const std::string& library);
// Adds a choice and writes the file, durably: it is there before any checkpoint that depends on it.
void matmul_choices_add(MatmulChoices& c, const MatmulKey& key, const MatmulAlgorithm& algorithm);
