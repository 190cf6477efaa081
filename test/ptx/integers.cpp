// Integers, bits, predicates, moves and selects [PTX ISA 9.7.1, 9.7.6 to 9.7.9].
#include <utility>

#include "test/ptx/forms.h"

namespace ptx {
namespace {
// ---- arithmetic. Signed numbers wrap: computed unsigned.
template <class T> using U = std::make_unsigned_t<T>;
template <class T> using Twice = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
template <class T> T add(T a, T b) { return T(U<T>(a) + U<T>(b)); }
template <class T> T sub(T a, T b) { return T(U<T>(a) - U<T>(b)); }
template <class T> T mul_lo(T a, T b) { return T(U<T>(a) * U<T>(b)); }
template <class T> T mad_lo(T a, T b, T c) { return T(U<T>(a) * U<T>(b) + U<T>(c)); }
template <class T> Twice<T> mul_wide(T a, T b) { return Twice<T>(a) * Twice<T>(b); }
template <class T> Twice<T> mad_wide(T a, T b, Twice<T> c) { return add<Twice<T>>(mul_wide<T>(a, b), c); }
template <class T> T mul_hi(T a, T b) { return T(mul_wide<T>(a, b) >> 32); }
// Division by zero is unspecified: all ones.
template <class T> T div(T a, T b) {
    if (b == 0) return T(-1);
    if (std::is_signed_v<T> && b == T(-1)) return T(U<T>(0) - U<T>(a));
    return T(a / b);
}
template <class T> T rem(T a, T b) {
    if (b == 0) return T(-1);
    if (std::is_signed_v<T> && b == T(-1)) return 0;
    return T(a % b);
}
template <class T> T min(T a, T b) { return a < b ? a : b; }
template <class T> T max(T a, T b) { return a > b ? a : b; }
template <class T> T neg(T a) { return T(U<T>(0) - U<T>(a)); }

// ---- bits
template <class T> T bit_and(T a, T b) { return T(a & b); }
template <class T> T bit_or(T a, T b) { return T(a | b); }
template <class T> T bit_xor(T a, T b) { return T(a ^ b); }
template <class T> T bit_not(T a) { return T(~a); }
// Shifts by more than the width give what shifting step by step would.
template <class T> T shl(T a, uint32_t by) { return by >= 8 * sizeof(T) ? T(0) : T(a << by); }
template <class T> T shr(T a, uint32_t by) {
    if (by >= 8 * sizeof(T)) return std::is_signed_v<T> && a < 0 ? T(-1) : T(0);
    return T(a >> by);
}
// b with `length` bits of a in place of its own from `position` on.
uint32_t bfi(uint32_t a, uint32_t b, uint32_t position, uint32_t length) {
    position &= 0xff;
    length &= 0xff;
    if (position > 31 || length == 0) return b;
    uint32_t field = (length >= 32 ? ALL : (1u << length) - 1) << position;
    return (b & ~field) | (a << position & field);
}
uint32_t pack16(uint16_t low, uint16_t high) { return low | uint32_t(high) << 16; }
uint64_t pack32(uint32_t low, uint32_t high) { return low | uint64_t(high) << 32; }
// Two halves of T, each into a register: the low one first.
template <class T> void unpack(Warp& w, const Instruction& i, Mask active) {
    constexpr int HALF = 4 * sizeof(T);
    uint32_t low[LANES], high[LANES];
    const Cell<T>* a = w.cells<T>(i.from[0]);
    for (int l = 0; l < LANES; l++) {
        low[l] = uint32_t(a[l] & ((T(1) << HALF) - 1));
        high[l] = uint32_t(a[l] >> HALF);
    }
    store_lanes(w.cells<uint32_t>(i.to[0]), low, active);
    store_lanes(w.cells<uint32_t>(i.to[1]), high, active);
}

template <class T> T same(T a) { return a; }
template <class To, class From> To cvt(From a) { return To(a); }
template <class To, class From> To cvt_low(uint64_t a) { return To(From(a)); }

// ---- predicates
void and_pred(Warp& w, const Instruction& i, Mask m) {
    set_predicate(w, i, m, w.predicate(i.from[0]) & w.predicate(i.from[1]));
}
void or_pred(Warp& w, const Instruction& i, Mask m) {
    set_predicate(w, i, m, w.predicate(i.from[0]) | w.predicate(i.from[1]));
}
void xor_pred(Warp& w, const Instruction& i, Mask m) {
    set_predicate(w, i, m, w.predicate(i.from[0]) ^ w.predicate(i.from[1]));
}
void not_pred(Warp& w, const Instruction& i, Mask m) { set_predicate(w, i, m, ~w.predicate(i.from[0])); }
void mov_pred(Warp& w, const Instruction& i, Mask m) { set_predicate(w, i, m, w.predicate(i.from[0])); }

template <class T> void select(Warp& w, const Instruction& i, Mask active) {
    const Cell<T>*a = w.cells<T>(i.from[0]), *b = w.cells<T>(i.from[1]);
    Mask p = w.predicate(i.from[2]);
    Cell<T> result[LANES];
    for (int l = 0; l < LANES; l++) result[l] = p >> l & 1 ? a[l] : b[l];
    store_lanes(w.cells<T>(i.to[0]), result, active);
}
template <class T> bool eq(T a, T b) { return a == b; }
template <class T> bool ne(T a, T b) { return a != b; }
template <class T> bool lt(T a, T b) { return a < b; }
template <class T> bool le(T a, T b) { return a <= b; }
template <class T> bool gt(T a, T b) { return a > b; }
template <class T> bool ge(T a, T b) { return a >= b; }

// ---- the table
template <class T> void add_compares(Forms& f, const std::string& type) {
    const std::string operands = {'p', '=', letter<T>(), letter<T>()};
    f["setp.eq." + type] = {&compare<T, &eq<T>>, operands};
    f["setp.ne." + type] = {&compare<T, &ne<T>>, operands};
    if (type[0] == 'b') return;
    f["setp.lt." + type] = {&compare<T, &lt<T>>, operands};
    f["setp.le." + type] = {&compare<T, &le<T>>, operands};
    f["setp.gt." + type] = {&compare<T, &gt<T>>, operands};
    f["setp.ge." + type] = {&compare<T, &ge<T>>, operands};
}
template <class T> void add_integers(Forms& f, const std::string& type) {
    add_each<&add<T>>(f, "add." + type);
    add_each<&sub<T>>(f, "sub." + type);
    add_each<&mul_lo<T>>(f, "mul.lo." + type);
    add_each<&mad_lo<T>>(f, "mad.lo." + type);
    add_each<&div<T>>(f, "div." + type);
    add_each<&rem<T>>(f, "rem." + type);
    add_each<&min<T>>(f, "min." + type);
    add_each<&max<T>>(f, "max." + type);
    add_each<&shr<T>>(f, "shr." + type);
    if (std::is_signed_v<T>) add_each<&neg<T>>(f, "neg." + type);
    add_compares<T>(f, type);
}
template <class T> void add_bits(Forms& f, const std::string& type) {
    add_each<&bit_and<T>>(f, "and." + type);
    add_each<&bit_or<T>>(f, "or." + type);
    add_each<&bit_xor<T>>(f, "xor." + type);
    add_each<&bit_not<T>>(f, "not." + type);
    add_each<&shl<T>>(f, "shl." + type);
    add_each<&shr<T>>(f, "shr." + type);
    add_compares<T>(f, type);
}
template <class T> void add_moves(Forms& f, const std::string& types) {      // "b32 u32 ..."
    for (size_t at = 0; at < types.size(); at += 4) {
        const std::string type = types.substr(at, 3);
        add_each<&same<T>>(f, "mov." + type);
        f["selp." + type] = {&select<T>, {letter<T>(), '=', letter<T>(), letter<T>(), 'p'}};
    }
}
}  // namespace

void add_integer_forms(Forms& f) {
    add_integers<int32_t>(f, "s32");
    add_integers<uint32_t>(f, "u32");
    add_integers<int64_t>(f, "s64");
    add_integers<uint64_t>(f, "u64");
    add_each<&mul_wide<int32_t>>(f, "mul.wide.s32");
    add_each<&mul_wide<uint32_t>>(f, "mul.wide.u32");
    add_each<&mad_wide<int32_t>>(f, "mad.wide.s32");
    add_each<&mad_wide<uint32_t>>(f, "mad.wide.u32");
    add_each<&mul_hi<int32_t>>(f, "mul.hi.s32");
    add_each<&mul_hi<uint32_t>>(f, "mul.hi.u32");
    add_bits<uint16_t>(f, "b16");
    add_bits<uint32_t>(f, "b32");
    add_bits<uint64_t>(f, "b64");
    add_compares<int16_t>(f, "s16");
    add_compares<uint16_t>(f, "u16");
    add_each<&bfi>(f, "bfi.b32");
    f["and.pred"] = {&and_pred, "p=pp"};
    f["or.pred"] = {&or_pred, "p=pp"};
    f["xor.pred"] = {&xor_pred, "p=pp"};
    f["not.pred"] = {&not_pred, "p=p"};
    f["mov.pred"] = {&mov_pred, "p=p"};

    add_moves<uint16_t>(f, "b16 u16 s16");
    add_moves<uint32_t>(f, "b32 u32 s32 f32");
    add_moves<uint64_t>(f, "b64 u64 s64 f64");
    // mov with braces around one side; parse.cpp adds the word.
    add_each<&pack16>(f, "mov.b32.pack");
    add_each<&pack32>(f, "mov.b64.pack");
    f["mov.b32.unpack"] = {&unpack<uint32_t>, "hh=w"};
    f["mov.b64.unpack"] = {&unpack<uint64_t>, "ww=d"};
    // A global address is the same number in the generic space. (A shared one is not, and no kernel converts one.)
    add_each<&same<uint64_t>>(f, "cvta.to.global.u64");

    add_each<&cvt<int64_t, int32_t>>(f, "cvt.s64.s32");
    add_each<&cvt<uint64_t, uint32_t>>(f, "cvt.u64.u32");
    add_each<&cvt<uint32_t, uint64_t>>(f, "cvt.u32.u64");
    add_each<&cvt<uint32_t, uint16_t>>(f, "cvt.u32.u16");
    // From the low half of a 64-bit register; parse.cpp adds the word.
    add_each<&cvt_low<int64_t, int32_t>>(f, "cvt.s64.s32.low");
    add_each<&cvt_low<uint64_t, uint32_t>>(f, "cvt.u64.u32.low");
}
}  // namespace ptx
