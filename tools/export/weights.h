// Tensors on their way between two safetensors files: read as float, transposed, stacked, cut. One tensor is in memory at a time.
#pragma once
#include <cmath>
#include <cstring>
#include <memory>

#include "runtime/run/error.h"
#include "runtime/run/safetensors.h"

using Floats = std::vector<float>;
using MakeFloats = std::function<Floats()>;

inline float half_to_float(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                             : exponent == 31 ? (fraction ? NAN : INFINITY)
                                              : std::ldexp(1024 + fraction, exponent - 25);
    return float(bits >> 15 ? -magnitude : magnitude);
}

inline const TensorInfo& tensor_named(const SafetensorsFile& f, const std::string& name) {
    const TensorInfo* t = f.find(name);
    ensure(t, "%s: tensor %s is missing", f.path.c_str(), name.c_str());
    return *t;
}

// A tensor as floats; shape: what it must be.
inline Floats tensor_floats(const SafetensorsFile& f, const std::string& name, const std::vector<int64_t>& shape) {
    const TensorInfo& t = tensor_named(f, name);
    auto text = [](const std::vector<int64_t>& s) {
        std::string out;
        for (int64_t n : s) out += (out.empty() ? "" : " x ") + std::to_string(n);
        return out;
    };
    ensure(t.shape == shape, "%s: tensor %s is %s, expected %s", f.path.c_str(), name.c_str(), text(t.shape).c_str(), text(shape).c_str());
    const size_t width = dtype_bytes(t.dtype), count = width ? size_t(t.end - t.begin) / width : 0;
    std::vector<char> raw(size_t(t.end - t.begin));
    safetensors_read(f, t, raw.data());
    Floats out(count);
    auto convert = [&]<class Stored>(Stored x, auto to_float) {
        for (size_t i = 0; i < count; i++) {
            memcpy(&x, raw.data() + i * sizeof x, sizeof x);
            out[i] = to_float(x);
        }
    };
    if (t.dtype == "F32") convert(float(), [](float x) { return x; });
    else if (t.dtype == "F64") convert(double(), [](double x) { return float(x); });
    else if (t.dtype == "F16") convert(uint16_t(), half_to_float);
    else if (t.dtype == "BF16") convert(uint16_t(), [](uint16_t x) {
        const uint32_t wide = uint32_t(x) << 16;
        float value;
        memcpy(&value, &wide, 4);
        return value;
    });
    else fail("%s: tensor %s has type %s; weights are F64, F32, BF16 or F16", f.path.c_str(), name.c_str(), t.dtype.c_str());
    return out;
}

inline Floats transposed(const Floats& m, int64_t rows, int64_t columns) {       // (rows, columns) -> (columns, rows)
    Floats out(m.size());
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) out[size_t(c * rows + r)] = m[size_t(r * columns + c)];
    return out;
}
inline Floats stacked(std::initializer_list<Floats> parts) {                     // by rows, one below the other
    Floats out;
    for (const Floats& p : parts) out.insert(out.end(), p.begin(), p.end());
    return out;
}
inline Floats rows_of(const Floats& m, int64_t first, int64_t rows, int64_t columns) {
    return Floats(m.begin() + first * columns, m.begin() + (first + rows) * columns);
}

// The tensor is made when its first byte is asked for and dropped after its last.
inline TensorToWrite tensor_from(const std::string& name, const std::vector<int64_t>& shape, MakeFloats make) {
    auto values = std::make_shared<Floats>();
    return {name, "F32", shape, [=](uint64_t offset, size_t bytes, void* out) {
                if (offset == 0) *values = make();
                ensure(offset + bytes <= values->size() * sizeof(float),
                       "tensor %s: %zu elements were made, more were expected", name.c_str(), values->size());
                memcpy(out, reinterpret_cast<const char*>(values->data()) + offset, bytes);
                if (offset + bytes == values->size() * sizeof(float)) Floats().swap(*values);
            }};
}
