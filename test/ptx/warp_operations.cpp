// What the lanes of a warp do together: shuffles, votes, and the tensor cores' ldmatrix and mma. run.cpp has
// brought them together; `members` are those that take part. Written from the PTX ISA, not from
// runtime/device/emu/tensor_core.h, so that a mistake there is not repeated here: the formulas for rows and
// columns are the manual's own.
#include <cstring>

#include "test/ptx/forms.h"

namespace ptx {
namespace {
// ---- shfl.sync [9.7.9, "Data Movement and Conversion Instructions: shfl.sync"]: d, a, b, c, membermask
// c: bits 0..4 the clamp, bits 8..12 the mask that cuts the warp into segments.
enum class Shuffle { up, down, bfly, idx };
template <Shuffle MODE>
void shuffle(Warp& w, const Instruction& i, Mask members) {
    const uint32_t *a = w.cells<uint32_t>(i.from[0]), *b = w.cells<uint32_t>(i.from[1]),
                   *c = w.cells<uint32_t>(i.from[2]);
    uint32_t result[LANES] = {};
    Mask inside = 0;
    for (Lanes m(members); m; m.next()) {
        const int lane = m.lane;
        const int bval = int(b[lane] & 31), cval = int(c[lane] & 31), mask = int(c[lane] >> 8 & 31);
        const int max_lane = (lane & mask) | (cval & ~mask), min_lane = lane & mask;
        int j = lane;
        bool p = false;
        switch (MODE) {
            case Shuffle::up:
                j = lane - bval;
                p = j >= max_lane;
                break;
            case Shuffle::down:
                j = lane + bval;
                p = j <= max_lane;
                break;
            case Shuffle::bfly:
                j = lane ^ bval;
                p = j <= max_lane;
                break;
            case Shuffle::idx:
                j = min_lane | (bval & ~mask);
                p = j <= max_lane;
                break;
        }
        if (!p) j = lane;
        inside |= Mask(p) << lane;
        if (!(members >> j & 1)) fault(w, i, lane, "reads lane %d, which takes no part (lanes %08x)", j, members);
        result[lane] = a[j];
    }
    store_lanes(w.cells<uint32_t>(i.to[0]), result, members);
    if (i.to_count == 2) {
        Mask& p = w.predicate(i.to[1]);
        p = (p & ~members) | inside;
    }
}

// ---- vote.sync [9.7.13, "vote.sync"]: d, a, membermask
void vote_ballot(Warp& w, const Instruction& i, Mask members) {
    uint32_t result[LANES];
    for (uint32_t& r : result) r = w.predicate(i.from[0]) & members;
    store_lanes(w.cells<uint32_t>(i.to[0]), result, members);
}
void vote(Warp& w, const Instruction& i, Mask members, bool result) {
    Mask& p = w.predicate(i.to[0]);
    p = (p & ~members) | (result ? members : 0);
}
void vote_any(Warp& w, const Instruction& i, Mask m) { vote(w, i, m, (w.predicate(i.from[0]) & m) != 0); }
void vote_all(Warp& w, const Instruction& i, Mask m) { vote(w, i, m, (w.predicate(i.from[0]) & m) == m); }
void only_meet(Warp&, const Instruction&, Mask) {}    // bar.warp.sync

// ---- ldmatrix [9.7.14.5.15]: N 8x8 matrices of 16-bit elements. Lanes 8q .. 8q+7 give the addresses of the
// rows of matrix q. Thread t receives of each matrix row t / 4, elements 2 (t % 4) and the next, the first in
// the low half; with .trans the same of the transposed matrix.
template <int N, bool TRANS>
void ldmatrix(Warp& w, const Instruction& i, Mask) {
    const uint32_t* base = w.cells<uint32_t>(i.from[0]);
    uint16_t matrix[N][8][8];
    for (int q = 0; q < N; q++) {
        uint32_t address[8];
        for (int row = 0; row < 8; row++) {
            const int lane = 8 * q + row;
            const uint32_t at = base[lane] + uint32_t(i.offset[0]);
            const size_t place = size_t(at) - SHARED_BASE;
            if (at % 16) fault(w, i, lane, "shared address %u is not aligned to 16 bytes", at - SHARED_BASE);
            if (at < SHARED_BASE || place + 16 > w.block->shared.size())
                fault(w, i, lane, "16 bytes at %zd of %zu bytes of shared memory", ptrdiff_t(place),
                      w.block->shared.size());
            for (size_t k = place; k < place + 16; k++)
                if (w.block->state[k] != WRITTEN)
                    fault(w, i, lane, "16 bytes at %zu of shared memory %s", place,
                          w.block->state[k] == PENDING ? "are still being copied to (a cp.async without its wait)"
                                                       : "were never written");
            memcpy(matrix[q][row], w.block->shared.data() + place, 16);
            address[row] = at;
        }
        w.block->stats.ldmatrix_phases++;
        w.block->stats.ldmatrix_conflicts += uint64_t(extra_cycles(address, 8));
    }
    for (int q = 0; q < N; q++) {
        uint32_t* to = w.cells<uint32_t>(i.to[q]);
        for (int t = 0; t < LANES; t++) {
            const int row = t / 4, column = 2 * (t % 4);
            const uint32_t first = TRANS ? matrix[q][column][row] : matrix[q][row][column];
            const uint32_t second = TRANS ? matrix[q][column + 1][row] : matrix[q][row][column + 1];
            to[t] = first | second << 16;
        }
    }
}

// ---- mma.m16n8k16, bf16 with float sums [9.7.14.5.8, "Matrix Fragments for mma.m16n8k16 with floating point
// type"] D = A B + C. Operands: d0..d3 = four registers of A (elements a0..a7, two in each, the first in the
// low half), two of B (b0..b3), c0..c3. With groupID = lane / 4, threadID_in_group = lane % 4 an element's
// place is:
//   a_i   row groupID (i in 0, 1, 4, 5) or groupID + 8     column 2 threadID_in_group + (i & 1), + 8 where i
//   >= 4
//   b_i   row 2 threadID_in_group + (i & 1), + 8 where i >= 2     column groupID
//   c_i   row groupID (i < 2) or groupID + 8     column 2 threadID_in_group + (i & 1)
// The ISA leaves the order and the rounding of the sums open (at least single precision): here exact products
// are added in double, and the sum is rounded once.
void mma(Warp& w, const Instruction& i, Mask) {
    double A[16][16], B[16][8];
    auto element = [&](uint32_t reg, int lane, int half) {
        const uint32_t pair = w.cells<uint32_t>(reg)[lane];
        return double(std::bit_cast<float>(half ? pair & 0xffff0000u : pair << 16));
    };
    for (int lane = 0; lane < LANES; lane++) {
        const int group = lane / 4, thread = lane % 4;
        for (int k = 0; k < 8; k++) {
            const int row = k < 2 || (k >= 4 && k < 6) ? group : group + 8;
            const int column = 2 * thread + (k & 1) + (k < 4 ? 0 : 8);
            A[row][column] = element(i.from[k / 2], lane, k % 2);
        }
        for (int k = 0; k < 4; k++) {
            const int row = 2 * thread + (k & 1) + (k < 2 ? 0 : 8);
            B[row][group] = element(i.from[4 + k / 2], lane, k % 2);
        }
    }
    double D[16][8] = {};
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) D[row][column] += A[row][k] * B[k][column];
    for (int k = 0; k < 4; k++) {
        const float* c = w.cells<float>(i.from[6 + k]);
        float result[LANES];
        for (int lane = 0; lane < LANES; lane++) {
            const int row = k < 2 ? lane / 4 : lane / 4 + 8, column = 2 * (lane % 4) + (k & 1);
            result[lane] = float(D[row][column] + double(c[lane]));
        }
        memcpy(w.cells<float>(i.to[k]), result, sizeof result);
    }
}
}    // namespace

