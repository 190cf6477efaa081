// One resident thread block: which fiber runs next, block barriers, warp collectives, and who is to blame when none can continue.
// Part of emu.h.
#pragma once

namespace emu {
enum class Order { forward, reverse, random };

struct Options {
    Order order = Order::forward;
    uint64_t seed = 1;
    int threads = 0;                             // OS threads; 0: all
    size_t stack_bytes = 64 << 10;
    bool abort_on_error = false;
    Options() {
#if defined(EMU_ASAN) || defined(EMU_TSAN)
        stack_bytes = 256 << 10;
#endif
        if (const char* s = getenv("EMU_ORDER")) {
            order = !strncmp(s, "reverse", 7) ? Order::reverse : !strncmp(s, "random", 6) ? Order::random : Order::forward;
            if (const char* colon = strchr(s, ':')) seed = strtoull(colon + 1, nullptr, 0);
        }
        if (const char* s = getenv("EMU_THREADS")) threads = atoi(s);
        if (const char* s = getenv("EMU_STACK")) stack_bytes = (strtoull(s, nullptr, 0) + 4095) & ~size_t(4095);
        if (const char* s = getenv("EMU_ABORT")) abort_on_error = atoi(s);
#if defined(EMU_ASAN)
        threads = 1;                             // static shared arrays are plain statics then
#elif defined(EMU_TSAN)
        if (!threads) threads = 2;               // so that races between blocks show
#endif
    }
};
inline Options& options() { static Options o; return o; }
inline void use_threads([[maybe_unused]] int n) {
#if !defined(EMU_ASAN)                           // one and no more, there
    options().threads = n;
#endif
}

// Counted over all launches. A phase is what shared memory serves in one cycle: eight 16-byte rows of ldmatrix, or the 16-byte
// accesses of eight lanes; each further cycle that the same phase needs is one conflict.
struct Stats { uint64_t switches = 0, ldmatrix_phases = 0, ldmatrix_conflicts = 0, access_phases = 0, access_conflicts = 0; };
inline Stats& stats() { static Stats s; return s; }
// Kept by each OS thread until its launch ends: atomics here would look like synchronisation to TSan and hide the kernels' races.
inline thread_local Stats thread_stats;
EMU_NO_TSAN inline void count_switch() { thread_stats.switches++; }

// A warp collective under way: which lanes must arrive, which have, and what each brings.
struct Collective { uint32_t mask, arrived; const char* name; Where at; void* argument[32]; };
struct Warp { uint32_t existing, ready, exited; int pending; Collective collective[32]; };
struct Barrier { int arrived, expected, any, all, count, result_any, result_all, result_count; Where at; };

struct Block {
    int threads = 0, alive = 0;
    uint32_t ready_warps = 0;
    Fiber* fibers = nullptr;
    Fiber launcher;                              // the OS thread's own stack
    Warp warps[32];
    Barrier barriers[16];
    void (*kernel)(void*) = nullptr;
    void* arguments = nullptr;
    unsigned char* smem = nullptr;
    size_t smem_bytes = 0;
    std::exception_ptr error;
    uint64_t random = 1;
    int capacity = 0;                            // fibers allocated
    char* stacks = nullptr;
    char started = 0, ended = 0;                 // happens-before edges
};
inline thread_local Block* block = nullptr;

[[noreturn]] __attribute__((format(printf, 1, 2), noinline)) inline void kernel_error(const char* fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    std::string message = "kernel: ";
    if (block && self && self != &block->launcher)
        message += format("block (%u,%u,%u) thread (%u,%u,%u): ", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
                          threadIdx.y, threadIdx.z);
    message += text;
    if (options().abort_on_error) { fprintf(stderr, "%s\n", message.c_str()); abort(); }
    throw Error(EXIT_FAILED, message);
}

// ---- which fiber runs next

EMU_NO_TSAN inline int pick(uint32_t ready, Block& b) {
    if (options().order == Order::forward) return __builtin_ctz(ready);
    if (options().order == Order::reverse) return 31 - __builtin_clz(ready);
    b.random ^= b.random << 13;                  // xorshift64 [Marsaglia 2003]
    b.random ^= b.random >> 7;
    b.random ^= b.random << 17;
    for (int skip = int(b.random % unsigned(__builtin_popcount(ready))); skip > 0; skip--) ready &= ready - 1;
    return __builtin_ctz(ready);
}

EMU_NO_TSAN inline Fiber* next_ready() {
    Block& b = *block;
    if (!b.ready_warps) return nullptr;
    int w = self->id / 32;                       // the same warp while it has work, as its lanes share their cache lines
    if (!(b.ready_warps >> w & 1) || options().order == Order::random) w = pick(b.ready_warps, b);
    return &b.fibers[w * 32 + pick(b.warps[w].ready, b)];
}

EMU_NO_TSAN inline void set_ready(Fiber& f) {
    f.wait = Wait::ready;
    block->warps[f.id / 32].ready |= 1u << f.id % 32;
    block->ready_warps |= 1u << f.id / 32;
}
EMU_NO_TSAN inline void set_waiting(Fiber& f, Wait wait) {
    f.wait = wait;
    Warp& w = block->warps[f.id / 32];
    w.ready &= ~(1u << f.id % 32);
    if (!w.ready) block->ready_warps &= ~(1u << f.id / 32);
}

// No thread can run: report who waits where, threads that wait at the same place together.
[[noreturn]] EMU_NO_TSAN __attribute__((noinline)) inline void deadlock() {
    Block& b = *block;
    std::string places;
    int exited = 0;
    std::vector<bool> told(size_t(b.threads));
    for (int i = 0; i < b.threads; i++) {
        Fiber& f = b.fibers[i];
        if (f.wait == Wait::exited) exited++;
        if (f.wait == Wait::exited || told[size_t(i)]) continue;
        std::string ids;
        int count = 0;
        for (int j = i; j < b.threads; j++) {
            Fiber& g = b.fibers[j];
            if (g.wait != f.wait || g.at.line != f.at.line || strcmp(g.what, f.what)) continue;
            told[size_t(j)] = true;
            if (count++ < 8) ids += (count > 1 ? "," : "") + std::to_string(j);
        }
        places += format("; %d wait in %s at %s:%d (%s%s)", count, f.what, f.at.file, f.at.line, ids.c_str(), count > 8 ? ",..." : "");
    }
    kernel_error("divergence, the block cannot go on: %d of %d threads have exited%s", exited, b.threads, places.c_str());
}

EMU_NO_TSAN inline void wait_here(Wait wait) {
    tsan_release(&block->ended);                 // should an error elsewhere abandon this fiber, what it did is over for the launcher
    set_waiting(*self, wait);
    Fiber* next = next_ready();
    if (!next) deadlock();
    if (next != self) switch_to(next);
}

// ---- bank conflicts of ordinary 16-byte accesses

// Lanes run one after the other here, so the k-th access of each lane since the last collective is taken for one instruction of
// the warp; where lanes made different numbers of accesses (divergence) nothing is counted. Eight lanes make one phase.
EMU_NO_TSAN inline int extra_cycles(const uintptr_t* address, int n) {
    int cycles = 1;
    for (int bank = 0; bank < 8; bank++) {
        int rows = 0;                            // distinct addresses: equal ones are one broadcast
        for (int i = 0; i < n; i++) {
            bool seen = false;
            for (int j = 0; j < i; j++) seen |= address[j] == address[i];
            rows += !seen && int(address[i] >> 4 & 7) == bank;
        }
        cycles = rows > cycles ? rows : cycles;
    }
    return cycles - 1;
}
EMU_NO_TSAN inline void count_accesses(int warp) {
    Fiber* lanes = block->fibers + warp * 32;
    int n = block->threads - warp * 32 < 32 ? block->threads - warp * 32 : 32;
    size_t accesses = lanes[0].shared_access_count;
    bool countable = accesses <= MAX_ACCESSES, none = true;
    for (int i = 0; i < n; i++) countable &= lanes[i].shared_access_count == accesses, none &= lanes[i].shared_access_count == 0;
    if (none) return;
    for (size_t k = 0; countable && k < accesses; k++)
        for (int first = 0; first < n; first += 8) {
            uintptr_t address[8];
            int lanes_in_phase = n - first < 8 ? n - first : 8;
            for (int i = 0; i < lanes_in_phase; i++) address[i] = lanes[first + i].shared_accesses[k];
            thread_stats.access_phases++;
            thread_stats.access_conflicts += uint64_t(extra_cycles(address, lanes_in_phase));
        }
    for (int i = 0; i < n; i++) lanes[i].shared_access_count = 0;
}

// ---- barriers of the block: bar.sync and bar.arrive, 16 of them; 0 is __syncthreads

EMU_NO_TSAN inline void barrier_sync(int id, int expected, const char* what, bool predicate, Where at, bool wait = true) {
    Block& b = *block;
    Barrier& r = b.barriers[id];
    Fiber& f = *self;
    if (expected == 0) expected = b.threads;
    if (r.arrived == 0) r.expected = expected, r.at = at, r.any = 0, r.all = 1, r.count = 0;
    if (r.expected != expected)
        kernel_error("barrier %d used with %d and with %d threads, at %s:%d", id, r.expected, expected, at.file,
                     at.line);
    if (id == 0 && r.at.line != at.line)
        kernel_error("divergent barrier: this thread is in %s at %s:%d, others wait at %s:%d", what, at.file, at.line,
                     r.at.file, r.at.line);
    r.any |= predicate;
    r.all &= predicate;
    r.count += predicate;
    f.what = what;
    f.at = at;
    f.barrier = id;
    tsan_release(&r);
    if (++r.arrived < expected) {
        if (!wait) return;
        wait_here(Wait::barrier);
        tsan_acquire(&f.woken);
        return;
    }
    r.arrived = 0;
    r.result_any = r.any;
    r.result_all = r.all;
    r.result_count = r.count;
    tsan_acquire(&r);
    if (expected == b.threads) for (int w = 0; w * 32 < b.threads; w++) count_accesses(w);
    for (int i = 0; i < b.threads; i++) {
        Fiber& g = b.fibers[i];
        if (g.wait != Wait::barrier || g.barrier != id) continue;
        tsan_release(&g.woken);
        set_ready(g);
    }
}

// ---- warp collectives

// All lanes of the mask meet here; the last to arrive runs `operation` over the lanes' arguments and continues.
// orders_memory: __syncwarp does, shuffles and votes do not.
using Operation = void (*)(void* const* argument, uint32_t lanes);
EMU_NO_TSAN inline void collective(uint32_t mask, const char* name, void* argument, Operation operation, bool orders_memory, Where at) {
    Fiber& f = *self;
    Warp& w = block->warps[f.id / 32];
    uint32_t bit = 1u << f.id % 32, needed = mask & w.existing;
    if (!(mask & bit)) kernel_error("%s at %s:%d: lane %d is not in its own mask %08x", name, at.file, at.line, f.id % 32, mask);
    if (needed & w.exited)
        kernel_error("%s at %s:%d: lanes %08x of mask %08x have exited", name, at.file, at.line, needed & w.exited,
                     mask);
    int i = 0;
    while (i < w.pending && !(w.collective[i].mask & mask)) i++;
    Collective& c = w.collective[i];
    if (i == w.pending) {
        w.pending++;
        c.mask = mask;
        c.arrived = 0;
        c.name = name;
        c.at = at;
    } else if (c.mask != mask || strcmp(c.name, name)) {
        kernel_error("%s(mask %08x) at %s:%d, but lanes %08x wait in %s(mask %08x) at %s:%d", name, mask, at.file,
                     at.line, c.arrived, c.name, c.mask, c.at.file, c.at.line);
    }
    c.arrived |= bit;
    c.argument[f.id % 32] = argument;
    f.what = name;
    f.at = at;
    if (orders_memory) tsan_release(&f.arrived);
    if (c.arrived != needed) {
        wait_here(Wait::warp);
        if (orders_memory) tsan_acquire(&f.woken);
        return;
    }
    if (operation) operation(c.argument, needed);
    if (needed == w.existing) count_accesses(f.id / 32);
    Fiber* lanes = &block->fibers[f.id & ~31];
    for (uint32_t m = needed; m && orders_memory; m &= m - 1) tsan_acquire(&lanes[__builtin_ctz(m)].arrived);
    for (uint32_t m = needed & ~bit; m && orders_memory; m &= m - 1) tsan_release(&lanes[__builtin_ctz(m)].woken);
    if (i != --w.pending) c = w.collective[w.pending];
    for (uint32_t m = needed & ~bit; m; m &= m - 1) set_ready(lanes[__builtin_ctz(m)]);
}
}  // namespace emu
