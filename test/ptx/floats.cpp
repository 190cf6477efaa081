// Floating-point instructions, their comparisons and conversions [PTX ISA 9.7.3 to 9.7.6, and cvt in 9.7.9].
// .ftz: denormal operands and results become zeros of their sign. A NaN result is the canonical one, 0x7fffffff.
// Rounding is to nearest even but where the name has .rm (down). No two operations are contracted into one (the
// Makefile compiles this file with -ffp-contract=off); fma is one rounding.
#include <cfenv>
#include <cmath>
#include <utility>

#include "test/ptx/forms.h"

namespace ptx {
namespace {
uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
float from_bits(uint32_t u) { return std::bit_cast<float>(u); }

template <bool FTZ> float in(float x) {
    if (!FTZ) return x;
    uint32_t u = bits(x);
    return from_bits((u & 0x7f800000u) == 0 ? u & 0x80000000u : u);
}
template <bool FTZ> float out(float x) { return x != x ? from_bits(0x7fffffffu) : in<FTZ>(x); }

// Z: with .ftz
template <bool Z> float add(float a, float b) { return out<Z>(in<Z>(a) + in<Z>(b)); }
template <bool Z> float sub(float a, float b) { return out<Z>(in<Z>(a) - in<Z>(b)); }
template <bool Z> float mul(float a, float b) { return out<Z>(in<Z>(a) * in<Z>(b)); }
template <bool Z> float div(float a, float b) { return out<Z>(in<Z>(a) / in<Z>(b)); }
template <bool Z> float fma(float a, float b, float c) { return out<Z>(std::fma(in<Z>(a), in<Z>(b), in<Z>(c))); }
template <bool Z> float rcp(float a) { return out<Z>(1.0f / in<Z>(a)); }
template <bool Z> float sqrt(float a) { return out<Z>(std::sqrt(in<Z>(a))); }
template <bool Z> float neg(float a) { return out<Z>(-in<Z>(a)); }
template <bool Z> float abs(float a) { return out<Z>(std::fabs(in<Z>(a))); }
// The number, where one operand is a NaN; -0 is less than +0.
template <bool Z> float min(float a, float b) {
    float x = in<Z>(a), y = in<Z>(b);
    if (x == y) return from_bits(bits(x) | bits(y));
    return y != y || x < y ? out<Z>(x) : out<Z>(y);
}
template <bool Z> float max(float a, float b) {
    float x = in<Z>(a), y = in<Z>(b);
    if (x == y) return from_bits(bits(x) & bits(y));
    return y != y || x > y ? out<Z>(x) : out<Z>(y);
}
template <bool Z> float saturate(float a) {                  // to 0 .. 1; NaN becomes +0
    float x = in<Z>(a);
    return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
double add_d(double a, double b) { return a + b; }
double sub_d(double a, double b) { return a - b; }
double mul_d(double a, double b) { return a * b; }
double fma_d(double a, double b, double c) { return std::fma(a, b, c); }
double sqrt_d(double a) { return std::sqrt(a); }

// The exact value rounded, or moved by up to approximate_ulp, by a hash of the operand.
float approximate(double exact, float operand) {
    float x = float(exact);
    if (approximate_ulp == 0 || !std::isnormal(x) || exact == 1.0) return x;
    uint32_t hash = (bits(operand) ^ bits(operand) >> 15) * 0x9E3779B1u >> 8;
    int by = int(hash % uint32_t(2 * approximate_ulp + 1)) - approximate_ulp;
    return from_bits(bits(x) + uint32_t(by));
}
template <bool Z> float ex2(float a) { return out<Z>(approximate(std::exp2(double(in<Z>(a))), a)); }
template <bool Z> float rsqrt(float a) { return out<Z>(approximate(1.0 / std::sqrt(double(in<Z>(a))), a)); }

// Rounding down: the processor's own, for the lanes of one instruction.
void fma_rm_ftz(Warp& w, const Instruction& i, Mask active) {
    std::fesetround(FE_DOWNWARD);
    EachLane<&fma<true>>::execute(w, i, active);
    std::fesetround(FE_TONEAREST);
}

// ---- comparisons. Ordered ones (lt) are false with a NaN, unordered ones (ltu) true.
bool nan(float a, float b) { return a != a || b != b; }
bool num(float a, float b) { return !nan(a, b); }
template <bool Z> bool eq(float a, float b) { return in<Z>(a) == in<Z>(b); }
template <bool Z> bool ne(float a, float b) { return !nan(a, b) && in<Z>(a) != in<Z>(b); }
template <bool Z> bool lt(float a, float b) { return in<Z>(a) < in<Z>(b); }
template <bool Z> bool le(float a, float b) { return in<Z>(a) <= in<Z>(b); }
template <bool Z> bool gt(float a, float b) { return in<Z>(a) > in<Z>(b); }
template <bool Z> bool ge(float a, float b) { return in<Z>(a) >= in<Z>(b); }
template <bool Z> bool equ(float a, float b) { return !ne<Z>(a, b); }
template <bool Z> bool neu(float a, float b) { return !eq<Z>(a, b); }
template <bool Z> bool ltu(float a, float b) { return !ge<Z>(a, b); }
template <bool Z> bool leu(float a, float b) { return !gt<Z>(a, b); }
template <bool Z> bool gtu(float a, float b) { return !le<Z>(a, b); }
template <bool Z> bool geu(float a, float b) { return !lt<Z>(a, b); }

// ---- conversions
uint32_t bf16_of(float x) {                                  // to nearest even; NaN: canonical
    uint32_t u = bits(x), rest = u & 0xffffu;
    uint32_t up = rest > 0x8000u || (rest == 0x8000u && (u >> 16 & 1)) ? 1 : 0;
    return x != x ? 0x7fffu : (u >> 16) + up;
}
uint16_t cvt_bf16(float a) { return uint16_t(bf16_of(a)); }
// The first operand goes to the upper half.
uint32_t cvt_bf16x2(float high, float low) { return bf16_of(high) << 16 | bf16_of(low); }
template <class From> float from_integer(From a) { return float(a); }
template <class From> float from_low(uint64_t a) { return float(From(a)); }
double f64_from_f32_ftz(float a) { return double(in<true>(a)); }
float f32_from_f64_ftz(double a) { return out<true>(float(a)); }

template <bool Z> void add_floats(Forms& f, const std::string& type) {       // "f32" or "ftz.f32"
    add_each<&add<Z>>(f, "add." + type);
    add_each<&sub<Z>>(f, "sub." + type);
    add_each<&mul<Z>>(f, "mul." + type);
    add_each<&fma<Z>>(f, "fma.rn." + type);
    add_each<&div<Z>>(f, "div.rn." + type);
    add_each<&rcp<Z>>(f, "rcp.rn." + type);
    add_each<&sqrt<Z>>(f, "sqrt.rn." + type);
    add_each<&neg<Z>>(f, "neg." + type);
    add_each<&abs<Z>>(f, "abs." + type);
    add_each<&min<Z>>(f, "min." + type);
    add_each<&max<Z>>(f, "max." + type);
    add_each<&ex2<Z>>(f, "ex2.approx." + type);
    add_each<&rsqrt<Z>>(f, "rsqrt.approx." + type);
    add_each<&saturate<Z>>(f, Z ? "cvt.ftz.sat.f32.f32" : "cvt.sat.f32.f32");
    const std::pair<const char*, Execute> compares[] = {
        {"eq", &compare<float, &eq<Z>>},   {"ne", &compare<float, &ne<Z>>},   {"lt", &compare<float, &lt<Z>>},
        {"le", &compare<float, &le<Z>>},   {"gt", &compare<float, &gt<Z>>},   {"ge", &compare<float, &ge<Z>>},
        {"equ", &compare<float, &equ<Z>>}, {"neu", &compare<float, &neu<Z>>}, {"ltu", &compare<float, &ltu<Z>>},
        {"leu", &compare<float, &leu<Z>>}, {"gtu", &compare<float, &gtu<Z>>}, {"geu", &compare<float, &geu<Z>>},
        {"num", &compare<float, &num>},    {"nan", &compare<float, &nan>}};
    for (auto [name, execute] : compares) f["setp." + std::string(name) + "." + type] = {execute, "p=ww"};
}
}  // namespace

void add_float_forms(Forms& f) {
    add_floats<false>(f, "f32");
    add_floats<true>(f, "ftz.f32");
    f["fma.rm.ftz.f32"] = {&fma_rm_ftz, "w=www"};
    add_each<&add_d>(f, "add.f64");
    add_each<&sub_d>(f, "sub.f64");
    add_each<&mul_d>(f, "mul.f64");
    add_each<&fma_d>(f, "fma.rn.f64");
    add_each<&sqrt_d>(f, "sqrt.rn.f64");
    add_each<&from_integer<int32_t>>(f, "cvt.rn.f32.s32");
    add_each<&from_integer<uint32_t>>(f, "cvt.rn.f32.u32");
    add_each<&from_low<int32_t>>(f, "cvt.rn.f32.s32.low");       // see integers.cpp
    add_each<&f64_from_f32_ftz>(f, "cvt.ftz.f64.f32");
    add_each<&f32_from_f64_ftz>(f, "cvt.rn.ftz.f32.f64");
    add_each<&cvt_bf16>(f, "cvt.rn.bf16.f32");
    add_each<&cvt_bf16x2>(f, "cvt.rn.bf16x2.f32");
}
}  // namespace ptx
