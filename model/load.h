// A model's weights from a safetensors file, whatever floating-point type they are stored in: for the programs that use a trained
// model. (The trainer's own restoring, with optimizer state and shares of ranks, is stricter.)
#pragma once
#include <cmath>
#include <cstring>

#include "model/memory.h"
#include "runtime/run/safetensors.h"

inline floatM half_to_float(uint16_t bits) {     // IEEE half precision
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                             : exponent == 31 ? (fraction ? NAN : INFINITY)
                                              : std::ldexp(1024 + fraction, exponent - 25);
    return floatM(bits >> 15 ? -magnitude : magnitude);
}

// A tensor's elements as floatM.
inline std::vector<floatM> read_floats(const SafetensorsFile& f, const TensorInfo& t) {
    const size_t width = dtype_bytes(t.dtype), count = width ? size_t(t.end - t.begin) / width : 0;
    std::vector<char> raw(size_t(t.end - t.begin));
    safetensors_read(f, t, raw.data());
    std::vector<floatM> out(count);
    auto convert = [&]<class Stored>(Stored, auto to_float) {
        for (size_t i = 0; i < count; i++) {
            Stored x;
            memcpy(&x, raw.data() + i * sizeof x, sizeof x);
            out[i] = floatM(to_float(x));
        }
    };
    if (t.dtype == "F32") convert(float(), [](float x) { return x; });
    else if (t.dtype == "F64") convert(double(), [](double x) { return x; });
    else if (t.dtype == "F16") convert(uint16_t(), [](uint16_t x) { return half_to_float(x); });
    else if (t.dtype == "BF16") convert(uint16_t(), [](uint16_t x) {
        const uint32_t wide = uint32_t(x) << 16;
        float value;
        memcpy(&value, &wide, 4);
        return value;
    });
    else fail("%s: tensor %s has type %s; weights are F64, F32, BF16 or F16", f.path.c_str(), t.name.c_str(), t.dtype.c_str());
    return out;
}

inline std::string shape_of(const std::vector<int64_t>& shape) {
    std::string text;
    for (int64_t n : shape) text += (text.empty() ? "" : " x ") + std::to_string(n);
    return "(" + text + ")";
}

// Every parameter of g, by name; a missing tensor or another shape fails with the reason.
inline void load_weights(GPT& g, const std::string& path) {
    SafetensorsFile f = safetensors_open(path);
    for (const Param& p : g.params) {
        if (p.size == 0) continue;
        const TensorInfo* t = f.find(p.spec.name);
        ensure(t, "%s: tensor %s is missing; the checkpoint is of another model", path.c_str(), p.spec.name.c_str());
        ensure(t->shape == p.spec.shape, "%s: tensor %s is %s, the model's is %s", path.c_str(), t->name.c_str(),
               shape_of(t->shape).c_str(), shape_of(p.spec.shape).c_str());
        set_weights(g, p, read_floats(f, *t));
    }
}
