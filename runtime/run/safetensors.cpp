// Reading and writing safetensors; see safetensors.h. Every number of a file is checked before it is used.
#include "runtime/run/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "runtime/run/error.h"
#include "runtime/run/files.h"

using nlohmann::json;

static constexpr uint64_t HEADER_MAX_BYTES = 100'000'000;     // the limit of the reference implementation
static constexpr size_t MAX_DIMENSIONS = 16, MAX_TENSORS = 100'000;
static constexpr size_t PIECE_BYTES = 1 << 20;               // read, hashed twice and written while it is in the cache
// A header is {name: {dtype, shape: [..], data_offsets: [..]}}: three levels. The total bounds the parsed form to about 10 MB
// for a thousand tensors and 100 MB at worst, whatever the header's size.
static constexpr JsonLimits HEADER_LIMITS = {3, MAX_TENSORS, 1'000'000};

size_t dtype_bytes(const std::string& dtype) {
    static const std::map<std::string, size_t> BYTES = {
        {"BOOL", 1}, {"U8", 1}, {"I8", 1}, {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2}, {"BF16", 2},
        {"I32", 4}, {"U32", 4}, {"F32", 4}, {"F64", 8}, {"I64", 8}, {"U64", 8}};
    auto found = BYTES.find(dtype);
    return found == BYTES.end() ? 0 : found->second;
}

// Bytes of a tensor of this shape; false when they do not fit 64 bits.
static bool shape_bytes(const std::vector<int64_t>& shape, size_t element_bytes, uint64_t& bytes) {
    bytes = element_bytes;
    bool empty = false;
    for (int64_t n : shape) {
        if (n < 0) return false;
        if (n == 0) empty = true;
        else if (__builtin_mul_overflow(bytes, uint64_t(n), &bytes)) return false;
    }
    if (empty) bytes = 0;
    return true;
}

// ---- reading

static TensorInfo parse_tensor(const std::string& name, const json& j, const std::string& where, uint64_t data_bytes) {
    const std::string at = where + ": tensor '" + printable(name) + "'";
    ensure(j.is_object() && j.size() == 3 && j.contains("dtype") && j.contains("shape") && j.contains("data_offsets"),
           "%s: expected exactly dtype, shape and data_offsets", at.c_str());
    const json &dtype = j["dtype"], &shape = j["shape"], &offsets = j["data_offsets"];
    TensorInfo t;
    t.name = name;
    ensure(dtype.is_string() && dtype_bytes(dtype) > 0, "%s: unknown dtype %s", at.c_str(), printable(dtype.dump()).c_str());
    t.dtype = dtype;
    ensure(shape.is_array() && shape.size() <= MAX_DIMENSIONS, "%s: shape is not a list of at most %zu sizes", at.c_str(), MAX_DIMENSIONS);
    for (const json& n : shape) {
        ensure(n.is_number_unsigned() && n.get<uint64_t>() <= INT64_MAX,
               "%s: size %s in its shape is not a whole number, 0 or more", at.c_str(), printable(n.dump()).c_str());
        t.shape.push_back(n.get<int64_t>());
    }
    ensure(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned(),
           "%s: data_offsets is not a pair of whole numbers", at.c_str());
    t.begin = offsets[0].get<uint64_t>();
    t.end = offsets[1].get<uint64_t>();
    ensure(t.begin <= t.end && t.end <= data_bytes,
           "%s: data_offsets %llu to %llu do not lie in the %llu bytes of data; truncated?", at.c_str(),
           (unsigned long long)t.begin, (unsigned long long)t.end, (unsigned long long)data_bytes);
    uint64_t bytes;
    ensure(shape_bytes(t.shape, dtype_bytes(t.dtype), bytes) && bytes == t.end - t.begin,
           "%s: its shape and dtype do not give the %llu bytes of its data_offsets", at.c_str(), (unsigned long long)(t.end - t.begin));
    return t;
}

