// Errors: one clear line (what, where, what to do) and a non-zero exit code.
// `fail` and `ensure` throw; main() prints the line and returns the code, tests catch it. Both are always compiled in.
// Never throw inside an OpenMP region: check before it.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

enum ExitCode { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_STOPPED_AND_SAVED = 75 };

struct Error : std::runtime_error {
    int exit_code;
    Error(int code, const std::string& message) : std::runtime_error(message), exit_code(code) {}
};

// A file could not be written: the disk's fault or its fullness, not the caller's.
struct WriteError : Error {
    explicit WriteError(const std::string& message) : Error(EXIT_FAILED, message) {}
};

// printf into a string
inline std::string format_list(const char* fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    std::string s(size_t(vsnprintf(nullptr, 0, fmt, again)), '\0');
    va_end(again);
    vsnprintf(s.data(), s.size() + 1, fmt, args);
    return s;
}
[[gnu::format(printf, 1, 2)]] inline std::string format(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string s = format_list(fmt, args);
    va_end(args);
    return s;
}

// Something went wrong while running: exit code 1.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string message = format_list(fmt, args);
    va_end(args);
    throw Error(EXIT_FAILED, message);
}
// The user asked for something impossible (options): exit code 2.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail_usage(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string message = format_list(fmt, args);
    va_end(args);
    throw Error(EXIT_USAGE, message);
}
// A disk did not take what was written: exit code 1, as WriteError.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail_write(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string message = format_list(fmt, args);
    va_end(args);
    throw WriteError(message);
}
// ensure(n > 0, "%s: %d tokens; give a longer text", path, n)
#define ensure(condition, ...) do { if (!(condition)) fail(__VA_ARGS__); } while (0)
#define ensure_written(condition, ...) do { if (!(condition)) fail_write(__VA_ARGS__); } while (0)
#define ensure_usage(condition, ...) do { if (!(condition)) fail_usage(__VA_ARGS__); } while (0)
