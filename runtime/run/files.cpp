// See files.h.
#include "runtime/run/files.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#define XXH_INLINE_ALL      // header only: nothing to link
#if defined(__AVX512F__)
#define XXH_VECTOR 2        // AVX2, fast enough; with AVX-512, GCC 12 warns about its own intrinsics (GCC bug 105593)
#endif
#include <xxhash.h>

#include "runtime/run/crash_point.h"
#include "runtime/run/error.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "token shards and safetensors are little endian");

static constexpr size_t WRITE_BUFFER_BYTES = 1 << 20;      // half of a core's L2 cache

// ---- hash

static XXH3_state_t* xxh3(void* state) { return static_cast<XXH3_state_t*>(state); }

Hasher::Hasher() : state(XXH3_createState()) { XXH3_128bits_reset(xxh3(state)); }
Hasher::~Hasher() { XXH3_freeState(xxh3(state)); }
void Hasher::add(const void* data, size_t bytes) { XXH3_128bits_update(xxh3(state), data, bytes); }

static std::string hex128(XXH128_hash_t h) {
    return format("%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}
std::string Hasher::hex() const { return hex128(XXH3_128bits_digest(xxh3(state))); }
std::string hash_hex(std::string_view bytes) { return hex128(XXH3_128bits(bytes.data(), bytes.size())); }

// ---- reading

bool file_exists(const std::string& path) {
    struct stat st;
    return stat(path.c_str(), &st) == 0;
}

static const char* kind_of_file(mode_t mode) {
    return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a pipe" : S_ISSOCK(mode) ? "a socket" : "a device";
}

uint64_t file_size(int fd, const std::string& path) {
    struct stat st;
    ensure(fstat(fd, &st) == 0, "%s: %s", path.c_str(), strerror(errno));
    ensure(S_ISREG(st.st_mode), "%s: is %s, not a regular file", path.c_str(), kind_of_file(st.st_mode));
    return uint64_t(st.st_size);
}

int open_to_read(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);      // nothing changes for regular files
    ensure(fd >= 0, "%s: %s", path.c_str(), errno == ENXIO ? "is a socket or a device, not a regular file" : strerror(errno));
    try {
        file_size(fd, path);
    } catch (...) {
        close(fd);
        throw;
    }
    return fd;
}

std::string error_text(const std::exception& e) {
    const auto* f = dynamic_cast<const std::filesystem::filesystem_error*>(&e);
    if (!f) return e.what();
    const std::string text = f->what(), begin = "filesystem error: ", operation = text.substr(0, text.find(": ", begin.size()));
    const std::string what = operation.starts_with(begin) ? operation.substr(begin.size()) + ": " : "";
    return f->path1().string() + ": " + what + f->code().message();
}

uint64_t free_bytes(const std::string& path) {
    struct statvfs st;
    return statvfs(path.c_str(), &st) == 0 ? uint64_t(st.f_bavail) * st.f_frsize : 0;
}

void pread_fully(int fd, void* out, size_t bytes, uint64_t offset, const std::string& path) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(fd, static_cast<char*>(out) + done, bytes - done, off_t(offset + done));
        if (n < 0 && errno == EINTR) continue;
        ensure(n >= 0, "%s: reading at byte %llu: %s", path.c_str(), (unsigned long long)(offset + done), strerror(errno));
        ensure(n > 0, "%s: ends at byte %llu, %zu bytes too early; did it change while it was read?", path.c_str(),
               (unsigned long long)(offset + done), bytes - done);
        done += size_t(n);
    }
}

std::string file_read(const std::string& path, uint64_t max_bytes) {
    const int fd = open_to_read(path);
    try {
        uint64_t bytes = file_size(fd, path);
        ensure(bytes <= max_bytes, "%s: %llu bytes is more than the %llu expected at most", path.c_str(), (unsigned long long)bytes,
               (unsigned long long)max_bytes);
        std::string text(bytes, '\0');
        pread_fully(fd, text.data(), bytes, 0, path);
        close(fd);
        return text;
    } catch (...) {
        close(fd);
        throw;
    }
}

std::string stdin_read() {
    std::string text;
    char piece[1 << 16];
    for (;;) {
        const ssize_t n = read(STDIN_FILENO, piece, sizeof piece);
        if (n < 0 && errno == EINTR) continue;
        ensure(n >= 0, "standard input: %s", strerror(errno));
        if (n == 0) return text;
        text.append(piece, size_t(n));
    }
}

// ---- writing

