// What the tools' main functions share: signals, errors as one line, exit codes.
#pragma once
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <string_view>

#include "runtime/device/backend.h"
#include "runtime/run/clock.h"
#include "runtime/run/error.h"
#include "runtime/run/signals.h"
#include "tools/one_line.h"

inline constexpr int EXIT_INTERRUPTED = 130;     // as a shell reports Ctrl-C

struct OutputClosed {};                          // the reader of standard output has gone: end quietly

inline void write_out(std::string_view text) {
    if (fwrite(text.data(), 1, text.size(), stdout) == text.size() && fflush(stdout) == 0) return;
    if (errno == EPIPE) throw OutputClosed();
    fail("standard output: %s", strerror(errno));
}

template <class Run> int tool_main(int argc, char** argv, Run run) {
    backend_prepare(argv);
    signals_install();
    signals_quit_at_once(false);                             // the tools poll stop_requested from the start
    return errors_in_one_line("error", [&]() -> int {
        try {
            return run(argc, argv);
        } catch (const OutputClosed&) {
            return EXIT_DONE;
        } catch (const std::bad_alloc&) {
            fail("out of memory; a smaller --context or --samples needs less");
        }
    });
}
