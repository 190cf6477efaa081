// safetensors files: 8 bytes header length (little endian), a JSON header {name: {dtype, shape, data_offsets}}, the data.
// https://github.com/huggingface/safetensors. Read by any safetensors reader; never pickle.
// The parser trusts nothing: header length capped, offsets checked, no overlap, no hole, no duplicate name.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

struct TensorInfo {
    std::string name, dtype;                 // "F32", "F64", "BF16", "I64", "U8", ...; dtype_bytes knows them
    std::vector<int64_t> shape;
    uint64_t begin = 0, end = 0;             // byte offsets into the data part
};

struct SafetensorsFile {
    std::string path;
    std::vector<TensorInfo> tensors;         // by offset
    std::map<std::string, std::string> metadata;
    uint64_t data_start = 0, file_bytes = 0;
    const TensorInfo* find(const std::string& name) const;
};

size_t dtype_bytes(const std::string& dtype);                                  // 0: unknown
SafetensorsFile safetensors_open(const std::string& path);                     // header only, fully checked
void safetensors_read(const SafetensorsFile&, const TensorInfo&, void* out);   // pread of one tensor
void safetensors_read_range(const SafetensorsFile&, const TensorInfo&, uint64_t offset, size_t bytes, void* out);    // of a part of it

// One tensor to write; `fill(offset, bytes, out)` delivers a piece of its bytes, so that no second copy of the model exists.
struct TensorToWrite {
    std::string name, dtype;
    std::vector<int64_t> shape;
    std::function<void(uint64_t offset, size_t bytes, void* out)> fill;
};
// Writes, fsyncs and returns the XXH3-128 of the whole file (hex), computed while writing. A file that fails is removed.
// tensor_hashes: receives the XXH3-128 of every tensor's bytes, so that damage can be named later.
std::string safetensors_write(const std::string& path, const std::vector<TensorToWrite>& tensors,
                              const std::map<std::string, std::string>& metadata,
                              std::map<std::string, std::string>* tensor_hashes = nullptr);
uint64_t tensor_bytes(const TensorToWrite&);                                   // fails on overflow, an unknown dtype, a negative size
