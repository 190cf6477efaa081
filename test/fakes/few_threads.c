// A machine that gives few threads, for test_hostile.sh: LD_PRELOAD it with FEW_THREADS=<n>. The first n
// calls of pthread_create succeed, the others say EAGAIN, as under `ulimit -u` or a container's limit of
// processes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*work)(void*), void* argument) {
    static int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    static int given;
    const char* few = getenv("FEW_THREADS");
    if (!real) real = (int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*))dlsym(RTLD_NEXT, "pthread_create");
    if (few && given++ >= atoi(few)) return EAGAIN;
    return real(thread, attributes, work, argument);
}
