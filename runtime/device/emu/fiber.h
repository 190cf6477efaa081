// Fibers: one CUDA thread each, its stack and the switch between stacks. Part of emu.h.
// A switch saves the callee-saved registers only and is an opaque call, so that the compiler reloads everything else from
// memory; on x86-64 it costs some ten nanoseconds. Other machines use ucontext (two system calls a switch).
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMU_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace emu {
// A place in the kernel's source; default arguments fill it in at the call.
struct Where { const char* file; int line; };
#define EMU_HERE ::emu::Where at = {__builtin_FILE(), __builtin_LINE()}

enum class Wait : uint8_t { ready, barrier, warp, exited };

// One cp.async that has been issued and not waited for.
struct PendingCopy { void* to; const void* from; unsigned bytes, valid_bytes, group; };

inline constexpr size_t MAX_ACCESSES = 128;      // per thread between two collectives; where there are more, none are counted

struct Fiber {
    void* stack_pointer = nullptr;               // saved while switched out
    char* stack = nullptr;
    size_t stack_bytes = 0;
    uint3 thread_index{};
    int id = 0;                                  // within the block
    Wait wait = Wait::exited;
    int barrier = 0;                             // which, while it waits for one
    const char* what = "";                       // what it waits for, and where
    Where at{};
    std::vector<PendingCopy> copies;
    unsigned copy_group = 0;
    uintptr_t shared_accesses[MAX_ACCESSES];     // addresses since the last collective, for the count of bank conflicts
    size_t shared_access_count = 0;
    void *asan_fake_stack = nullptr, *tsan_fiber = nullptr;
    char arrived = 0, woken = 0;                 // addresses that stand for happens-before edges
};

inline thread_local Fiber* self = nullptr;       // the fiber that runs on this OS thread
inline thread_local Fiber* switched_from = nullptr;
inline void count_switch();                      // block.h

#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
asm(R"(
.section .text.emu_switch,"axG",@progbits,emu_switch,comdat
.weak emu_switch
.type emu_switch,@function
emu_switch:
 .cfi_startproc
 pushq %rbp
 pushq %rbx
 pushq %r12
 pushq %r13
 pushq %r14
 pushq %r15
 movq %rsp,(%rdi)
 movq %rsi,%rsp
 popq %r15
 popq %r14
 popq %r13
 popq %r12
 popq %rbx
 popq %rbp
 ret
 .cfi_endproc
.size emu_switch,.-emu_switch
.weak emu_first_frame
.type emu_first_frame,@function
emu_first_frame:
 .cfi_startproc
 .cfi_undefined rip
 callq *%rbx
 ud2
 .cfi_endproc
.size emu_first_frame,.-emu_first_frame
.text
)");
extern "C" void emu_switch(void** save_stack_pointer, void* load_stack_pointer);
extern "C" void emu_first_frame();

// The first switch to a fiber pops this frame: six registers (rbx holds the entry), then "returns" into emu_first_frame.
EMU_NO_TSAN inline void prepare_fiber(Fiber& f, void (*entry)()) {
    // Staggered tops: at equal distances all fibers' frames would fall into the same cache sets.
    void** top = reinterpret_cast<void**>(f.stack + f.stack_bytes - size_t(f.id) * 192 % 4096);
    *--top = nullptr;                            // keeps the stack 16-byte aligned at the call
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&emu_first_frame);
    *--top = nullptr;                            // rbp
    *--top = reinterpret_cast<void*>(entry);     // rbx
    for (int i = 12; i <= 15; i++) *--top = nullptr;
    f.stack_pointer = top;
}
#else
struct SavedContext { ucontext_t c; };
inline void emu_switch(void** save, void* load) {
    if (!*save) *save = new SavedContext;
    swapcontext(&static_cast<SavedContext*>(*save)->c, &static_cast<SavedContext*>(load)->c);
}
inline void prepare_fiber(Fiber& f, void (*entry)()) {
    if (!f.stack_pointer) f.stack_pointer = new SavedContext;
    ucontext_t& c = static_cast<SavedContext*>(f.stack_pointer)->c;
    getcontext(&c);
    c.uc_stack.ss_sp = f.stack;
    c.uc_stack.ss_size = f.stack_bytes - size_t(f.id) * 192 % 4096;
    c.uc_link = nullptr;
    makecontext(&c, entry, 0);
}
#endif

EMU_NO_TSAN __attribute__((noinline)) inline void after_switch() {
#ifdef EMU_ASAN
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(self->asan_fake_stack, &stack, &bytes);
    if (switched_from) {                         // the first time, this tells us the OS thread's own stack
        switched_from->stack = static_cast<char*>(const_cast<void*>(stack));
        switched_from->stack_bytes = bytes;
    }
#endif
}

EMU_NO_TSAN __attribute__((noinline)) inline void switch_to(Fiber* to, [[maybe_unused]] bool from_exits = false) {
    Fiber* from = self;
    count_switch();
    switched_from = from;
    self = to;
    threadIdx = to->thread_index;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(from_exits ? nullptr : &from->asan_fake_stack, to->stack, to->stack_bytes);
#endif
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(to->tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
    emu_switch(&from->stack_pointer, to->stack_pointer);
    after_switch();
}

// Happens-before edges, told to TSan only where CUDA promises an order of memory.
EMU_NO_TSAN inline void tsan_release([[maybe_unused]] void* token) {
#ifdef EMU_TSAN
    __tsan_release(token);
#endif
}
EMU_NO_TSAN inline void tsan_acquire([[maybe_unused]] void* token) {
#ifdef EMU_TSAN
    __tsan_acquire(token);
#endif
}
}  // namespace emu
