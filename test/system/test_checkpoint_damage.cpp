// Fault 4: every byte of the headers and 1000 bits of the data flipped, headers cut at every length. Each must be noticed, the file and
// (in the data) the tensor named, and the checkpoint before used. Everything else about checkpoints: test_checkpoint.cpp.
#include <doctest/doctest.h>

#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "runtime/run/checkpoint.h"
#include "runtime/run/files.h"
#include "runtime/device/rng.h"
#include "test/temp_dir.h"

static std::string save_small(const std::string& run, int64_t step) {
    auto tensor = [&](const char* name, std::vector<int64_t> shape) {
        return TensorToWrite{name, "F32", shape, [step](uint64_t offset, size_t bytes, void* out) {
                                 for (size_t i = 0; i < bytes / 4; i++)
                                     static_cast<float*>(out)[i] = float(step) + float(offset / 4 + i) / 7;
                             }};
    };
    return checkpoint_save(
        {run, 2}, step,
        {tensor("wte.weight", {37, 16}), tensor("h.0.attn.q.weight", {16, 16}), tensor("ln_f.bias", {1})},
        {tensor("moment1.wte.weight", {37, 16}), tensor("moment2.wte.weight", {37, 16})}, "{\"step\": 1}");
}

static void flip(const std::string& path, uint64_t byte, int bit) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    char c = 0;
    REQUIRE(pread(fd, &c, 1, off_t(byte)) == 1);
    c = char(c ^ (1 << bit));
    REQUIRE(pwrite(fd, &c, 1, off_t(byte)) == 1);
    close(fd);
}

// The newest checkpoint that is used, with stderr (which names the damaged one) thrown away.
static int64_t used(const std::string& run) {
    const int saved = dup(2), null = open("/dev/null", O_WRONLY);
    fflush(stderr), dup2(null, 2);
    const int64_t step = checkpoint_find(run).step;
    fflush(stderr), dup2(saved, 2), close(saved), close(null);
    return step;
}

TEST_CASE("damage: every header byte, 1000 bits of the data") {
    TempDir run;
    save_small(run.path, 10);
    const std::string newest = save_small(run.path, 20);
    REQUIRE(checkpoint_verify(newest) == "{\"step\": 1}");
    int flips = 0;
    for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
        const SafetensorsFile f = safetensors_open(newest + "/" + name);
        for (uint64_t byte = 0; byte < f.data_start; byte++) {
            CAPTURE(name); CAPTURE(byte);
            flip(f.path, byte, int(byte % 8));
            const std::string message = error_of([&] { checkpoint_verify(newest); });
            CHECK_MESSAGE(has(message, f.path), message);
            if (byte % 16 == 0) CHECK(used(run.path) == 10);
            flip(f.path, byte, int(byte % 8));
            flips++;
        }
        for (uint32_t i = 0; i < 500; i++) {
            const uint64_t bit = uint64_t(philox_uniform(7, 1, i) * double(f.file_bytes - f.data_start) * 8), byte = bit / 8;
            std::string tensor;
            for (const TensorInfo& t : f.tensors)
                if (byte >= t.begin && byte < t.end) tensor = t.name;
            CAPTURE(name); CAPTURE(bit);
            flip(f.path, f.data_start + byte, int(bit % 8));
            const std::string message = error_of([&] { checkpoint_verify(newest); });
            CHECK_MESSAGE((has(message, f.path) && has(message, "tensor '" + tensor + "' is damaged")), message);
            if (i % 25 == 0) CHECK(used(run.path) == 10);
            flip(f.path, f.data_start + byte, int(bit % 8));
            flips++;
        }
    }
    CHECK(used(run.path) == 20);                     // and all flipped back it is whole again
    MESSAGE(flips << " flips, all noticed");
}

TEST_CASE("damage: cut at every length of the header, and in the data") {
    TempDir run;
    save_small(run.path, 10);
    const std::string newest = save_small(run.path, 20);
    for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
        const std::string path = newest + "/" + name, whole = slurp(path);
        const uint64_t header = safetensors_open(path).data_start;
        for (uint64_t length = 0; length < whole.size(); length += length <= header ? 1 : 97) {
            CAPTURE(name); CAPTURE(length);
            REQUIRE(truncate(path.c_str(), off_t(length)) == 0);
            CHECK(has(error_of([&] { checkpoint_verify(newest); }), path));
            CHECK(has(error_of([&] { safetensors_open(path); }), path));
            if (length % 32 == 0) CHECK(used(run.path) == 10);
            spill(path, whole);
        }
    }
    CHECK(used(run.path) == 20);
}
