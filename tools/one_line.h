// What every tool does with an error: one line, "NAME: what is wrong", and the exit code that goes with it.
#pragma once
#include <cstdio>

#include "runtime/run/error.h"

template <class Work> int errors_in_one_line(const char* name, Work work) {
    try {
        return work();
    } catch (const Error& e) {
        fprintf(stderr, "%s: %s\n", name, e.what());
        return e.exit_code;
    } catch (const std::exception& e) {
        fprintf(stderr, "%s: %s\n", name, e.what());
        return EXIT_FAILED;
    }
}
