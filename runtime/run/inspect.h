// Looking into checkpoints: whether one is whole, what is in each tensor, where two differ. For build/inspect and the tests.
// Reads piece by piece, so a checkpoint larger than memory is no problem. Not for training: nothing here changes a file.
#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "runtime/run/safetensors.h"

struct InspectSource {
    std::string path;                        // the checkpoint folder, or one .safetensors file
    std::string problem;                     // why its manifest does not verify; "" when it does, or for a single file
    bool has_manifest = false;
    std::string state_json;                  // "" when there is none or it cannot be trusted
    std::vector<SafetensorsFile> files;
};
// path: a run (its newest whole checkpoint), a checkpoint folder, or a .safetensors file.
InspectSource inspect_open(const std::string& path);

struct TensorStats {
    std::string name, dtype, checksum;       // XXH3-128 of the bytes
    std::vector<int64_t> shape;
    uint64_t elements = 0, not_finite = 0;
    double norm = 0, mean = 0, min = 0, max = 0;     // of the finite elements; norm = sqrt(sum x^2)
};
TensorStats inspect_tensor(const SafetensorsFile& f, const TensorInfo& t);

struct TensorDifference {
    std::string name;
    std::string problem;                     // "only in A", "shape or dtype differ: ..."; "" when they can be compared
    uint64_t elements = 0, differing = 0;    // differing: other bits
    double max_abs_difference = 0;           // NaN when a NaN is on one side only
};
// One entry per tensor of either side, in the order of A.
std::vector<TensorDifference> inspect_compare(const InspectSource& a, const InspectSource& b);

std::string shape_text(const std::vector<int64_t>& shape);       // "(64, 32)"
