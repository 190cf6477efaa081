// What may fail on one rank only (its disk, its memory, its options) is done together: either all ranks continue, or all
// end with one message.
#pragma once
#include <new>
#include <string>

#include "runtime/comm/comm.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"

inline const char* out_of_memory_text() {
    return "out of memory; --dry-run lists what takes it, a smaller --micro-batch or --context needs less";
}

// Runs `work` on every rank. If it fails on any of them, all ranks throw the same AgreedError.
template <class Work> void together(const char* phase, Work work) {
    std::string error;
    int code = EXIT_FAILED;
    try {
        work();
    } catch (const Error& e) {
        error = e.what();
        code = e.exit_code;
    } catch (const std::bad_alloc&) {
        error = out_of_memory_text();
    } catch (const std::exception& e) {
        error = error_text(e);
    }
    comm_agree(error.c_str(), code, phase);
}
