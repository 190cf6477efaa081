// What may fail on one rank only (its disk, its memory, its options) is done together: either all ranks continue, or all
// end with one message. And the frame of a program that runs on all ranks.
#pragma once
#include <cstdio>
#include <new>
#include <string>

#include "runtime/comm/comm.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "runtime/run/signals.h"

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

// Prints one line: on rank 0 if all ranks have the error, else on the rank that has it, which then ends the others.
inline int report_error(const char* what, int code, bool agreed) {
    const bool alone = comm_size() == 1;
    if (alone || (agreed && comm_rank() == 0)) fprintf(stderr, "error: %s\n", what);
    else if (!agreed) fprintf(stderr, "error: rank %d: %s\n", comm_rank(), what);
    fflush(stdout);
    if (!alone && !agreed) comm_abort(code);
    return code;
}

// A whole program on every rank, from the start of communication to its end. Returns its exit code, or that of the error that ended it.
template <class Program> int on_every_rank(Program program) {
    int code = EXIT_DONE;
    try {
        signals_install();                                                   // before MPI starts threads of its own
        comm_init();
        if (comm_size() > 1) signals_quit_at_once(false);                    // ranks stop together, at their next agreement
        if (comm_rank() != 0 && !freopen("/dev/null", "w", stdout)) return EXIT_FAILED;
        code = program();
    } catch (const AgreedError& e) {
        code = report_error(e.what(), e.exit_code, true);
    } catch (const Error& e) {
        code = report_error(e.what(), e.exit_code, false);
    } catch (const std::bad_alloc&) {
        code = report_error(out_of_memory_text(), EXIT_FAILED, false);
    } catch (const std::exception& e) {
        code = report_error(error_text(e).c_str(), EXIT_FAILED, false);
    }
    comm_finalize();
    return code;
}