void add_warp_forms(Forms& f) {
    auto add_shuffle = [&](const char* mode, Execute execute) {
        const std::string name = std::string("shfl.sync.") + mode + ".b32";
        f[name] = {execute, "w=wwww", Kind::masked};
        f[name + "/6"] = {execute, "wp=wwww", Kind::masked};    // d|p
    };
    add_shuffle("up", &shuffle<Shuffle::up>);
    add_shuffle("down", &shuffle<Shuffle::down>);
    add_shuffle("bfly", &shuffle<Shuffle::bfly>);
    add_shuffle("idx", &shuffle<Shuffle::idx>);
    f["vote.sync.ballot.b32"] = {&vote_ballot, "w=pw", Kind::masked};
    f["vote.sync.any.pred"] = {&vote_any, "p=pw", Kind::masked};
    f["vote.sync.all.pred"] = {&vote_all, "p=pw", Kind::masked};
    f["bar.warp.sync"] = {&only_meet, "=w", Kind::masked};
    f["ldmatrix.sync.aligned.m8n8.x1.shared.b16"] = {&ldmatrix<1, false>, "w=S", Kind::aligned};
    f["ldmatrix.sync.aligned.m8n8.x2.shared.b16"] = {&ldmatrix<2, false>, "ww=S", Kind::aligned};
    f["ldmatrix.sync.aligned.m8n8.x4.shared.b16"] = {&ldmatrix<4, false>, "wwww=S", Kind::aligned};
    f["ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16"] = {&ldmatrix<4, true>, "wwww=S", Kind::aligned};
    f["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] = {&mma, "wwww=wwwwwwwwww", Kind::aligned};
    // The block's barriers: run.cpp does them.
    f["bar.sync"] = {&only_meet, "=w", Kind::barrier};
    f["bar.sync/2"] = {&only_meet, "=ww", Kind::barrier};
    f["bar.arrive"] = {&only_meet, "=ww", Kind::arrive};
}

const Forms& all_forms() {
    static const Forms forms = [] {
        Forms f;
        add_integer_forms(f);
        add_float_forms(f);
        add_memory_forms(f);
        add_warp_forms(f);
        f["bra"] = {nullptr, "=L", Kind::branch};    // L: a label
        f["bra.uni"] = {nullptr, "=L", Kind::branch};
        f["ret"] = f["exit"] = {nullptr, "=", Kind::exit};
        return f;
    }();
    return forms;
}
}    // namespace ptx
