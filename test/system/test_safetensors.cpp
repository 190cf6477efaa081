// safetensors: there and back, and every way in which a file can lie.
#include <doctest/doctest.h>

#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/run/files.h"
#include "runtime/run/safetensors.h"
#include "test/temp_dir.h"

static TensorToWrite tensor(const std::string& name, const std::string& dtype, std::vector<int64_t> shape, const std::string& bytes) {
    return {name, dtype, shape, [bytes](uint64_t offset, size_t n, void* out) {
                REQUIRE(offset + n <= bytes.size());
                memcpy(out, bytes.data() + offset, n);
            }};
}

static std::string pattern(size_t n, int seed) {
    std::string s(n, '\0');
    for (size_t i = 0; i < n; i++) s[i] = char((i * 131 + i / 251 + size_t(seed)) & 255);
    return s;
}

static std::string file_of(const std::string& header, const std::string& data, uint64_t claimed = ~0ull) {
    uint64_t n = claimed == ~0ull ? header.size() : claimed;
    return std::string(reinterpret_cast<char*>(&n), 8) + header + data;
}

TEST_CASE("safetensors: there and back, pieces larger than the buffers, empty and scalar tensors") {
    TempDir dir;
    const std::string path = dir.path + "/m.safetensors";
    const size_t big = 3'000'001;            // 12 MB: more than one piece of 8 MiB, and no round number
    const std::vector<std::pair<TensorToWrite, std::string>> cases = {
        {tensor("wte.weight", "F32", {int64_t(big), 1}, pattern(big * 4, 1)), pattern(big * 4, 1)},
        {tensor("odd \"name\"\n", "U8", {3}, "abc"), "abc"},
        {tensor("empty", "F64", {0, 5}, ""), ""},
        {tensor("scalar", "I64", {}, "12345678"), "12345678"},
        {tensor("half", "BF16", {2, 3}, pattern(12, 2)), pattern(12, 2)}};
    std::vector<TensorToWrite> tensors;
    for (const auto& c : cases) tensors.push_back(c.first);
    std::map<std::string, std::string> hashes;
    const std::string hash = safetensors_write(path, tensors, {{"step", "5"}}, &hashes);
    CHECK(hash == hash_hex(slurp(path)));
    const SafetensorsFile f = safetensors_open(path);
    CHECK(f.metadata == std::map<std::string, std::string>{{"step", "5"}});
    CHECK(f.tensors.size() == cases.size());
    CHECK(f.data_start % 8 == 0);
    CHECK(f.file_bytes == std::filesystem::file_size(path));
    for (const auto& c : cases) {
        const auto& [t, bytes] = c;
        CAPTURE(c.first.name);
        const TensorInfo* info = f.find(t.name);
        REQUIRE(info);
        CHECK(info->dtype == t.dtype);
        CHECK(info->shape == t.shape);
        std::string read(info->end - info->begin, '\0');
        safetensors_read(f, *info, read.data());
        CHECK(read == bytes);
        CHECK(hashes[t.name] == hash_hex(bytes));
    }
    CHECK(f.find("nothing") == nullptr);
    safetensors_write(path, {}, {});
    CHECK(safetensors_open(path).tensors.empty());
}

TEST_CASE("safetensors: what cannot be written") {
    TempDir dir;
    const std::string path = dir.path + "/m.safetensors";
    CHECK(has(error_of([&] { safetensors_write(path, {tensor("a", "U8", {1}, "x"), tensor("a", "U8", {1}, "y")}, {}); }), "two tensors"));
    CHECK(has(error_of([&] { safetensors_write(path, {tensor("a", "F33", {1}, "x")}, {}); }), "F33"));
    CHECK(has(error_of([&] { safetensors_write(path, {tensor("a", "F32", {-1}, "x")}, {}); }), "shape"));
    CHECK(has(error_of([&] { safetensors_write(path, {tensor("a", "F32", {1ll << 40, 1ll << 40}, "x")}, {}); }), "shape"));
    TensorToWrite throws = tensor("a", "F32", {1}, "");
    throws.fill = [](uint64_t, size_t, void*) { fail("from fill"); };
    CHECK(has(error_of([&] { safetensors_write(path, {throws}, {}); }), "from fill"));
    CHECK_FALSE(file_exists(path));          // nothing half-written stays
    CHECK(has(error_of([&] { safetensors_write(dir.path + "/no/m", {}, {}); }), "cannot be created"));
    // What is not a regular file is not removed (as root, a failed write to a device would delete the device). Here: a pipe.
    const std::string pipe = dir.path + "/pipe";
    REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
    const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
    CHECK(error_of([&] { safetensors_write(pipe, {throws}, {}); }) != "");
    CHECK(file_exists(pipe));
    close(reader);
}

