// Crash points for the crash tests: QV_CRASH_AT=<point>:<n> kills the process (SIGKILL, as a power cut would: no destructor, no
// flush) when it passes <point> for the n-th time, counted from 1. Without the variable a point costs one getenv.
// Points, in the order in which saving a file or a checkpoint passes them:
//   before-write  during-write  after-write  before-fsync  after-fsync  before-rename  after-rename
//   before-publish  after-publish (the checkpoint's folder gets its name)  before-latest  after-latest  before-prune  after-prune
// Not for ordinary errors: those throw.
#pragma once
#include <csignal>
#include <cstdlib>
#include <string>

inline void crash_point(const char* name) {
    const char* wanted = std::getenv("QV_CRASH_AT");
    if (!wanted) return;
    static int passed = 0;          // one counter is enough: only one point can be asked for
    std::string point = wanted;
    size_t colon = point.rfind(':');
    int n = colon == std::string::npos ? 1 : std::atoi(point.c_str() + colon + 1);
    if (point.substr(0, colon) == name && ++passed == n) raise(SIGKILL);
}
