// A fresh folder for a test's files, removed at the end; and the message of an expected error.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "runtime/error.h"

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

inline std::string slurp(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

inline void spill(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

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
