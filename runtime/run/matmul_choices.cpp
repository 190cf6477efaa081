// The file of matrix algorithms. See matmul_choices.h.
#include "runtime/run/matmul_choices.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>
#include <vector>

#include "runtime/run/error.h"
#include "runtime/run/files.h"

namespace {
constexpr const char* FIRST_LINE = "qv.cu matmul choices 2";
constexpr uint64_t MAX_BYTES = 16 << 20;
constexpr int LOCK_WAIT_MS = 10000;                          // a line takes milliseconds; a stopped process holds its lock for ever

std::string head_of(const MatmulChoices& c) { return format("%s\n%s\n", FIRST_LINE, c.library.c_str()); }
std::string checksum(const std::string& text) { return hash_hex(text).substr(0, 8); }

std::string line_of(const MatmulKey& key, const MatmulAlgorithm& algorithm) {
    std::string text;
    for (size_t part : key) text += format("%zu ", part);
    text += ":";
    for (uint64_t word : algorithm) text += format(" %" PRIx64, word);
    return text + " ; " + checksum(text) + "\n";
}

bool read_line(const std::string& line, MatmulKey& key, MatmulAlgorithm& algorithm) {
    std::istringstream in(line);
    std::string colon;
    for (size_t& part : key) in >> part;
    in >> colon >> std::hex;
    for (uint64_t& word : algorithm) in >> word;
    return in && line_of(key, algorithm) == line + "\n";     // as it was written, checksum and all
}

using Table = std::map<MatmulKey, MatmulAlgorithm>;
// What the file says, and how long its whole lines are. Fails if it says anything else.
Table table_of(const MatmulChoices& c, const std::string& text, size_t& whole) {
    Table table;
    const std::string head = head_of(c);
    whole = text.rfind('\n') + 1;                            // npos + 1 is 0
    if (whole == 0 || (whole < head.size() && head.starts_with(text.substr(0, whole)))) return whole = 0, table;
    ensure(text.starts_with(head), "%s: not a file of matrix algorithms for \"%s\"", c.path.c_str(), c.library.c_str());
    std::istringstream in(text.substr(head.size(), whole - head.size()));
    MatmulKey key;
    MatmulAlgorithm algorithm;
    for (std::string line; std::getline(in, line); table[key] = algorithm)
        ensure(read_line(line, key, algorithm), "%s: damaged: \"%s\"", c.path.c_str(), printable(line, 60).c_str());
    return table;
}

// The file, open and locked; the lock goes with it.
struct Locked {
    int fd;
    const std::string& path;
    Locked(const std::string& path, int how) : fd(open(path.c_str(), how | O_CLOEXEC | O_NONBLOCK, 0666)), path(path) {
        ensure_written(fd >= 0, "%s: %s", path.c_str(), strerror(errno));
        struct stat s;
        int waited_ms = 0;
        try {
            ensure(fstat(fd, &s) == 0 && S_ISREG(s.st_mode), "%s: not a regular file", path.c_str());
            while (flock(fd, (how == O_RDONLY ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
                ensure(errno == EWOULDBLOCK || errno == EINTR, "%s: flock: %s", path.c_str(), strerror(errno));
                ensure(waited_ms++ < LOCK_WAIT_MS, "%s: another process has held its lock for %d s", path.c_str(), LOCK_WAIT_MS / 1000);
                usleep(1000);
            }
        } catch (...) {
            close(fd);
            throw;
        }
    }
    ~Locked() { close(fd); }
    std::string text() const {
        const uint64_t bytes = file_size(fd, path);
        ensure(bytes <= MAX_BYTES, "%s: larger than %d MiB", path.c_str(), int(MAX_BYTES >> 20));
        std::string all(bytes, '\0');
        pread_fully(fd, all.data(), bytes, 0, path);
        return all;
    }
    void append(const std::string& text, uint64_t at) const {
        ensure_written(ftruncate(fd, off_t(at)) == 0, "%s: %s", path.c_str(), strerror(errno));
        for (size_t done = 0; done < text.size();) {
            const ssize_t n = pwrite(fd, text.data() + done, text.size() - done, off_t(at + done));
            ensure_written(n > 0 || errno == EINTR, "%s: %s", path.c_str(), strerror(errno));
            if (n > 0) done += size_t(n);
        }
        ensure_written(fsync(fd) == 0, "%s: fsync: %s", path.c_str(), strerror(errno));
    }
};
}  // namespace

MatmulChoices matmul_choices_in(const std::string& folder, const std::string& library) {
    std::string name;
    for (char c : library)
        if (isalnum(static_cast<unsigned char>(c))) name += c;
        else if (!name.empty() && name.back() != '-') name += '-';
    return {folder.empty() ? "" : folder + "/matmul-" + name + ".txt", library};
}

std::string matmul_cache_folder() {
    const char *own = getenv("MATMUL_CACHE"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own) return strcmp(own, "off") == 0 ? "" : own;
    if (cache && *cache == '/') return std::string(cache) + "/qv";
    return home && *home == '/' ? std::string(home) + "/.cache/qv" : "";
}

static Table read_table(const MatmulChoices& c) {
    size_t whole;
    if (c.path.empty() || !file_exists(c.path)) return {};
    return table_of(c, Locked(c.path, O_RDONLY).text(), whole);
}

static std::vector<std::string> files_in(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename();
        if (name.starts_with("matmul-") && name.ends_with(".txt")) names.push_back(name);
    }
    return names;
}

std::string matmul_choices_cleared(const MatmulChoices& c) {
    const std::string folder = parent_folder(c.path);
    const std::vector<std::string> there = files_in(folder);
    if (!there.empty() && !file_exists(c.path))
        return format("%s/%s: its algorithms are not for \"%s\"; they are chosen again, and the last bits of this run change\n",
                      folder.c_str(), printable(there[0]).c_str(), c.library.c_str());
    try {
        read_table(c);
        return "";
    } catch (const std::exception& e) {
        std::filesystem::remove(c.path);
        return error_text(e) + "; the algorithms are chosen again, and the last bits of this run may change\n";
    }
}

void matmul_choices_copy(const std::string& to_folder, const std::string& from_folder) {
    for (const std::string& name : files_in(from_folder))
        file_replace(to_folder + "/" + name, file_read(from_folder + "/" + name, MAX_BYTES));
}

std::optional<MatmulAlgorithm> matmul_choices_find(const MatmulChoices& c, const MatmulKey& key) {
    const Table table = read_table(c);
    const auto found = table.find(key);
    return found == table.end() ? std::optional<MatmulAlgorithm>() : found->second;
}

MatmulAlgorithm matmul_choices_add(const MatmulChoices& c, const MatmulKey& key, const MatmulAlgorithm& chosen,
                                   const std::optional<MatmulAlgorithm>& refused) {
    if (c.path.empty()) return chosen;
    const bool is_new = !file_exists(c.path);
    const Locked file(c.path, O_RDWR | O_CREAT);
    size_t whole;
    const Table table = table_of(c, file.text(), whole);
    const auto found = table.find(key);
    if (found != table.end() && found->second != refused) return found->second;
    file.append((whole == 0 ? head_of(c) : "") + line_of(key, chosen), whole);
    if (is_new) fsync_folder(parent_folder(c.path));
    return chosen;
}
