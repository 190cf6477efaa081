// The CPU as a device. See backend.h.
#include "runtime/device/backend.h"

#include <omp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "layers/gemm.h"

#include "runtime/run/error.h"
#include "runtime/run/threads.h"
#include "runtime/device/types.h"

static int threads_in_use = 0;

// A thread that waits for others at the end of a parallel loop spins for a while before it sleeps. libgomp's default, about
// a millisecond, is ruinous when anything else runs: the spinning thread keeps the core that the late thread needs. A step
// of 2 M parameters on two busy cores took 2000 ms, and 620 ms with 5000 rounds (about 20 us); on two idle cores there is
// no difference (docs/LOG.md).
// libgomp reads the variable when it is loaded, hence the restart, once.
void backend_prepare(char** argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    setenv("GOMP_SPINCOUNT", "5000", 1);
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = '\0';
    execv(path, argv);                           // returns only if it fails: then continue as we are
}

void backend_init(int threads) {
    static const int all = omp_get_max_threads();            // OMP_NUM_THREADS, else every core that this process may use
    threads_in_use = threads > 0 ? threads : all;
    ensure_threads(threads_in_use);
    omp_set_num_threads(threads_in_use);
    static bool said = sizeof(floatX) != 2 || has_bf16_products();
    if (!said)
        fprintf(stderr,
                "note: bf16 is correct here but slow: no AVX512_BF16 or AMX, "
                "or a build without oneDNN, so products are done in fp32; PRECISION=fp32 is faster\n");
    said = true;
}

const char* backend_name() { return "cpu"; }

// Large blocks are aligned to 2 MiB and offered to the kernel for huge pages: fewer TLB misses in the optimizer's passes.
void* device_alloc(size_t bytes) {
    constexpr size_t HUGE_PAGE = size_t(2) << 20;
    size_t alignment = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 256;
    void* p = aligned_alloc(alignment, round_up(bytes ? bytes : 1, alignment));
    ensure(p, "out of memory: %zu bytes asked for, %zu in this machine; a smaller --micro-batch, --context or model needs less", bytes,
           device_facts().memory_bytes);
    if (alignment == HUGE_PAGE) madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 0, bytes);
    return p;
}

void device_free(void* p) { free(p); }
void device_zero(void* p, size_t bytes) { memset(p, 0, bytes); }
void copy_to_device(void* device, const void* host, size_t bytes) { if (bytes > 0) memcpy(device, host, bytes); }
void copy_to_host(void* host, const void* device, size_t bytes) { if (bytes > 0) memcpy(host, device, bytes); }
void device_synchronize() {}
std::string backend_keep_choices(const std::string&) { return ""; }
void device_repeat(Repeat&, const std::function<void()>& work) { work(); }
double launch_overhead_us() { return 0; }

DeviceFacts device_facts() {
    DeviceFacts f{"CPU", threads_in_use, 0, size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE))};
    std::ifstream cpuinfo("/proc/cpuinfo");
    for (std::string line; std::getline(cpuinfo, line);)
        if (line.rfind("model name", 0) == 0) {
            f.name = line.substr(line.find(':') + 2);
            break;
        }
    return f;
}

size_t peak_memory_bytes() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return size_t(usage.ru_maxrss) * 1024;
}

void device_scratch_reserve(size_t) {}
size_t device_fixed_bytes() { return 0; }