static void parse_header(SafetensorsFile& f, const std::string& text) {
    const uint64_t data_bytes = f.file_bytes - f.data_start;
    ensure(!text.empty() && text[0] == '{', "%s: byte 8: the header does not begin with '{'; not a safetensors file", f.path.c_str());
    const json header = json_parse(text, f.path + ": header", HEADER_LIMITS);
    for (const auto& [name, value] : header.items()) {
        if (name != "__metadata__") {
            f.tensors.push_back(parse_tensor(name, value, f.path, data_bytes));
            continue;
        }
        ensure(value.is_object(), "%s: __metadata__ is not an object", f.path.c_str());
        for (const auto& [key, text_value] : value.items()) {
            ensure(text_value.is_string(), "%s: __metadata__: '%s' is not a text", f.path.c_str(), printable(key).c_str());
            f.metadata[key] = text_value;
        }
    }
    std::sort(f.tensors.begin(), f.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
        return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    uint64_t expected = 0;
    for (const TensorInfo& t : f.tensors) {
        ensure(t.begin == expected, "%s: tensor '%s' begins at byte %llu of the data, expected %llu: %s", f.path.c_str(),
               printable(t.name).c_str(), (unsigned long long)t.begin, (unsigned long long)expected,
               t.begin < expected ? "tensors overlap" : "a hole");
        expected = t.end;
    }
    ensure(expected == data_bytes, "%s: the tensors end at byte %llu of the data, which has %llu", f.path.c_str(),
           (unsigned long long)expected, (unsigned long long)data_bytes);
}

SafetensorsFile safetensors_open(const std::string& path) {
    SafetensorsFile f;
    f.path = path;
    const int fd = open_to_read(path);
    try {
        f.file_bytes = file_size(fd, path);
        ensure(f.file_bytes >= 8, "%s: %llu bytes, too short for a safetensors file", path.c_str(), (unsigned long long)f.file_bytes);
        uint64_t header_bytes;
        pread_fully(fd, &header_bytes, 8, 0, path);
        ensure(header_bytes <= HEADER_MAX_BYTES && header_bytes <= f.file_bytes - 8,
               "%s: byte 0: a header of %llu bytes, but the file has %llu and %llu is the most; damaged, or not a safetensors file",
               path.c_str(), (unsigned long long)header_bytes, (unsigned long long)f.file_bytes, (unsigned long long)HEADER_MAX_BYTES);
        std::string text(header_bytes, '\0');
        pread_fully(fd, text.data(), header_bytes, 8, path);
        f.data_start = 8 + header_bytes;
        parse_header(f, text);
    } catch (...) {
        close(fd);
        throw;
    }
    close(fd);
    return f;
}

const TensorInfo* SafetensorsFile::find(const std::string& name) const {
    for (const TensorInfo& t : tensors)
        if (t.name == name) return &t;
    return nullptr;
}

void safetensors_read(const SafetensorsFile& f, const TensorInfo& t, void* out) {
    safetensors_read_range(f, t, 0, size_t(t.end - t.begin), out);
}

void safetensors_read_range(const SafetensorsFile& f, const TensorInfo& t, uint64_t offset, size_t bytes, void* out) {
    ensure(offset <= t.end - t.begin && bytes <= t.end - t.begin - offset, "%s: tensor %s has no %zu bytes at %llu",
           f.path.c_str(), t.name.c_str(), bytes, (unsigned long long)offset);
    const int fd = open_to_read(f.path);
    try {
        pread_fully(fd, out, bytes, f.data_start + t.begin + offset, f.path);
    } catch (...) {
        close(fd);
        throw;
    }
    close(fd);
}

// ---- writing

uint64_t tensor_bytes(const TensorToWrite& t) {
    const size_t element_bytes = dtype_bytes(t.dtype);
    ensure(element_bytes > 0, "tensor '%s': unknown dtype '%s'", t.name.c_str(), t.dtype.c_str());
    uint64_t bytes;
    ensure(t.shape.size() <= MAX_DIMENSIONS && shape_bytes(t.shape, element_bytes, bytes), "tensor '%s': impossible shape", t.name.c_str());
    return bytes;
}

std::string safetensors_write(const std::string& path, const std::vector<TensorToWrite>& tensors,
                              const std::map<std::string, std::string>& metadata, std::map<std::string, std::string>* tensor_hashes) {
    nlohmann::ordered_json header = json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    uint64_t offset = 0;
    for (const TensorToWrite& t : tensors) {
        ensure(t.name != "__metadata__" && !header.contains(t.name), "%s: two tensors are named '%s'", path.c_str(), t.name.c_str());
        const uint64_t end = offset + tensor_bytes(t);
        header[t.name] = {{"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {offset, end}}};
        offset = end;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');            // so that the data starts aligned
    const uint64_t header_bytes = text.size();
    ensure(header_bytes <= HEADER_MAX_BYTES && tensors.size() < MAX_TENSORS, "%s: too many tensors for one file", path.c_str());

    FileWriter w(path);
    w.write(&header_bytes, 8);
    w.write(text.data(), text.size());
    std::vector<char> piece;
    for (const TensorToWrite& t : tensors) {
        const uint64_t bytes = tensor_bytes(t);
        Hasher hash;
        for (uint64_t at = 0; at < bytes; at += piece.size()) {
            piece.resize(std::min<uint64_t>(PIECE_BYTES, bytes - at));
            t.fill(at, piece.size(), piece.data());
            w.write(piece.data(), piece.size());
            if (tensor_hashes) hash.add(piece.data(), piece.size());
        }
        if (tensor_hashes) (*tensor_hashes)[t.name] = hash.hex();
    }
    return w.finish();
}
