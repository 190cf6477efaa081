// Files, safely: whole reads and writes that survive EINTR and short transfers, replacement that a power cut cannot tear,
// XXH3-128 checksums, and JSON with limits on what is accepted. Linux calls (pread, fsync, rename), little endian.
// Not for bulk text processing: everything here is read or written once.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

// XXH3-128 [https://xxhash.com], streaming. Finds accidents (bit flips, truncation), not forgeries.
struct Hasher {
    void* state;                        // an XXH3_state_t; its header stays out of ours
    Hasher();
    ~Hasher();
    Hasher(const Hasher&) = delete;
    Hasher& operator=(const Hasher&) = delete;
    void add(const void* data, size_t bytes);
    std::string hex() const;            // 32 hexadecimal digits
};
std::string hash_hex(std::string_view bytes);

bool file_exists(const std::string& path);
// Opens for reading, without waiting: a pipe or a device in place of a file is refused (opening a pipe that nobody writes
// to would never return).
int open_to_read(const std::string& path);
// What an exception says, in one line that begins with the file: those of <filesystem> come as "filesystem error: ... [path]".
std::string error_text(const std::exception& e);
uint64_t file_size(int fd, const std::string& path);
uint64_t free_bytes(const std::string& path);                              // for an ordinary user, on the disk that holds path
void pread_fully(int fd, void* out, size_t bytes, uint64_t offset, const std::string& path);
std::string file_read(const std::string& path, uint64_t max_bytes);        // fails when it is larger
std::string stdin_read();                                                  // all of standard input
void fsync_folder(const std::string& path);                                // makes names in it durable
std::string parent_folder(const std::string& path);

// A file being written: buffered, hashed on the way. finish() makes it durable and returns the hash; a FileWriter that is
// destroyed before finish() removes its file (a regular one only: root could delete a device).
struct FileWriter {
    std::string path;
    int fd = -1;
    bool removable = false;
    uint64_t written = 0;               // bytes handed over so far
    std::vector<char> buffer;
    Hasher hash;
    explicit FileWriter(const std::string& path);
    ~FileWriter();
    FileWriter(const FileWriter&) = delete;
    FileWriter& operator=(const FileWriter&) = delete;
    void write(const void* data, size_t bytes);
    std::string finish();
};

std::string file_write(const std::string& path, std::string_view text);    // durable but in place; returns the hash
// The same name shows either the old text or the new one, never a part: path.tmp, fsync, rename, fsync of the folder.
void file_replace(const std::string& path, std::string_view text);
void rename_durably(const std::string& from, const std::string& to);

// JSON of untrusted origin. Depth, members per object or array and their total are bounded while parsing (the parser itself does not
// recurse), and a duplicate key is an error. `where` begins the message.
struct JsonLimits { size_t depth = 8, members = 10000, total = 100000; };
nlohmann::json json_parse(std::string_view text, const std::string& where, JsonLimits limits = {});

std::string json_reason(const std::exception&);      // what nlohmann-json says, printable, without its number

// For messages: names that come from a file may be long or unprintable.
std::string printable(std::string_view text, size_t max_bytes = 80);
