// What hostile.cpp is made of: programs run with a time limit and judged by what a user sees, counts by kind, changed files.
// An input is accepted (exit 0 or 75), or refused (exit 1 or 2 and one printable line on stderr that says what is wrong). All else is bad:
// a signal, a hang, a sanitizer's report, several lines or none, the bare text of a library's exception.
#pragma once
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "runtime/device/rng.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"

namespace hostile {
namespace fs = std::filesystem;
using nlohmann::json;

inline constexpr int LIMIT_SECONDS = 60;             // the programs here take a tenth of a second; a busy machine is no hang

inline uint64_t random_number(uint64_t n) {          // the same inputs in every run
    static uint64_t index = 0;
    return uint64_t(philox_uniform(9, rng_stream("hostile"), index++) * double(n));
}

struct Row {
    std::string kind;
    int tried = 0, accepted = 0, refused = 0, bad = 0;
};

struct Trial {
    std::string build, work;                         // programs; scratch folder
    int count = 5;                                   // of random changes, for each file or place
    bool sampled = false;                            // one input in four, for a suite that must be short
    bool must_refuse = false;                        // the next inputs can only be wrong: accepting one is bad too
    std::vector<Row> rows;
    Row& row() { return rows.back(); }
};

struct Ending { int status = 0; bool hung = false; std::string error; };

inline int open_for_child(const std::string& path, int flags, int as) {
    const int fd = open(path.c_str(), flags, 0644);
    return fd < 0 ? -1 : dup2(fd, as);
}

// `setup` runs in the child, before the program.
inline Ending run(const Trial& t, const std::vector<std::string>& command, const std::function<void()>& setup = {}) {
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    const std::string err = t.work + "/stderr";
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        open_for_child("/dev/null", O_RDONLY, 0);
        open_for_child("/dev/null", O_WRONLY, 1);
        open_for_child(err, O_WRONLY | O_CREAT | O_TRUNC, 2);
        if (setup) setup();
        execv(argv[0], argv.data());
        _exit(127);
    }
    Ending e;
    for (int ms = 0; waitpid(child, &e.status, WNOHANG) == 0; ms += 2) {
        usleep(2000);
        if (ms < LIMIT_SECONDS * 1000) continue;
        e.hung = true;
        kill(child, SIGKILL);
        waitpid(child, &e.status, 0);
        break;
    }
    e.error = file_read(err, 64 << 20);
    return e;
}

// Lines that may stand before the error: notes, what was passed over on the way, the thread library's word on its own variables.
inline bool is_note(const std::string& line) {
    return line.empty() || line.starts_with("note: ") || line.starts_with("checkpoint of step ") ||
           line.starts_with("libgomp: Invalid value for environment variable");
}

inline std::string judge(const Ending& e) {          // "" accepted or refused as it should be, else why not
    if (e.hung) return "hung";
    if (WIFSIGNALED(e.status)) return format("signal %d", WTERMSIG(e.status));
    const int code = WEXITSTATUS(e.status);
    std::vector<std::string> lines;
    for (size_t begin = 0, end; begin < e.error.size(); begin = end + 1) {
        end = std::min(e.error.find('\n', begin), e.error.size());
        const std::string line = e.error.substr(begin, end - begin);
        for (char c : line) if (uint8_t(c) < 32 || c == 127) return "unprintable bytes on stderr";
        for (const char* raw : {"json.exception", "filesystem error", "std::", "what():", "terminate called",
                                "Sanitizer", "basic_string", "vector::"})
            if (line.find(raw) != std::string::npos) return std::string("bare: ") + raw;
        if (!is_note(line)) lines.push_back(line);
    }
    if (code == EXIT_DONE || code == EXIT_STOPPED_AND_SAVED) return lines.empty() ? "" : "accepted, but: " + lines[0];
    if (code != EXIT_FAILED && code != EXIT_USAGE) return format("exit code %d", code);
    if (lines.size() != 1) return format("%zu lines of error", lines.size());
    if (!lines[0].starts_with("error: ") && !lines[0].starts_with("tokenizer: ")) return "not an error line";
    return lines[0].size() <= 2000 ? "" : "a line of thousands of bytes";
}

