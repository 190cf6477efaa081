// Launching a kernel: stacks, one block after another on each OS thread, shared memory with its NaN fill and guard zone.
// Part of emu.h.
#pragma once

extern "C" char __start_emu_shared[] __attribute__((weak));
extern "C" char __stop_emu_shared[] __attribute__((weak));

namespace emu {
// This OS thread's copies of all static __shared__ arrays: the section's offset within the thread's TLS block.
struct SharedRange { char* begin = nullptr; size_t bytes = 0; };
inline SharedRange shared_range() {
    static thread_local SharedRange range = [] {
        SharedRange r;
        if (!__start_emu_shared) return r;
        dl_iterate_phdr([](dl_phdr_info* info, size_t, void* out) {
            for (int k = 0; k < info->dlpi_phnum; k++) {
                const char* image = reinterpret_cast<const char*>(info->dlpi_addr + info->dlpi_phdr[k].p_vaddr);
                if (info->dlpi_phdr[k].p_type != PT_TLS || __start_emu_shared < image ||
                    __start_emu_shared >= image + info->dlpi_phdr[k].p_memsz)
                    continue;
                *static_cast<SharedRange*>(out) = {static_cast<char*>(info->dlpi_tls_data) + (__start_emu_shared - image),
                                                   size_t(__stop_emu_shared - __start_emu_shared)};
            }
            return 0;
        }, &r);
        return r;
    }();
    return range;
}

// ---- blocks (with their fibers' stacks) are kept from launch to launch
struct Pool { std::mutex mutex; std::vector<Block*> blocks; };
inline Pool& pool() { static Pool& p = *new Pool; return p; }

inline constexpr size_t GUARD_PAGE = 4096;       // below each stack: an overflow is a fault, not a neighbour's corruption
inline void drop_fibers(Block* b) {
#ifdef EMU_TSAN
    for (int i = 0; i < b->capacity; i++) __tsan_destroy_fiber(b->fibers[i].tsan_fiber);
#endif
    if (b->stacks) munmap(b->stacks, (options().stack_bytes + GUARD_PAGE) * size_t(b->capacity));
    delete[] b->fibers;
    b->stacks = nullptr;
    b->fibers = nullptr;
    b->capacity = 0;
}
inline void make_fibers(Block* b, int threads) {
    int n = (threads + 31) / 32 * 32;
    size_t step = options().stack_bytes + GUARD_PAGE;
    drop_fibers(b);
    void* stacks = mmap(nullptr, step * size_t(n), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) throw std::bad_alloc();
    b->stacks = static_cast<char*>(stacks);
    b->fibers = new Fiber[size_t(n)];
    b->capacity = n;
    for (int i = 0; i < n; i++) {
        Fiber& f = b->fibers[i];
        f.id = i;
        f.stack = b->stacks + step * size_t(i) + GUARD_PAGE;
        f.stack_bytes = options().stack_bytes;
        mprotect(f.stack - GUARD_PAGE, GUARD_PAGE, PROT_NONE);
#ifdef EMU_TSAN
        f.tsan_fiber = __tsan_create_fiber(0);
#endif
    }
}
inline Block* take_block(int threads) {
    Block* b = nullptr;
    {
        std::lock_guard<std::mutex> lock(pool().mutex);
        if (!pool().blocks.empty()) b = pool().blocks.back(), pool().blocks.pop_back();
    }
    if (!b) b = new Block;
    if (b->capacity < threads) make_fibers(b, threads);
    return b;
}

inline void finish_copies(Fiber& f, unsigned newest_groups_kept);      // memory.h

// The life of one CUDA thread. An error ends the block: its other fibers are abandoned where they stand.
EMU_NO_TSAN inline void fiber_main() {
    after_switch();
    Block& b = *block;
    Fiber& f = *self;
    Fiber* next = nullptr;
    try {
        tsan_acquire(&b.started);
        b.kernel(b.arguments);
        f.copy_group++;
        finish_copies(f, 0);
        tsan_release(&b.ended);
        Warp& w = b.warps[f.id / 32];
        uint32_t bit = 1u << f.id % 32;
        w.exited |= bit;
        set_waiting(f, Wait::exited);
        b.alive--;
        for (int i = 0; i < w.pending; i++)
            if (w.collective[i].mask & bit)
                kernel_error("lane %d exits while lanes %08x of its warp wait for it in %s at %s:%d", f.id % 32, w.collective[i].arrived,
                             w.collective[i].name, w.collective[i].at.file, w.collective[i].at.line);
        next = next_ready();
        if (!next && b.alive) deadlock();
    } catch (...) {
        b.error = std::current_exception();
        next = nullptr;
        tsan_release(&b.ended);
    }
    switch_to(next ? next : &b.launcher, true);  // never comes back
    __builtin_trap();
}

inline constexpr size_t GUARD_ZONE = 512;        // behind dynamic shared memory; ASan's redzone does better

EMU_NO_TSAN inline void run_block(Block& b, dim3 grid, dim3 threads, uint64_t index) {
    b.alive = b.threads;
    b.ready_warps = 0;
    b.error = nullptr;
    switched_from = nullptr;
    b.random = (options().seed + index) * 0x9E3779B97F4A7C15ull | 1;
    for (Barrier& r : b.barriers) r.arrived = 0;
    for (int w = 0; w * 32 < b.threads; w++) b.warps[w].existing = b.warps[w].ready = b.warps[w].exited = 0, b.warps[w].pending = 0;
    // Shared memory starts undefined: 0xff bytes are a NaN in float and in bf16, so nothing can depend on what was there.
    SharedRange shared = shared_range();
    if (shared.bytes) memset(shared.begin, 0xff, shared.bytes);
    memset(b.smem, 0xff, b.smem_bytes);
#ifndef EMU_ASAN
    memset(b.smem + b.smem_bytes, 0xA5, GUARD_ZONE);
#endif
    blockDim = threads;
    gridDim = grid;
    blockIdx = {unsigned(index % grid.x), unsigned(index / grid.x % grid.y), unsigned(index / grid.x / grid.y)};
    for (int i = 0; i < b.threads; i++) {
        Fiber& f = b.fibers[i];
        f.thread_index = {unsigned(i) % threads.x, unsigned(i) / threads.x % threads.y, unsigned(i) / threads.x / threads.y};
        f.copies.clear();
        f.shared_access_count = 0;
        f.copy_group = 0;
        f.asan_fake_stack = nullptr;
#ifdef EMU_ASAN
        __asan_unpoison_memory_region(f.stack, f.stack_bytes);
#endif
        prepare_fiber(f, &fiber_main);
        b.warps[i / 32].existing |= 1u << i % 32;
        set_ready(f);
    }
#ifdef EMU_TSAN
    b.launcher.tsan_fiber = __tsan_get_current_fiber();
#endif
    tsan_release(&b.started);
    self = &b.launcher;
    b.launcher.id = options().order == Order::reverse ? b.threads - 1 : 0;
    switch_to(next_ready());
    tsan_acquire(&b.ended);
#ifndef EMU_ASAN
    for (size_t i = 0; i < GUARD_ZONE && !b.error; i++)
        if (b.smem[b.smem_bytes + i] != 0xA5)
            b.error = std::make_exception_ptr(
                Error(EXIT_FAILED,
                      format("kernel: block (%u,%u,%u) wrote beyond its %zu bytes of dynamic shared memory, at +%zu",
                             blockIdx.x, blockIdx.y, blockIdx.z, b.smem_bytes, i)));
#endif
}

// The limits of an sm_90 device.
inline void check_launch(dim3 grid, dim3 threads, size_t smem_bytes, Where at) {
    uint64_t n = uint64_t(threads.x) * threads.y * threads.z;
    if (block) kernel_error("launch from inside a kernel, at %s:%d", at.file, at.line);
    if (n == 0 || n > 1024 || threads.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu ||
        grid.y > 65535 || grid.z > 65535 || smem_bytes > 227 * 1024)
        kernel_error("invalid launch at %s:%d: grid %ux%ux%u, block %ux%ux%u, %zu bytes of shared memory", at.file,
                     at.line, grid.x, grid.y, grid.z, threads.x, threads.y, threads.z, smem_bytes);
}

inline void run_grid(dim3 grid, dim3 threads, size_t smem_bytes, void (*kernel)(void*), void* arguments) {
    int n = int(threads.x * threads.y * threads.z);
    uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    int os_threads = options().threads ? options().threads : int(std::thread::hardware_concurrency());
    if (blocks < 4) os_threads = 1;
    std::atomic<uint64_t> next{0};
    std::mutex mutex;
    std::exception_ptr error;
    auto work = [&] {
        Block* b = take_block(n);
        b->threads = n;
        b->kernel = kernel;
        b->arguments = arguments;
        b->smem_bytes = smem_bytes;
        block = b;
#ifdef EMU_ASAN
        size_t bytes = smem_bytes ? smem_bytes : 1;          // exact: the heap's redzone starts right behind
#else
        size_t bytes = smem_bytes + GUARD_ZONE;
#endif
        void* smem = nullptr;
        if (posix_memalign(&smem, 1024, bytes)) abort();
        b->smem = static_cast<unsigned char*>(smem);
        bool failed = false;
        for (uint64_t i; !failed && (i = next++) < blocks;) {
            run_block(*b, grid, threads, options().order == Order::reverse ? blocks - 1 - i : i);
            if (!b->error) continue;
            failed = true;
            std::lock_guard<std::mutex> lock(mutex);
            if (!error) error = b->error;
            b->error = nullptr;
            next = blocks;
        }
        free(b->smem);
        b->smem = nullptr;
        block = nullptr;
        self = nullptr;
        {
            std::lock_guard<std::mutex> lock(mutex);
            Stats &all = stats(), &mine = thread_stats;
            all.switches += mine.switches;
            all.ldmatrix_phases += mine.ldmatrix_phases;
            all.ldmatrix_conflicts += mine.ldmatrix_conflicts;
            all.access_phases += mine.access_phases;
            all.access_conflicts += mine.access_conflicts;
            mine = Stats{};
        }
        if (failed) {                                        // abandoned fibers: their sanitizer state is not fit for reuse
            drop_fibers(b);
            delete b;
        } else {
            std::lock_guard<std::mutex> lock(pool().mutex);
            pool().blocks.push_back(b);
        }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < os_threads && uint64_t(i) < blocks; i++) others.emplace_back(work);
    work();
    for (std::thread& t : others) t.join();
    if (error) std::rethrow_exception(error);
}

// Who executes launches in place of run_grid: a test's interpreter of what nvcc made of the kernels (test/ptx), if it is set.
using Runner = void (*)(const void* kernel, dim3 grid, dim3 threads, size_t smem_bytes, const void* const* arguments,
                        const size_t* sizes, size_t count);
inline Runner runner = nullptr;

template <class... P> struct Launch {
    void (*kernel)(P...);
    dim3 grid, threads;
    size_t smem_bytes;
    static void run_recorded(const KernelCall& c) {          // runtime/device/replay.h
        auto kernel = reinterpret_cast<void (*)(P...)>(const_cast<void*>(c.kernel));
        dim3 grid(c.grid[0], c.grid[1], c.grid[2]), threads(c.threads[0], c.threads[1], c.threads[2]);
        [&]<size_t... I>(std::index_sequence<I...>) {
            Launch{kernel, grid, threads, c.smem_bytes}(*static_cast<P*>(c.arguments[I])...);
        }(std::index_sequence_for<P...>{});
    }
    template <class... A> void operator()(A&&... a) const {
        static_assert(sizeof...(A) == sizeof...(P), "wrong number of kernel arguments");
        if (hook_takes(kernel, grid, threads, smem_bytes, run_recorded, a...)) return;
        struct Call { void (*kernel)(P...); std::tuple<P...> arguments; };
        Call call{kernel, std::tuple<P...>(static_cast<A&&>(a)...)};
        if (runner) {
            std::apply([&](const P&... p) {
                const void* addresses[] = {&p..., nullptr};
                const size_t sizes[] = {sizeof(P)..., 0};
                runner(reinterpret_cast<const void*>(kernel), grid, threads, smem_bytes, addresses, sizes, sizeof...(P));
            }, call.arguments);
            return;
        }
        run_grid(grid, threads, smem_bytes, [](void* p) { Call& c = *static_cast<Call*>(p); std::apply(c.kernel, c.arguments); }, &call);
    }
};
}  // namespace emu

template <class... P> emu::Launch<P...> launch(void (*kernel)(P...), dim3 grid, dim3 threads, size_t smem_bytes, EMU_HERE) {
    emu::check_launch(grid, threads, smem_bytes, at);
    return {kernel, grid, threads, smem_bytes};
}
