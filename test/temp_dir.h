// A fresh folder for a test's files, removed at the end; and the message of an expected error.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "runtime/run/error.h"

struct TempDir {
    std::string path;
    TempDir() {
        // In memory where that is possible: the tests fsync a lot, and what they check does not need a disk.
        for (const char* root : {"/dev/shm", "/tmp"}) {
            path = std::string(root) + "/qv-test-XXXXXX";
            if (mkdtemp(path.data())) return;
        }
        fail("%s: cannot be created", path.c_str());
    }
    ~TempDir() { std::error_code ignored; std::filesystem::remove_all(path, ignored); }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
};

// C files, not streams: `fail` of runtime/run/error.h is a macro, and std::ios has a member of that name.
inline std::string slurp(const std::string& path) {
    std::string text;
    FILE* f = fopen(path.c_str(), "rb");
    if (!f) return text;
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;) text.append(piece, n);
    fclose(f);
    return text;
}

inline void spill(const std::string& path, const std::string& text) {
    FILE* f = fopen(path.c_str(), "wb");
    ensure(f, "%s: cannot be created", path.c_str());
    fwrite(text.data(), 1, text.size(), f);
    fclose(f);
}

// The message of the Error that f throws, "" when it throws none; any other exception is the test's failure.
template <class F> std::string error_of(F f, int* exit_code = nullptr) {
    try {
        f();
    } catch (const Error& e) {
        if (exit_code) *exit_code = e.exit_code;
        return e.what();
    }
    return "";
}

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