std::string parent_folder(const std::string& path) {
    size_t slash = path.find_last_of('/');
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

void fsync_folder(const std::string& path) {
    int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ensure_written(fd >= 0, "%s: %s", path.c_str(), strerror(errno));
    int error = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    // Some network and FUSE file systems have no fsync for folders and return EINVAL: nothing can be done about it.
    ensure_written(error == 0 || error == EINVAL, "%s: fsync: %s", path.c_str(), strerror(error));
}

FileWriter::FileWriter(const std::string& p) : path(p) {
    fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
    ensure_written(fd >= 0, "%s: cannot be created: %s", path.c_str(), errno == ENXIO ? "is a pipe that nobody reads" : strerror(errno));
    struct stat st;
    removable = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    buffer.reserve(WRITE_BUFFER_BYTES);
    crash_point("before-write");
}

FileWriter::~FileWriter() {
    if (fd < 0) return;
    close(fd);
    if (removable) unlink(path.c_str());
}

static void write_fully(int fd, const char* data, size_t bytes, const std::string& path) {
    const bool large = bytes >= WRITE_BUFFER_BYTES;
    while (bytes > 0) {
        ssize_t n = ::write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        ensure_written(n >= 0, "%s: writing: %s", path.c_str(), strerror(errno));
        data += n;
        bytes -= size_t(n);
    }
    // The disk starts writing now, while the next piece is prepared; fsync waits for the rest. This is only a hint: fsync
    // reports the errors.
    if (large) sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    crash_point("during-write");
}

void FileWriter::write(const void* data, size_t bytes) {
    hash.add(data, bytes);
    written += bytes;
    const char* source = static_cast<const char*>(data);
    if (buffer.size() + bytes > WRITE_BUFFER_BYTES) {
        write_fully(fd, buffer.data(), buffer.size(), path);
        buffer.clear();
    }
    if (bytes >= WRITE_BUFFER_BYTES) write_fully(fd, source, bytes, path);      // large pieces need no copy
    else buffer.insert(buffer.end(), source, source + bytes);
}

std::string FileWriter::finish() {
    write_fully(fd, buffer.data(), buffer.size(), path);
    buffer.clear();
    crash_point("after-write");
    crash_point("before-fsync");
    // After a failed fsync the kernel may drop the dirty pages: never retry, the file is lost [Rebello et al. 2020].
    ensure_written(fsync(fd) == 0, "%s: fsync: %s", path.c_str(), strerror(errno));
    crash_point("after-fsync");
    int error = close(fd) == 0 ? 0 : errno;
    fd = -1;
    ensure_written(error == 0, "%s: close: %s", path.c_str(), strerror(error));
    return hash.hex();
}

std::string file_write(const std::string& path, std::string_view text) {
    FileWriter w(path);
    w.write(text.data(), text.size());
    return w.finish();
}

void rename_durably(const std::string& from, const std::string& to) {
    crash_point("before-rename");
    ensure_written(rename(from.c_str(), to.c_str()) == 0, "%s: cannot be renamed to %s: %s", from.c_str(), to.c_str(), strerror(errno));
    crash_point("after-rename");
    fsync_folder(parent_folder(to));
}

void file_replace(const std::string& path, std::string_view text) {
    std::string tmp = path + ".tmp";
    file_write(tmp, text);
    rename_durably(tmp, path);
}

// ---- JSON

std::string json_reason(const std::exception& e) {           // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string text = e.what();
    const size_t tag = text.starts_with("[json.exception") ? text.find("] ") : std::string::npos;
    return printable(tag == std::string::npos ? text : text.substr(tag + 2), 160);
}

nlohmann::json json_parse(std::string_view text, const std::string& where, JsonLimits limits) {
    using nlohmann::json;
    struct Level { bool is_array; size_t members = 0; std::set<std::string> keys; };
    std::vector<Level> open_levels;
    size_t total = 0;
    auto check = [&](int, json::parse_event_t event, json& parsed) {
        bool starts = event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
        bool is_element = (starts || event == json::parse_event_t::value) && !open_levels.empty() && open_levels.back().is_array;
        if (is_element || event == json::parse_event_t::key) {
            ensure(++open_levels.back().members <= limits.members && ++total <= limits.total,
                   "%s: too large: a list in it has more than %zu members, or all together more than %zu", where.c_str(),
                   limits.members, limits.total);
        }
        if (starts) {
            ensure(open_levels.size() < limits.depth, "%s: JSON is nested more than %zu deep", where.c_str(), limits.depth);
            open_levels.push_back({event == json::parse_event_t::array_start, 0, {}});
        } else if (event == json::parse_event_t::object_end || event == json::parse_event_t::array_end) {
            open_levels.pop_back();
        } else if (event == json::parse_event_t::key) {
            const std::string& key = parsed.get_ref<const std::string&>();
            ensure(open_levels.back().keys.insert(key).second, "%s: key '%s' appears twice", where.c_str(), printable(key).c_str());
        }
        return true;
    };
    try {
        return json::parse(text.begin(), text.end(), check);
    } catch (const json::exception& e) {
        fail("%s: not valid JSON: %s", where.c_str(), json_reason(e).c_str());
    }
}

std::string printable(std::string_view text, size_t max_bytes) {
    std::string out;
    for (char c : text.substr(0, max_bytes)) out += uint8_t(c) >= 32 && uint8_t(c) < 127 ? c : '?';
    return text.size() > max_bytes ? out + "..." : out;
}
