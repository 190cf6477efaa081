// Checkpoints: runs/NAME/checkpoints/step-NNNNNNNN/ with model.safetensors, optimizer.safetensors, state.json, manifest.json.
// Nothing that was reported as saved is ever lost. Protocol: write everything into step-N.tmp/, fsync each file, write the
// manifest (XXH3-128 and size of every file), fsync it and the folder, rename to step-N, fsync the parent, then move `latest`
// (a small text file, itself replaced by rename). Afterwards all but the newest `keep` are removed.
// Reading: the newest checkpoint whose manifest verifies. One that does not is named on stderr, and the one before it is used.
#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "runtime/run/safetensors.h"

struct CheckpointWriter {
    std::string run_dir;
    int keep = 2;
};

// state_json: whatever decides the future besides the tensors. Returns the final folder. On failure (disk full, ...) the
// temporary folder is removed, older checkpoints stay, and the error says bytes needed and free.
std::string checkpoint_save(const CheckpointWriter& w, int64_t step, const std::vector<TensorToWrite>& model,
                            const std::vector<TensorToWrite>& optimizer, const std::string& state_json);

struct CheckpointFound {
    std::string dir;             // "" when there is none
    int64_t step = -1;
    std::string state_json;
};
// The newest checkpoint that verifies. Fails if there are checkpoints but none verifies, or if there are none although
// RUN/saved says that one was saved.
CheckpointFound checkpoint_find(const std::string& run_dir);
// The checkpoint at a path: the newest of a run's folder, or the one whose folder this is. Empty as checkpoint_find's.
CheckpointFound checkpoint_at(const std::string& path);
int64_t step_of_checkpoint(const std::string& dir);      // from its name; -1: not one
// One checkpoint's folder: fails, naming file and tensor, when anything in it is not what was written. Returns state_json.
std::string checkpoint_verify(const std::string& dir);
