// What the tools' main functions share: signals, errors as one line, exit codes.
#pragma once
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <string_view>

#include "runtime/device/backend.h"
#include "runtime/run/error.h"
#include "runtime/run/signals.h"

inline constexpr int EXIT_INTERRUPTED = 130;     // as a shell reports Ctrl-C

struct OutputClosed {};                          // whoever read standard output has gone: end quietly

inline void write_out(std::string_view text) {
    if (fwrite(text.data(), 1, text.size(), stdout) == text.size() && fflush(stdout) == 0) return;
    if (errno == EPIPE) throw OutputClosed();
    fail("standard output: %s", strerror(errno));
}

inline double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Run> int tool_main(int argc, char** argv, Run run) {
    backend_prepare(argv);
    signals_install();
    signals_quit_at_once(false);                             // the tools poll stop_requested from the start
    try {
        return run(argc, argv);
    } catch (const OutputClosed&) {
        return EXIT_DONE;
    } catch (const Error& e) {
        fprintf(stderr, "error: %s\n", e.what());
        return e.exit_code;
    } catch (const std::bad_alloc&) {
        fprintf(stderr, "error: out of memory; a smaller --context or --samples needs less\n");
        return EXIT_FAILED;
    } catch (const std::exception& e) {
        fprintf(stderr, "error: %s\n", e.what());
        return EXIT_FAILED;
    }
}
