// What an instruction looks like and does: a table by name, filled by integers.cpp, floats.cpp, memory.cpp
// and warp_operations.cpp, read by parse.cpp. Inside test/ptx only.
//
// Operands: a letter for each, destinations before '=', sources behind it; braces of vectors are left out.
//   p predicate   h 16 bits   w 32 bits   d 64 bits   g 16 or 32 bits (narrow loads and stores)
//   A [address] in global memory   S [address] in shared memory   P [parameter]
// A register of another size than its letter is an error. A form named NAME/2 is NAME with two operands.
#pragma once
#include <string>
#include <unordered_map>

#include "test/ptx/machine.h"

namespace ptx {
struct Form {
    Execute execute;
    std::string operands;
    Kind kind = Kind::ordinary;
};
using Forms = std::unordered_map<std::string, Form>;
void add_integer_forms(Forms& forms);
void add_float_forms(Forms& forms);
void add_memory_forms(Forms& forms);
void add_warp_forms(Forms& forms);
const Forms& all_forms();

template <class T> constexpr char letter() { return sizeof(T) == 8 ? 'd' : sizeof(T) == 4 ? 'w' : 'h'; }

template <class C> void store_lanes(C* to, const C* result, Mask active) {
    if (active == ALL)
        for (int l = 0; l < LANES; l++) to[l] = result[l];
    else
        for (int l = 0; l < LANES; l++) to[l] = active >> l & 1 ? result[l] : to[l];
}

// An instruction that computes each lane's result from its operands: F is D f(A...). All lanes are computed,
// so F must not trap; the active ones are kept.
template <auto F> struct EachLane;
template <class D, class... A, D (*F)(A...)> struct EachLane<F> {
    static std::string operands() { return {letter<D>(), '=', letter<A>()...}; }
    static void execute(Warp& w, const Instruction& i, Mask active) {
        execute(w, i, active, std::index_sequence_for<A...>{});
    }
    template <size_t... K> static void execute(Warp& w, const Instruction& i, Mask active, std::index_sequence<K...>) {
        Cell<D> result[LANES];
        for (int l = 0; l < LANES; l++) result[l] = Cell<D>(F(A(w.cells<A>(i.from[K])[l])...));
        store_lanes(w.cells<D>(i.to[0]), result, active);
    }
};
template <auto F> void add_each(Forms& forms, const std::string& name) {
    forms[name] = {&EachLane<F>::execute, EachLane<F>::operands()};
}

// Predicates: a register is one Mask.
inline void set_predicate(Warp& w, const Instruction& i, Mask active, Mask value) {
    Mask& p = w.predicate(i.to[0]);
    p = (p & ~active) | (value & active);
}
template <class T, bool (*F)(T, T)> void compare(Warp& w, const Instruction& i, Mask active) {
    const Cell<T>*a = w.cells<T>(i.from[0]), *b = w.cells<T>(i.from[1]);
    Mask result = 0;
    for (int l = 0; l < LANES; l++) result |= Mask(F(T(a[l]), T(b[l]))) << l;
    set_predicate(w, i, active, result);
}
}  // namespace ptx