// One input: runs the command and counts how it ended. `what` describes the input when it ends badly.
inline void attempt(Trial& t, const std::string& what, const std::vector<std::string>& command, const std::function<void()>& setup = {}) {
    if (t.sampled && !t.must_refuse && random_number(4) > 0) return;
    const Ending e = run(t, command, setup);
    std::string why = judge(e);
    if (why.empty() && t.must_refuse && WEXITSTATUS(e.status) != EXIT_FAILED && WEXITSTATUS(e.status) != EXIT_USAGE) why = "accepted";
    Row& r = t.row();
    r.tried++;
    if (!why.empty()) {
        r.bad++;
        printf("BAD %s: %s: %s\n    %s\n", r.kind.c_str(), printable(what, 200).c_str(), why.c_str(), printable(e.error, 600).c_str());
        fflush(stdout);
    } else {
        const int code = WEXITSTATUS(e.status);
        (code == EXIT_DONE || code == EXIT_STOPPED_AND_SAVED ? r.accepted : r.refused)++;
    }
}

// ---- changes

inline std::string damaged(std::string bytes) {      // a few bytes changed, cut out, doubled, or the end cut off
    if (bytes.empty()) return "\xff";
    for (uint64_t n = 1 + random_number(3); n > 0 && !bytes.empty(); n--) {
        const size_t at = random_number(bytes.size()), length = std::min<size_t>(bytes.size() - at, 1 + random_number(40));
        switch (random_number(5)) {
            case 0: bytes[at] = char(random_number(256)); break;
            case 1: bytes.erase(at, length); break;
            case 2: bytes.insert(at, bytes.substr(at, length)); break;
            case 3: bytes.resize(at); break;
            case 4: bytes[at] = "0-9e\"[]{},:\n\0"[random_number(13)]; break;
        }
    }
    return bytes;
}

inline const std::vector<json>& odd_values() {
    static const std::vector<json> values = {nullptr, true, -1, 0, 1, 3, 1e30, -1e308, 0.5, UINT64_MAX, INT64_MIN, 1e15,
                                             "", "x", "\n\x1b[31m", std::string(5000, 'a'), json::array(),
                                             json::object(), json::array({1, "a"}), json{{"a", 1}}};
    return values;
}

// Calls use(name of the place, changed document) for every value in `j`, replaced by each odd value or removed.
inline void each_change(const json& j, const std::function<void(const std::string&, const json&)>& use, int per_place) {
    const json flat = j.flatten();
    std::vector<json::json_pointer> places;
    for (const auto& [name, value] : flat.items()) {
        places.emplace_back(name);
        for (json::json_pointer p = json::json_pointer(name).parent_pointer(); !p.empty(); p = p.parent_pointer())
            if (std::find(places.begin(), places.end(), p) == places.end()) places.push_back(p);
    }
    for (const auto& place : places) {
        for (int k = 0; k < per_place; k++) {
            json changed = j;
            const json& value =
                odd_values()[per_place >= int(odd_values().size()) ? size_t(k) % odd_values().size()
                                                                   : random_number(odd_values().size())];
            changed[place] = value;
            use(place.to_string() + " = " + printable(value.dump(-1, ' ', true), 40), changed);
        }
        json without = j;
        json& parent = without[place.parent_pointer()];
        if (parent.is_object()) parent.erase(place.back());
        else if (parent.is_array()) parent.erase(std::stoul(place.back()));
        use(place.to_string() + " removed", without);
    }
}

// The things that may lie in a file's place. Each: name, make(path).
struct Thing { const char* name; std::function<void(const std::string&)> make; };
inline std::vector<Thing> things() {
    return {{"a pipe", [](const std::string& p) { if (mkfifo(p.c_str(), 0644)) abort(); }},
            {"a folder", [](const std::string& p) { fs::create_directory(p); }},
            {"a link to nothing", [](const std::string& p) { fs::create_symlink("/nonexistent/x", p); }},
            {"a link to itself", [](const std::string& p) { fs::create_symlink(p, p); }},
            {"a device without end", [](const std::string& p) { fs::create_symlink("/dev/zero", p); }},
            {"a full device", [](const std::string& p) { fs::create_symlink("/dev/full", p); }},
            {"an empty file", [](const std::string& p) { file_write(p, ""); }},
            {"nothing", [](const std::string&) {}}};
}

}  // namespace hostile
