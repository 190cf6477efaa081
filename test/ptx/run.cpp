// Executes a kernel: blocks one after the other, a block's warps in turn from barrier to barrier, the lanes
// of a warp together. See ptx.h for the rules; machine.h for the state.
#include <cxxabi.h>

#include <algorithm>
#include <cstring>

#include "test/ptx/machine.h"

namespace ptx {
static std::string demangled(const std::string& name) {
    int status = 0;
    char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
    std::string s = text ? text : name;
    free(text);
    return s.substr(0, s.find('('));
}

void fault(const Warp& w, const Instruction& i, int lane, const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string message = format_list(fmt, args);
    va_end(args);
    const Block& b = *w.block;
    const Dim &size = b.launch->block, &at = b.index;
    unsigned t = unsigned(w.index * LANES + lane);
    fail("ptx: %s (%s:%d, %s), block (%u,%u,%u), thread (%u,%u,%u): %s", demangled(b.kernel->name).c_str(),
         b.kernel->file.c_str(), i.line, i.name, at.x, at.y, at.z, t % size.x, t / size.x % size.y, t / size.x / size.y,
         message.c_str());
}

namespace {
const Instruction& code(const Warp& w, uint32_t pc) { return w.block->kernel->code[pc]; }

Mask guard_of(Warp& w, const Instruction& i, Mask active) {
    if (!i.guarded) return active;
    if (active & ~w.written[i.guard])
        fault(w, i, lowest(active & ~w.written[i.guard]), "its predicate was never written");
    return active & (i.negated ? ~w.predicate(i.guard) : w.predicate(i.guard));
}
void check_sources(const Warp& w, const Instruction& i, Mask active) {
    for (int k = 0; k < i.from_count; k++)
        if (Mask missing = active & ~w.written[i.from[k]]; missing)
            fault(w, i, lowest(missing), "operand %d is a register that was never written", i.to_count + k);
}
void execute(Warp& w, const Instruction& i, Mask active) {
    check_sources(w, i, active);
    i.execute(w, i, active);
    for (int k = 0; k < i.to_count; k++) w.written[i.to[k]] |= active;
    w.block->stats.instructions++;
}

// Lanes `active` have come to the warp-wide instruction at pc. If all that must come are there, it is
// executed and they go on; else they wait. Returns the lanes that go on.
Mask meet(Warp& w, uint32_t pc, Mask active) {
    const Instruction& i = code(w, pc);
    Mask here = active, done = 0;
    for (Lanes m(w.waiting & ~active); m; m.next())
        if (w.pc[m.lane] == pc) here |= 1u << m.lane;
    if (i.kind == Kind::aligned) {
        if (w.existing != ALL || w.exited)
            fault(w, i, lowest(active), "not all 32 lanes of the warp are there (%08x)", w.live());
        if (here == ALL) done = here;
    } else {
        check_sources(w, i, active);
        const uint32_t* mask = w.cells<uint32_t>(i.from[i.from_count - 1]);
        for (Lanes m(active); m; m.next()) {
            const Mask members = mask[m.lane];
            if (done >> m.lane & 1) continue;
            if (!(members >> m.lane & 1)) fault(w, i, m.lane, "the lane is not in its own mask %08x", members);
            if (members & ~w.live())
                fault(w, i, m.lane, "lanes %08x of its mask have exited or never existed", members & ~w.live());
            Mask agreeing = 0;
            for (Lanes h(here); h; h.next())
                if (mask[h.lane] == members) agreeing |= 1u << h.lane;
            if ((agreeing & members) != members) continue;
            execute(w, i, members);
            done |= members;
        }
    }
    if (i.kind == Kind::aligned && done) execute(w, i, done);
    w.waiting = (w.waiting | active) & ~done;
    for (Lanes m(active | done); m; m.next()) w.pc[m.lane] = pc + (done >> m.lane & 1);
    return done;
}

// Runs until every lane has exited or waits. Lanes that are behind go first.
void run_lanes(Warp& w) {
    for (;;) {
        const Mask ready = w.live() & ~w.waiting;
        if (!ready) return;
        uint32_t pc = ~0u, others = ~0u;    // where the first lanes are, and the next after them
        Mask active = 0;
        for (Lanes m(ready); m; m.next()) pc = std::min(pc, w.pc[m.lane]);
        for (Lanes m(ready); m; m.next())
            if (w.pc[m.lane] == pc) active |= 1u << m.lane;
            else others = std::min(others, w.pc[m.lane]);
        bool together = true;    // `active` goes on as one, its lanes' pc is `pc`
        while (together && pc < others) {
            const Instruction& i = code(w, pc);
            switch (i.kind) {
                case Kind::ordinary: {
                    const Mask on = guard_of(w, i, active);
                    if (on) execute(w, i, on);
                    pc++;
                    break;
                }
                case Kind::branch: {
                    const Mask taken = guard_of(w, i, active);
                    if (i.uniform && taken != active && taken)
                        fault(w, i, lowest(active), "bra.uni, and the lanes do not agree");
                    if (taken == active) pc = i.target;
                    else if (!taken) pc++;
                    else {
                        for (Lanes m(active); m; m.next()) w.pc[m.lane] = taken >> m.lane & 1 ? i.target : pc + 1;
                        together = false;
                    }
                    break;
                }
                case Kind::exit: {
                    const Mask gone = guard_of(w, i, active);
                    finish_copies(w, gone, 0);
                    w.exited |= gone;
                    active &= ~gone;
                    pc++;
                    together = active != 0;
                    break;
                }
                case Kind::aligned:
                case Kind::masked: {
                    if (i.guarded) fault(w, i, lowest(active), "a guarded warp-wide instruction is not known");
                    together = meet(w, pc, active) == active;
                    pc += together;
                    break;
                }
                case Kind::barrier:
                case Kind::arrive:
                    if (i.guarded) fault(w, i, lowest(active), "a guarded barrier is not known");
                    check_sources(w, i, active);
                    for (Lanes m(active); m; m.next()) w.pc[m.lane] = pc;
                    w.waiting |= active;
                    together = false;
                    break;
            }
        }
        if (together)
            for (Lanes m(active); m; m.next()) w.pc[m.lane] = pc;
    }
}

unsigned operand_at(Warp& w, const Instruction& i, int k) { return w.cells<uint32_t>(i.from[k])[lowest(w.live())]; }

// The warp's lanes all wait: they must be at one barrier. Returns false when the warp has ended.
bool arrive(Block& b, Warp& w) {
    if (!w.live()) return false;
    const int first = lowest(w.live());
    const uint32_t pc = w.pc[first];
    const Instruction& i = code(w, pc);
    for (Lanes m(w.live()); m; m.next())
        if (w.pc[m.lane] != pc)
            fault(w, i, first, "waits for ever: lane %d waits in line %d (%s)", m.lane, code(w, w.pc[m.lane]).line,
                  code(w, w.pc[m.lane]).name);
    if (i.kind != Kind::barrier && i.kind != Kind::arrive)
        fault(w, i, first, "waits for ever: other lanes have exited (%08x)", w.exited);
    if (w.exited) fault(w, i, first, "lanes %08x have exited before the barrier", w.exited);
    const unsigned id = operand_at(w, i, 0), threads = b.launch->block.x * b.launch->block.y * b.launch->block.z;
    const unsigned expected = i.from_count == 2 ? operand_at(w, i, 1) : (threads + LANES - 1) / LANES * LANES;
    if (id > 15 || expected == 0 || expected % LANES) fault(w, i, first, "barrier %u for %u threads", id, expected);
    Barrier& barrier = b.barriers[id];
    if (barrier.arrived && barrier.expected != expected)
        fault(w, i, first, "barrier %u: others wait for %u threads, this one for %u", id, barrier.expected, expected);
    barrier.expected = expected;
    barrier.arrived += LANES;
    if (i.kind == Kind::barrier) {
        w.at_barrier = true;
        barrier.waiting.push_back(&w);
    } else {
        w.waiting = 0;
        for (uint32_t& lane : w.pc) lane = pc + 1;
    }
    if (barrier.arrived > expected) fault(w, i, first, "more than the %u threads that barrier %u is for", expected, id);
    if (barrier.arrived < expected) return true;
    for (Warp* waits : barrier.waiting) {
        waits->at_barrier = false;
        waits->waiting = 0;
        for (uint32_t& lane : waits->pc) lane++;
    }
    barrier = {};
    return true;
}

void fill_specials(Warp& w) {
    const Launch& launch = *w.block->launch;
    const Dim &size = launch.block, &grid = launch.grid, &at = w.block->index;
    for (const SpecialRegister& s : w.block->kernel->specials) {
        uint32_t* cells = w.cells<uint32_t>(s.reg);
        for (unsigned l = 0; l < LANES; l++) {
            const unsigned t = unsigned(w.index) * LANES + l;
            const unsigned values[] = {t % size.x,
                                       t / size.x % size.y,
                                       t / size.x / size.y,
                                       size.x,
                                       size.y,
                                       size.z,
                                       at.x,
                                       at.y,
                                       at.z,
                                       grid.x,
                                       grid.y,
                                       grid.z,
                                       l};
            cells[l] = values[int(s.which)];
        }
    }
}
void fill_constants(Warp& w) {
    for (const Constant& c : w.block->kernel->constants)
        if (c.size == 'p') w.predicate(c.reg) = c.value ? ALL : 0;
        else if (c.size == 'd') std::fill_n(w.cells<uint64_t>(c.reg), LANES, c.value);
        else std::fill_n(w.cells<uint32_t>(c.reg), LANES, uint32_t(c.value));
}
void start(Warp& w, unsigned threads) {
    const unsigned mine = std::min<unsigned>(LANES, threads - unsigned(w.index) * LANES);
    w.existing = mine == LANES ? ALL : (1u << mine) - 1;
    w.exited = w.waiting = 0;
    w.at_barrier = false;
    w.copies.clear();
    memset(w.pc, 0, sizeof w.pc);
    memset(w.copy_group, 0, sizeof w.copy_group);
    std::fill(w.written.begin(), w.written.end(), 0);
    for (const Constant& c : w.block->kernel->constants) w.written[c.reg] = ALL;
    for (const SpecialRegister& s : w.block->kernel->specials) w.written[s.reg] = ALL;
    fill_specials(w);
}

void run_block(Block& b, std::vector<Warp>& warps, uint64_t& random) {
    const unsigned threads = b.launch->block.x * b.launch->block.y * b.launch->block.z;
    std::fill(b.state.begin(), b.state.end(), UNWRITTEN);
    for (Barrier& barrier : b.barriers) barrier = {};
    for (Warp& w : warps) start(w, threads);
    std::vector<Warp*> running;
    for (Warp& w : warps) running.push_back(&w);
    while (!running.empty()) {
        std::vector<Warp*> turn = running;
        if (b.launch->order == Order::reverse) std::reverse(turn.begin(), turn.end());
        if (b.launch->order == Order::random)
            for (size_t n = turn.size(); n > 1; n--) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                std::swap(turn[n - 1], turn[size_t(random >> 33) % n]);
            }
        bool moved = false;
        for (Warp* w : turn) {
            if (w->at_barrier) continue;
            moved = true;
            run_lanes(*w);
            if (!arrive(b, *w)) running.erase(std::find(running.begin(), running.end(), w));
        }
        if (!moved) {
            Warp& w = *running.front();
            const Instruction& i = code(w, w.pc[lowest(w.live())]);
            fault(w, i, lowest(w.live()), "waits for ever: not all threads reach the barrier (%zu of %zu warps wait)",
                  running.size(), warps.size());
        }
    }
}

void check(const Kernel& k, const Launch& launch) {
    const std::string name = demangled(k.name);
    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    ensure(threads > 0 && threads <= k.max_threads, "ptx: %s: launched with %u threads a block, compiled for %u",
           name.c_str(), threads, k.max_threads);
    ensure(launch.arguments.size() == k.parameters.size() && launch.sizes.size() == k.parameters.size(),
           "ptx: %s: %zu arguments for %zu parameters", name.c_str(), launch.arguments.size(), k.parameters.size());
    for (size_t a = 0; a < k.parameters.size(); a++)
        ensure(launch.sizes[a] == k.parameters[a].bytes, "ptx: %s: argument %zu has %zu bytes, the kernel's has %zu",
               name.c_str(), a, launch.sizes[a], k.parameters[a].bytes);
}
}    // namespace

