// See inspect.h.
#include "runtime/run/inspect.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

#include "runtime/run/checkpoint.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"

namespace fs = std::filesystem;

static constexpr size_t PIECE_BYTES = 4 << 20;       // a multiple of every element size

InspectSource inspect_open(const std::string& path) {
    InspectSource s;
    s.path = path;
    if (!fs::is_directory(path)) {
        s.files.push_back(safetensors_open(path));
        return s;
    }
    if (fs::is_directory(path + "/checkpoints")) {
        s.path = checkpoint_find(path).dir;
        ensure(!s.path.empty(), "%s: this run has no checkpoint yet", path.c_str());
    }
    s.has_manifest = file_exists(s.path + "/manifest.json");
    if (s.has_manifest) {
        try {
            s.state_json = checkpoint_verify(s.path);
        } catch (const Error& e) {
            s.problem = e.what();
        }
    }
    for (const char* name : {"/model.safetensors", "/optimizer.safetensors"}) {
        if (!file_exists(s.path + name)) continue;
        try {
            s.files.push_back(safetensors_open(s.path + name));
        } catch (const Error& e) {
            if (s.problem.empty()) s.problem = e.what();
        }
    }
    ensure(!s.files.empty(), "%s: %s", s.path.c_str(),
           s.problem.empty() ? "neither a run, nor a checkpoint, nor a .safetensors file" : s.problem.c_str());
    return s;
}

// ---- elements as double

template <class T> static void widen(const char* bytes, size_t n, double* out) {
    for (size_t i = 0; i < n; i++) {
        T x;
        memcpy(&x, bytes + i * sizeof(T), sizeof(T));
        out[i] = double(x);
    }
}

static double half_to_double(uint16_t h) {           // IEEE 754 binary16
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                             : exponent == 31 ? (fraction ? NAN : INFINITY)
                                              : std::ldexp(1024 + fraction, exponent - 25);
    return h >> 15 ? -magnitude : magnitude;
}

static void decode(const std::string& dtype, const char* bytes, size_t n, double* out) {
    if (dtype == "F32") return widen<float>(bytes, n, out);
    if (dtype == "F64") return widen<double>(bytes, n, out);
    if (dtype == "I64") return widen<int64_t>(bytes, n, out);
    if (dtype == "I32") return widen<int32_t>(bytes, n, out);
    if (dtype == "I16") return widen<int16_t>(bytes, n, out);
    if (dtype == "I8") return widen<int8_t>(bytes, n, out);
    if (dtype == "U64") return widen<uint64_t>(bytes, n, out);
    if (dtype == "U32") return widen<uint32_t>(bytes, n, out);
    if (dtype == "U16") return widen<uint16_t>(bytes, n, out);
    if (dtype == "U8" || dtype == "BOOL") return widen<uint8_t>(bytes, n, out);
    ensure(dtype == "BF16" || dtype == "F16", "dtype %s: its values cannot be shown", dtype.c_str());
    for (size_t i = 0; i < n; i++) {
        uint16_t x;
        memcpy(&x, bytes + 2 * i, 2);
        out[i] = dtype == "F16" ? half_to_double(x) : double(std::bit_cast<float>(uint32_t(x) << 16));
    }
}

// A tensor read piece by piece.
struct Pieces {
    const SafetensorsFile& f;
    const TensorInfo& t;
    int fd;
    uint64_t at = 0;
    std::vector<char> bytes;
    Pieces(const SafetensorsFile& file, const TensorInfo& tensor) : f(file), t(tensor), fd(open_to_read(file.path)) {}
    ~Pieces() { close(fd); }
    Pieces(const Pieces&) = delete;
    Pieces& operator=(const Pieces&) = delete;
    bool next() {
        bytes.resize(std::min<uint64_t>(PIECE_BYTES, t.end - t.begin - at));
        pread_fully(fd, bytes.data(), bytes.size(), f.data_start + t.begin + at, f.path);
        at += bytes.size();
        return !bytes.empty();
    }
};

