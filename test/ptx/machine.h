// The state of a block and its warps, and how errors are reported. Inside test/ptx only.
#pragma once
#include <bit>
#include <memory>
#include <type_traits>

#include "runtime/run/error.h"
#include "test/ptx/ptx.h"

namespace ptx {
// What a byte of shared memory holds.
enum ByteState : uint8_t { UNWRITTEN = 0, WRITTEN = 1, PENDING = 2 };

// A cp.async that its thread has not waited for. The copy is made at the wait: a missing wait shows.
struct PendingCopy { int lane; uint32_t to; uint64_t from; uint32_t bytes, valid_bytes, group; };

struct Barrier { unsigned arrived = 0, expected = 0; std::vector<Warp*> waiting; };

struct Block {
    const Kernel* kernel = nullptr;
    const Launch* launch = nullptr;
    Dim index;
    std::vector<unsigned char> shared, state;    // from SHARED_BASE on; a ByteState for each byte
    std::vector<unsigned char> parameters;
    Barrier barriers[16];
    Stats stats;
};

// The register's cells: 16-bit numbers lie in 32-bit cells.
template <class T>
using Cell = std::conditional_t<sizeof(T) == 8 || std::is_same_v<T, float>, T,
                                std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>;

struct Warp {
    Block* block = nullptr;
    int index = 0;
    std::unique_ptr<Row[]> rows;
    std::vector<Mask> written;                   // for each register: the lanes that wrote it
    Mask existing = 0, exited = 0;
    Mask waiting = 0;                            // lanes at a warp-wide instruction or a barrier
    uint32_t pc[LANES] = {};                     // of lanes that are not running
    bool at_barrier = false;
    std::vector<PendingCopy> copies;
    uint32_t copy_group[LANES] = {};

    template <class T> Cell<T>* cells(uint32_t reg) { return reinterpret_cast<Cell<T>*>(rows[reg].cell); }
    Mask& predicate(uint32_t reg) { return *reinterpret_cast<Mask*>(rows[reg].cell); }
    Mask live() const { return existing & ~exited; }
};

// Ends the launch. `lane` is the one to blame.
[[noreturn, gnu::format(printf, 4, 5)]] void fault(const Warp& w, const Instruction& i, int lane, const char* fmt, ...);
inline int lowest(Mask m) { return std::countr_zero(m); }

// The lanes of a mask, the lowest first: for (Lanes m(active); m; m.next()) use(m.lane);
struct Lanes {
    Mask left;
    int lane;
    explicit Lanes(Mask m) : left(m), lane(lowest(m)) {}
    explicit operator bool() const { return left != 0; }
    void next() { left &= left - 1; lane = lowest(left); }
};

// Copies of all but the newest groups of these lanes (memory.cpp).
void finish_copies(Warp& w, Mask lanes, uint32_t newest_groups_kept);

// How many more cycles n accesses of 16 bytes take that meet in the banks of shared memory: eight 16-byte
// columns.
int extra_cycles(const uint32_t* address, int n);
}  // namespace ptx