Stats run(const Kernel& k, const Launch& launch) {
    check(k, launch);
    Block b;
    b.kernel = &k;
    b.launch = &launch;
    b.shared.resize(k.dynamic_begin + launch.dynamic_shared > k.static_shared ? k.dynamic_begin + launch.dynamic_shared
                                                                              : k.static_shared);
    b.state.resize(b.shared.size());
    b.parameters.resize(k.parameter_bytes);
    for (size_t a = 0; a < k.parameters.size(); a++)
        memcpy(b.parameters.data() + k.parameters[a].offset, launch.arguments[a], launch.sizes[a]);

    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    std::vector<Warp> warps((threads + LANES - 1) / LANES);
    for (size_t n = 0; n < warps.size(); n++) {
        Warp& w = warps[n];
        w.block = &b;
        w.index = int(n);
        w.rows = std::make_unique_for_overwrite<Row[]>(k.registers);
        w.written.resize(k.registers);
        fill_constants(w);
    }
    const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    uint64_t random = launch.seed;
    for (uint64_t n = 0; n < blocks; n++) {
        const uint64_t at = launch.order == Order::reverse ? blocks - 1 - n : n;
        b.index = {unsigned(at % launch.grid.x), unsigned(at / launch.grid.x % launch.grid.y),
                   unsigned(at / launch.grid.x / launch.grid.y)};
        run_block(b, warps, random);
    }
    return b.stats;
}
}    // namespace ptx