TEST_CASE("safetensors: a header that lies is refused") {
    TempDir dir;
    const std::string path = dir.path + "/m.safetensors", data = "12345678";
    const std::string a = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
    const std::string b = R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})";
    auto error = [&](const std::string& bytes) {
        spill(path, bytes);
        const std::string message = error_of([&] { safetensors_open(path); });
        CHECK((message.empty() || has(message, path)));
        CHECK(message.find('\n') == std::string::npos);
        CHECK(message.size() < 1000);
        return message;
    };
    CHECK(error(file_of("{" + a + "," + b + "}", data)) == "");
    CHECK(error(file_of("{" + a + "," + b + "}   ", data)) == "");
    auto one = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
        return file_of("{\"a\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}", data);
    };
    CHECK(error(one("\"F64\"", "[1]", "[0,8]")) == "");
    struct { std::string bytes, words; } cases[] = {
        {"", "too short"}, {"1234567", "too short"},
        {file_of("{}", "", 3), "header of 3 bytes"}, {file_of("{}", "", 100'000'001), "header of 100000001"},
        {file_of("{}", "", 0xfffffffffffffff8ull),
         "header of 18446744073709551608"}, {file_of("{}", "", 0xffffffffffffffffull - 1), "header of"},
        {file_of("", ""), "'{'"}, {file_of("[]", ""), "'{'"}, {file_of(" {}", ""), "'{'"},
        {file_of("{\"a", ""), "JSON"}, {file_of("{}x", ""), "JSON"}, {file_of("{\"\xff\":1}", ""), "JSON"},
        {file_of("{}", data), "which has 8"},
        {file_of("{" + a + "}", data), "end at byte 4"},
        {file_of("{" + b + "}", data), "a hole"},
        {file_of("{" + a + "," + R"("c":{"dtype":"F32","shape":[1],"data_offsets":[2,6]})" + "," + b + "}", data), "overlap"},
        {file_of("{" + a + "," + R"("c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})" + "," + b + "}", data), "overlap"},
        {file_of("{" + a + "," + a + "," + b + "}", data), "appears twice"},
        {file_of(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234"), "appears twice"},
        {one("\"F64\"", "[1]", "[0,9]"), "do not lie"}, {one("\"F64\"", "[1]", "[8,0]"), "do not lie"},
        {one("\"F64\"", "[1]", "[18446744073709551608,8]"),
         "do not lie"}, {one("\"F64\"", "[1]", "[0,18446744073709551616]"), "data_offsets"},
        {one("\"F64\"", "[1]", "[-8,0]"), "data_offsets"}, {one("\"F64\"", "[1]", "[0.0,8]"), "data_offsets"},
        {one("\"F64\"", "[1]", "[0]"), "data_offsets"}, {one("\"F64\"", "[1]", "[0,8,8]"),
                                                         "data_offsets"}, {one("\"F64\"", "[1]", "8"), "data_offsets"},
        {one("\"F64\"", "[2]", "[0,8]"), "do not give"}, {one("\"F32\"", "[1]", "[0,8]"), "do not give"},
        {one("\"F64\"", "[4611686018427387904,4]", "[0,8]"), "do not give"},                 // 2^62 * 4 * 8 wraps to 0
        {one("\"U8\"", "[4294967296,4294967296,8]", "[0,8]"), "do not give"},
        {one("\"F64\"", "[9223372036854775808]", "[0,8]"), "shape"}, {one("\"F64\"", "[-1]", "[0,8]"), "shape"},
        {one("\"F64\"", "[1.0]", "[0,8]"), "shape"}, {one("\"F64\"", "1", "[0,8]"), "shape"}, {one("\"F64\"", "[[1]]", "[0,8]"), "nested"},
        {one("\"F64\"", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,8]"), "at most 16"},
        {one("\"F65\"", "[1]", "[0,8]"), "unknown dtype"}, {one("7", "[1]", "[0,8]"), "unknown dtype"},
        {file_of(R"({"a":{"dtype":"F64","shape":[1]}})", data), "exactly"}, {file_of(R"({"a":7})", data), "exactly"},
        {file_of(R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8],"x":1}})", data), "exactly"},
        {file_of(R"({"__metadata__":[]})", ""), "__metadata__"}, {file_of(R"({"__metadata__":{"a":1}})", ""), "__metadata__"},
        {file_of("{\"a\":" + std::string(5'000'000, '[') + "}", ""), "nested"},
        {file_of("{\"a\":" + std::string(5'000'000, '{') + "}", ""), "JSON"},
        {file_of("{\"" + std::string(1'000'000, '\1') + "\":7}", ""), "JSON"},
        {file_of("{\"" + std::string(1'000'000, 'n') + "\":7}", ""), "exactly"},
    };
    for (const auto& c : cases) {
        const std::string message = error(c.bytes);
        CHECK_MESSAGE(has(message, c.words), message, " lacks ", c.words, " for ",
                      printable(c.bytes.substr(std::min<size_t>(8, c.bytes.size()))));
    }
    std::string zeros = "{\"a\":[0";
    for (int i = 0; i < 200'000; i++) zeros += ",0";
    CHECK(has(error(file_of(zeros + "]}", "")), "too large"));       // a long list is refused before it is built
    CHECK(has(error_of([&] { safetensors_open(dir.path); }), "not a regular file"));
    CHECK(has(error_of([&] { safetensors_open(dir.path + "/none"); }), "No such file"));
}

TEST_CASE("safetensors: cut at every length, every header bit flipped: an error or a consistent file, never more") {
    TempDir dir;
    const std::string path = dir.path + "/m.safetensors";
    safetensors_write(path, {tensor("a", "F32", {2, 3}, pattern(24, 1)), tensor("b", "U8", {5}, "abcde")}, {{"k", "v"}});
    const std::string good = slurp(path);
    const size_t header_end = good.size() - 29;
    for (size_t n = 0; n < good.size(); n++) {
        spill(path, good.substr(0, n));
        CHECK_THROWS_AS(safetensors_open(path), Error);
    }
    int accepted = 0;
    for (size_t at = 0; at < header_end; at++)
        for (int bit = 0; bit < 8; bit++) {
            std::string bad = good;
            bad[at] = char(bad[at] ^ (1 << bit));
            spill(path, bad);
            const std::string message = error_of([&] {
                const SafetensorsFile f = safetensors_open(path);
                for (const TensorInfo& t : f.tensors) {
                    std::string bytes(t.end - t.begin, '\0');
                    safetensors_read(f, t, bytes.data());
                }
                accepted++;                      // a changed letter of a name, say: the checkpoint's checksum is for that
            });
            CHECK((message.empty() || has(message, path)));
        }
    CHECK(accepted < int(header_end) * 8 / 4);
}
