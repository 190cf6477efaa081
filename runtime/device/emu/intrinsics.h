// CUDA's device functions: barriers, shuffles, votes, atomics, arithmetic. Part of emu.h.
#pragma once

// ---- barriers
inline void __syncthreads(EMU_HERE) { emu::barrier_sync(0, 0, "__syncthreads", false, at); }
inline int __syncthreads_or(int p, EMU_HERE) {
    emu::barrier_sync(0, 0, "__syncthreads_or", p != 0, at);
    return emu::block->barriers[0].result_any;
}
inline int __syncthreads_and(int p, EMU_HERE) {
    emu::barrier_sync(0, 0, "__syncthreads_and", p != 0, at);
    return emu::block->barriers[0].result_all;
}
inline int __syncthreads_count(int p, EMU_HERE) {
    emu::barrier_sync(0, 0, "__syncthreads_count", p != 0, at);
    return emu::block->barriers[0].result_count;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_HERE) { emu::collective(mask, "__syncwarp", nullptr, nullptr, true, at); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __trap() { emu::kernel_error("__trap()"); }

// ---- shuffles and votes
namespace emu {
enum class Shuffle { index, up, down, exclusive_or };
struct ShuffleArgument { uint64_t in, out; Shuffle kind; int by, width; const char* name; Where at; };

// The source lane, as the PTX ISA defines it for shfl.sync: within segments of `width`; out of range reads its own value.
EMU_NO_TSAN inline void shuffle_operation(void* const* argument, uint32_t lanes) {
    for (uint32_t m = lanes; m; m &= m - 1) {
        int lane = __builtin_ctz(m);
        ShuffleArgument& a = *static_cast<ShuffleArgument*>(argument[lane]);
        int segment = 32 - a.width, low = lane & segment, high = low | (31 & ~segment), from = lane;
        switch (a.kind) {
            case Shuffle::index: from = low | (a.by & ~segment & 31); break;
            case Shuffle::up: from = lane - a.by < low ? lane : lane - a.by; break;
            case Shuffle::down: from = lane + a.by > high ? lane : lane + a.by; break;
            case Shuffle::exclusive_or: from = (lane ^ a.by) > high ? lane : lane ^ a.by; break;
        }
        if (!(lanes >> from & 1))
            kernel_error("%s at %s:%d: lane %d reads lane %d, which takes no part (lanes %08x)", a.name, a.at.file,
                         a.at.line, lane, from, lanes);
        a.out = static_cast<ShuffleArgument*>(argument[from])->in;
    }
}
template <class T> EMU_NO_TSAN inline T shuffle(unsigned mask, T v, int by, int width, Shuffle kind, const char* name, Where at) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    if (width < 1 || width > 32 || (width & (width - 1)))
        kernel_error("%s at %s:%d: width %d is not a power of two up to 32", name, at.file, at.line, width);
    ShuffleArgument a{0, 0, kind, by, width, name, at};
    memcpy(&a.in, &v, sizeof v);
    collective(mask, name, &a, shuffle_operation, false, at);
    memcpy(&v, &a.out, sizeof v);
    return v;
}
struct VoteArgument { bool in; unsigned out; };
EMU_NO_TSAN inline void vote_operation(void* const* argument, uint32_t lanes) {
    unsigned result = 0;
    for (uint32_t m = lanes; m; m &= m - 1) if (static_cast<VoteArgument*>(argument[__builtin_ctz(m)])->in) result |= m & -m;
    for (uint32_t m = lanes; m; m &= m - 1) static_cast<VoteArgument*>(argument[__builtin_ctz(m)])->out = result;
}
EMU_NO_TSAN inline unsigned vote(unsigned mask, bool p, const char* name, Where at) {
    VoteArgument a{p, 0};
    collective(mask, name, &a, vote_operation, false, at);
    return a.out;
}
}  // namespace emu
template <class T>
T __shfl_sync(unsigned mask, T v, int lane, int width = 32, EMU_HERE) {
    return emu::shuffle(mask, v, lane, width, emu::Shuffle::index, "__shfl_sync", at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, EMU_HERE) {
    return emu::shuffle(mask, v, int(by), width, emu::Shuffle::up, "__shfl_up_sync", at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, EMU_HERE) {
    return emu::shuffle(mask, v, int(by), width, emu::Shuffle::down, "__shfl_down_sync", at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32, EMU_HERE) {
    return emu::shuffle(mask, v, by, width, emu::Shuffle::exclusive_or, "__shfl_xor_sync", at);
}
inline unsigned __ballot_sync(unsigned mask, int p, EMU_HERE) { return emu::vote(mask, p != 0, "__ballot_sync", at); }
inline int __any_sync(unsigned mask, int p, EMU_HERE) { return emu::vote(mask, p != 0, "__any_sync", at) != 0; }
inline int __all_sync(unsigned mask, int p, EMU_HERE) { return emu::vote(mask, p == 0, "__all_sync", at) == 0; }

// ---- atomics
namespace emu {
template <class T, class F> T read_modify_write(T* p, F f) {
    T old, now;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do now = f(old); while (!__atomic_compare_exchange(p, &old, &now, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return old;
}
}  // namespace emu
template <class T> T atomicAdd(T* p, std::common_type_t<T> v) { return emu::read_modify_write(p, [=](T old) { return T(old + v); }); }
template <class T>
T atomicMax(T* p, std::common_type_t<T> v) {
    return emu::read_modify_write(p, [=](T old) { return old > v ? old : v; });
}
template <class T>
T atomicMin(T* p, std::common_type_t<T> v) {
    return emu::read_modify_write(p, [=](T old) { return old < v ? old : v; });
}
template <class T> T atomicExch(T* p, std::common_type_t<T> v) { return emu::read_modify_write(p, [=](T) { return v; }); }

// ---- loads and stores with cache hints
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, std::common_type_t<T> v) { *p = v; }

// ---- arithmetic. Macros where glibc declares functions of the same name.
#define __expf(x) ::expf(x)
#define __logf(x) ::logf(x)
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __uint_as_float(unsigned x) { float f; memcpy(&f, &x, 4); return f; }
inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
inline float __int_as_float(int x) { float f; memcpy(&f, &x, 4); return f; }
inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
#define EMU_MIN_MAX(T)                                 \
    inline T min(T a, T b) { return b < a ? b : a; }   \
    inline T max(T a, T b) { return a < b ? b : a; }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
#undef EMU_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
