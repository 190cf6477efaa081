// A disk that fails on demand, for test_faults.sh and test_hostile.sh: LD_PRELOAD it with FAULTY=<call>:<part of the path>:<n>:<what>.
// The n-th call (write, fsync, rename, pread) on such a path fails with <what>, ENOSPC or EIO; "short": write() writes half and says so;
// "hang": pread() never returns.
// Not seen: stdio's own writes (the logs), which do not pass through these symbols.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int strikes(const char* call, const char* path) {      // 0: no, else the errno; -1: short; -2: hang
    static int passed;
    char wanted_call[16], part[64], what[16];
    int n;
    const char* faulty = getenv("FAULTY");
    if (!faulty || sscanf(faulty, "%15[^:]:%63[^:]:%d:%15s", wanted_call, part, &n, what) != 4) return 0;
    if (strcmp(call, wanted_call) || !strstr(path, part) || ++passed != n) return 0;
    return !strcmp(what, "short") ? -1 : !strcmp(what, "hang") ? -2 : !strcmp(what, "ENOSPC") ? ENOSPC : EIO;
}

static int strikes_fd(const char* call, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    return strikes(call, path);
}

ssize_t write(int fd, const void* data, size_t bytes) {
    static ssize_t (*real)(int, const void*, size_t);
    if (!real) real = (ssize_t(*)(int, const void*, size_t))dlsym(RTLD_NEXT, "write");
    int e = strikes_fd("write", fd);
    if (e > 0) return errno = e, -1;
    return real(fd, data, e < 0 && bytes > 1 ? bytes / 2 : bytes);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int e = strikes_fd("fsync", fd);
    if (e) return errno = e, -1;
    return real(fd);
}

ssize_t pread(int fd, void* data, size_t bytes, off_t offset) {
    static ssize_t (*real)(int, void*, size_t, off_t);
    if (!real) real = (ssize_t(*)(int, void*, size_t, off_t))dlsym(RTLD_NEXT, "pread");
    int e = strikes_fd("pread", fd);
    if (e == -2) for (;;) pause();
    if (e) return errno = e, -1;
    return real(fd, data, bytes, offset);
}

int rename(const char* from, const char* to) {
    static int (*real)(const char*, const char*);
    if (!real) real = (int (*)(const char*, const char*))dlsym(RTLD_NEXT, "rename");
    int e = strikes("rename", to);
    if (e) return errno = e, -1;
    return real(from, to);
}
