// The CUDA execution model on a CPU, for tests: the kernels of the .cu files, compiled by g++ or clang++ with -DBACKEND_EMU,
// run here thread by thread. Needs no GPU and no CUDA toolkit. Linux. Not for speed, and not a model of the GPU's timing.
//
// Every CUDA thread of a block is a fiber with its own stack (fiber.h). All fibers of a block live on one OS thread and switch
// only inside barriers and warp collectives (block.h), so a run is deterministic; the blocks of a grid are spread over OS
// threads (launch.h). What it finds, and reports as an Error naming block, thread, file and line:
//   barriers that not all threads reach, two different barriers at once, a thread or lane that exits while others wait for it;
//   shuffles and votes with lanes missing from the mask or reading a lane that takes no part;
//   writes beyond dynamic shared memory (a guard zone; with ASan, reads too, and static shared arrays);
//   misaligned ldmatrix and cp.async; launches that a GPU refuses.
// What shows as wrong numbers: shared memory read before it is written (it starts as NaN), a cp.async without its wait (NaN until
// then), a missing barrier (run all three orders; or compile with clang's TSan, which names both accesses).
// What it counts: ldmatrix bank conflicts, also those of load16/store16/cp_async16 on shared memory (see memory.h, `emu::stats()`).
//
// Environment: EMU_ORDER=forward|reverse|random:SEED    which ready thread runs next
//              EMU_THREADS=n   OS threads      EMU_STACK=bytes   stack of one CUDA thread
//              EMU_ABORT=1     abort() at the error, for a debugger, instead of throwing out of the launch
//
// What a kernel must do: be launched only through launch(kernel, grid, block, smem)(args...); dynamic shared memory only as `dyn_smem`;
// static shared arrays as `__shared__ __align__(16) T x[N];` in functions that are not templates (g++ cannot fill those with NaN);
// `_sync` intrinsics; no thread leaves before a barrier that its block still reaches; no spinning on a flag.
#pragma once
#pragma push_macro("fail")                       // runtime/run/error.h's macro would break <ios>, were it included before these
#undef fail
#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <vector>
#pragma pop_macro("fail")

#include "runtime/device/replay.h"
#include "runtime/run/error.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define EMU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#elif __has_feature(thread_sanitizer)
#define EMU_TSAN 1
#endif
#endif
// The emulator's own bookkeeping is shared by all fibers without locks: TSan is to watch the kernels, not us.
#define EMU_NO_TSAN __attribute__((no_sanitize("thread")))

#define __global__
#define __device__
#define __host__
#define __constant__
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// A block runs on one OS thread: one instance per OS thread is one instance per block. All of them lie in one section, so that
// launch.h can fill them with NaN. Under ASan, which never guards thread_locals, blocks run one after the other instead.
#ifdef EMU_ASAN
#define __shared__ static
#else
#define __shared__ static thread_local __attribute__((section("emu_shared")))
#endif
#define dyn_smem (::emu::block->smem)

#include "runtime/device/emu/vector_types.h"
#include "runtime/device/emu/fiber.h"
#include "runtime/device/emu/block.h"
#include "runtime/device/emu/launch.h"
#include "runtime/device/emu/intrinsics.h"
#include "runtime/device/emu/memory.h"
#include "runtime/device/emu/tensor_core.h"
