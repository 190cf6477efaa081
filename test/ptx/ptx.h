// An interpreter for PTX, the assembly that nvcc writes and ptxas makes machine code of. For tests: on the
// CPU it executes what nvcc made of our kernels, and with them the assembly of layers/ptx.cuh, in whose place
// the emulation (runtime/device/emu) has functions of its own. It knows the instructions that occur in our
// kernels and a few near them; any other is an error.
//   forms.h               the table of instructions: name, operands, function
//   parse.cpp             text -> Kernel: registers numbered, immediates and symbols resolved
//   integers.cpp          integers, bits, predicates, moves
//   floats.cpp            floats, their comparisons and conversions
//   memory.cpp            loads, stores, cp.async
//   warp_operations.cpp   shuffles, votes, ldmatrix, mma
//   run.cpp               lanes, warps, barriers, blocks
//   hook.cpp              takes the launches of an emulated test program; which kernels ran
// Source of every meaning: NVIDIA, "Parallel Thread Execution ISA", version 9.0; sections are named in place.
//
// How it runs: the lanes of a warp go together while their program counters agree; where they differ, those
// behind go first, and lanes meet again at the same instruction. A warp runs until it waits at a barrier of
// its block, then the next one.
//
// What is an error, naming kernel, line, block and thread:
//   - reading a register or a byte of shared memory that nobody wrote, or one that a cp.async still writes;
//   - a misaligned access; one outside shared memory or outside the arguments; in a program linked with
//     AddressSanitizer, one outside every allocation;
//   - an unknown instruction, an operand of another size than its own;
//   - lanes missing from a warp-wide instruction or from its mask, exited threads at a barrier, a barrier
//     that not all reach;
//   - an argument of another size than the kernel's, more threads than .maxntid.
//
// What it does not model: time, caches, memory order between warps (run it in two orders of the warps), lanes
// of one warp in any other order than above. Approximate instructions give the exact value rounded (or, on
// request, off by up to 2 ulp).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ptx {
inline constexpr int LANES = 32;
using Mask = uint32_t;                           // bit l: lane l
inline constexpr Mask ALL = 0xffffffffu;

// One register of a whole warp. 64-bit registers use all of it, 32- and 16-bit ones the first half,
// predicates one Mask.
struct alignas(64) Row { uint64_t cell[LANES]; };

// How an instruction is scheduled; all but the first three are run.cpp's business.
//   aligned   every lane of the warp must come; done once for all      (ldmatrix, mma)
//   masked    the lanes that its mask names must come                  (shfl, vote, bar.warp.sync)
//   barrier, arrive    of the block, by whole warps
enum class Kind : uint8_t { ordinary, branch, exit, aligned, masked, barrier, arrive };

struct Warp;
struct Instruction;
using Execute = void (*)(Warp&, const Instruction&, Mask active);

struct Instruction {
    Execute execute = nullptr;
    const char* name = "";                       // add.s32
    int line = 0;                                // of the .ptx file
    Kind kind = Kind::ordinary;
    bool guarded = false, negated = false, uniform = false;  // @%p, @!%p; bra.uni
    uint8_t to_count = 0, from_count = 0;
    uint32_t guard = 0, target = 0;              // a predicate's number; where a branch goes
    uint32_t to[4] = {}, from[10] = {};          // registers; immediates are registers that are never written
    int64_t offset[2] = {};                      // added to the first and second address among `from`
};

enum class Special : uint8_t {
    tid_x, tid_y, tid_z, ntid_x, ntid_y, ntid_z, ctaid_x, ctaid_y, ctaid_z, nctaid_x, nctaid_y, nctaid_z, laneid
};
struct Constant { uint32_t reg; char size; uint64_t value; };        // size: a letter of forms.h
struct SpecialRegister { uint32_t reg; Special which; };
struct Parameter { std::string name; size_t offset, bytes; };

struct Kernel {
    std::string name, file;                      // name: mangled
    std::vector<Instruction> code;
    std::vector<Parameter> parameters;
    size_t parameter_bytes = 0;
    size_t static_shared = 0;                    // bytes of its own arrays
    size_t dynamic_begin = 0;                    // where dyn_smem begins behind them
    uint32_t registers = 0;
    std::vector<Constant> constants;
    std::vector<SpecialRegister> specials;
    unsigned max_threads = 1024;
};
// Addresses in shared memory begin here, so that 0 is not one. A multiple of every alignment.
inline constexpr uint32_t SHARED_BASE = 1024;

// A .ptx file and where its kernels stand in it, so that only those that run are parsed.
struct EntryText { std::string name; size_t begin, end; int line; };
struct Module { std::string file, text; std::vector<EntryText> entries; };
Module read_module(const std::string& file);                          // from disk
Module module_of(const std::string& file, const std::string& text);
Kernel parse_kernel(const Module& module, const EntryText& entry);

struct Dim { unsigned x = 1, y = 1, z = 1; };
enum class Order { forward, reverse, random };   // of blocks, and of warps between barriers
struct Launch {
    Dim grid, block;
    size_t dynamic_shared = 0;
    std::vector<const void*> arguments;
    std::vector<size_t> sizes;                   // in bytes
    Order order = Order::forward;
    uint64_t seed = 1;
};
// What shared memory did, in the emulation's units (runtime/device/emu/block.h, Stats), and instructions of
// warps.
struct Stats {
    uint64_t instructions = 0;
    uint64_t ldmatrix_phases = 0, ldmatrix_conflicts = 0, access_phases = 0, access_conflicts = 0;
};
Stats run(const Kernel& kernel, const Launch& launch);                // throws Error

// ex2.approx, rsqrt.approx ...: 0 is the exact result rounded; else it is moved by up to this many ulp, the
// same way for the same operand, as a GPU's own may be. The CUDA C++ Programming Guide allows 2 for exp2f and
// rsqrtf.
inline int approximate_ulp = 0;
}  // namespace ptx
