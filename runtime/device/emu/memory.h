// 16-byte shared-memory traffic that the emulator watches: cp.async, and the accesses whose bank conflicts are counted.
// Part of emu.h; the kernels' names for these are in layers/ptx.cuh and layers/cuda_common.cuh.
#pragma once

namespace emu {
// One aligned 16-byte access, never expanded inline into pieces: GCC's TSan overlooks memcpy and memset that it expands.
typedef uint32_t Vector16 __attribute__((vector_size(16), may_alias));

// Remembers a 16-byte access to shared memory until the warp's next collective (block.h).
EMU_NO_TSAN inline void note_shared_access(const void* p) {
    if (!self || !block) return;
    const char* c = static_cast<const char*>(p);
    const char* dynamic = reinterpret_cast<const char*>(block->smem);
    SharedRange fixed = shared_range();
    bool shared = (c >= dynamic && c < dynamic + block->smem_bytes) || (c >= fixed.begin && c < fixed.begin + fixed.bytes);
    if (!shared) return;
    size_t k = self->shared_access_count++;
    if (k < MAX_ACCESSES) self->shared_accesses[k] = reinterpret_cast<uintptr_t>(p);
}

// Does the copies of all but the newest groups.
inline void finish_copies(Fiber& f, unsigned newest_groups_kept) {
    size_t kept = 0;
    for (PendingCopy& c : f.copies) {
        if (c.group + newest_groups_kept >= f.copy_group) { f.copies[kept++] = c; continue; }
        memcpy(c.to, c.from, c.valid_bytes);
        memset(static_cast<char*>(c.to) + c.valid_bytes, 0, c.bytes - c.valid_bytes);
    }
    f.copies.resize(kept);
}
}  // namespace emu

// Shared memory as integers (layers/ptx.cuh): here any memory.
using SharedAddress = uintptr_t;
inline SharedAddress shared_address(const void* p) { return reinterpret_cast<uintptr_t>(p); }
inline void keep(SharedAddress&) {}

// The copy happens as late as it may, at the wait; until then the destination holds NaNs.
inline void cp_async16(void* smem, const void* gmem, bool valid = true, EMU_HERE) {
    uintptr_t addresses = reinterpret_cast<uintptr_t>(smem) | (valid ? reinterpret_cast<uintptr_t>(gmem) : 0);
    if (addresses & 15) emu::kernel_error("cp.async at %s:%d: an address is not 16-byte aligned", at.file, at.line);
    if (valid) {                                 // read now as well, so that ASan and TSan blame this line
        emu::Vector16 probe = *static_cast<const emu::Vector16*>(gmem);
        asm volatile("" ::"m"(probe));
    }
    emu::note_shared_access(smem);
    *static_cast<emu::Vector16*>(smem) = emu::Vector16{~0u, ~0u, ~0u, ~0u};
    emu::self->copies.push_back({smem, gmem, 16, valid ? 16u : 0u, emu::self->copy_group});
}
inline void cp_async16(SharedAddress smem, const void* gmem, bool valid = true, EMU_HERE) {
    cp_async16(reinterpret_cast<void*>(smem), gmem, valid, at);
}
inline void cp_async_commit() { emu::self->copy_group++; }
template <int N> void cp_async_wait() { emu::finish_copies(*emu::self, N); }

template <int ID> void named_barrier_sync(int threads, EMU_HERE) { emu::barrier_sync(ID, threads, "bar.sync", false, at); }
template <int ID> void named_barrier_arrive(int threads, EMU_HERE) { emu::barrier_sync(ID, threads, "bar.arrive", false, at, false); }