TensorStats inspect_tensor(const SafetensorsFile& f, const TensorInfo& t) {
    TensorStats s;
    s.name = t.name, s.dtype = t.dtype, s.shape = t.shape;
    const size_t element_bytes = dtype_bytes(t.dtype);
    s.elements = (t.end - t.begin) / element_bytes;
    double sum = 0, squares = 0;
    s.min = INFINITY, s.max = -INFINITY;
    Hasher hash;
    std::vector<double> values;
    for (Pieces p(f, t); p.next();) {
        hash.add(p.bytes.data(), p.bytes.size());
        values.resize(p.bytes.size() / element_bytes);
        decode(t.dtype, p.bytes.data(), values.size(), values.data());
        for (double x : values) {
            if (!std::isfinite(x)) {
                s.not_finite++;
                continue;
            }
            sum += x, squares += x * x;
            s.min = std::min(s.min, x), s.max = std::max(s.max, x);
        }
    }
    const uint64_t finite = s.elements - s.not_finite;
    s.mean = finite ? sum / double(finite) : NAN;
    s.norm = std::sqrt(squares);
    if (!finite) s.min = s.max = NAN;
    s.checksum = hash.hex();
    return s;
}

// ---- comparing

static TensorDifference compare_tensors(const SafetensorsFile& fa, const TensorInfo& a, const SafetensorsFile& fb, const TensorInfo& b) {
    TensorDifference d;
    d.name = a.name;
    if (a.shape != b.shape || a.dtype != b.dtype) {
        d.problem = a.dtype + " " + shape_text(a.shape) + " in A, " + b.dtype + " " + shape_text(b.shape) + " in B";
        return d;
    }
    const size_t element_bytes = dtype_bytes(a.dtype);
    d.elements = (a.end - a.begin) / element_bytes;
    std::vector<double> x, y;
    for (Pieces p(fa, a), q(fb, b); p.next() && q.next();) {
        if (p.bytes == q.bytes) continue;
        x.resize(p.bytes.size() / element_bytes), y.resize(x.size());
        decode(a.dtype, p.bytes.data(), x.size(), x.data());
        decode(a.dtype, q.bytes.data(), y.size(), y.data());
        for (size_t i = 0; i < x.size(); i++) {
            if (memcmp(&p.bytes[i * element_bytes], &q.bytes[i * element_bytes], element_bytes) == 0) continue;
            d.differing++;
            const double difference = x[i] == y[i] ? 0 : std::abs(x[i] - y[i]);        // equal: +0 and -0, infinities
            if (!(difference <= d.max_abs_difference)) d.max_abs_difference = std::isnan(d.max_abs_difference) ? NAN : difference;
        }
    }
    return d;
}

static std::pair<const SafetensorsFile*, const TensorInfo*> find_tensor(const InspectSource& s, const std::string& name) {
    for (const SafetensorsFile& f : s.files)
        if (const TensorInfo* t = f.find(name)) return {&f, t};
    return {nullptr, nullptr};
}

std::vector<TensorDifference> inspect_compare(const InspectSource& a, const InspectSource& b) {
    std::vector<TensorDifference> all;
    for (const SafetensorsFile& f : a.files)
        for (const TensorInfo& t : f.tensors) {
            const auto [other_file, other] = find_tensor(b, t.name);
            if (other) all.push_back(compare_tensors(f, t, *other_file, *other));
            else all.push_back({t.name, "only in A", 0, 0, 0});
        }
    for (const SafetensorsFile& f : b.files)
        for (const TensorInfo& t : f.tensors)
            if (!find_tensor(a, t.name).second) all.push_back({t.name, "only in B", 0, 0, 0});
    return all;
}

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string s = "(";
    for (size_t i = 0; i < shape.size(); i++) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + ")";
}
