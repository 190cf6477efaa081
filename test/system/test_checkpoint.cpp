// Checkpoints: saved, found, pruned; killed at every point of the protocol; damaged in every byte; on a full disk.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/run/checkpoint.h"
#include "runtime/run/files.h"
#include "test/temp_dir.h"

namespace fs = std::filesystem;

// Tensors whose content says which save they are from.
static std::vector<TensorToWrite> tensors(const char* name, int64_t save, int64_t n = 1000) {
    return {{name, "I64", {n}, [save](uint64_t offset, size_t bytes, void* out) {
                 for (size_t i = 0; i < bytes / 8; i++) static_cast<int64_t*>(out)[i] = save * 1'000'000 + int64_t(offset / 8 + i);
             }},
            {"last", "U8", {3}, [](uint64_t, size_t bytes, void* out) { memset(out, 7, bytes); }}};
}

static std::string save(const std::string& run, int64_t step, int keep = 2, int64_t content = -1) {
    if (content < 0) content = step;
    return checkpoint_save({run, keep}, step, tensors("w", content), tensors("w.m", content),
                           "{\"save\": " + std::to_string(content) + "}");
}

// Which save a checkpoint is from, by all of its parts; -1 when they disagree.
static int64_t content_of(const CheckpointFound& c) {
    int64_t from_state = -1;
    if (sscanf(c.state_json.c_str(), "{\"save\": %ld}", &from_state) != 1) return -1;
    for (const auto& [file, name] : {std::pair{"model", "w"}, std::pair{"optimizer", "w.m"}}) {
        const SafetensorsFile f = safetensors_open(c.dir + "/" + file + ".safetensors");
        const TensorInfo* t = f.find(name);
        if (!t) return -1;
        std::vector<int64_t> values(size_t(t->shape[0]));
        safetensors_read(f, *t, values.data());
        for (size_t i = 0; i < values.size(); i++)
            if (values[i] != from_state * 1'000'000 + int64_t(i)) return -1;
    }
    return from_state;
}

static std::vector<std::string> names_in(const std::string& dir) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
}

// stderr of f, and its result
template <class F> static std::string stderr_of(F f) {
    TempDir dir;
    fflush(stderr);
    const int saved = dup(2);
    FILE* file = fopen((dir.path + "/err").c_str(), "w");
    dup2(fileno(file), 2);
    try {
        f();
    } catch (...) {
        fflush(stderr), dup2(saved, 2), close(saved), fclose(file);
        throw;
    }
    fflush(stderr), dup2(saved, 2), close(saved), fclose(file);
    return slurp(dir.path + "/err");
}

TEST_CASE("checkpoint: save, find, keep the newest k") {
    TempDir run;
    CHECK(checkpoint_find(run.path).dir == "");
    CHECK(checkpoint_find(run.path + "/none").step == -1);
    const std::string dir = run.path + "/checkpoints";
    CHECK(save(run.path, 10) == dir + "/step-00000010");
    CHECK(names_in(dir + "/step-00000010") ==
          std::vector<std::string>{"manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"});
    save(run.path, 20);
    save(run.path, 123456789012);
    CHECK(names_in(dir) == std::vector<std::string>{"latest", "step-00000020", "step-123456789012"});
    CHECK(slurp(dir + "/latest") == "step-123456789012\n");
    const CheckpointFound c = checkpoint_find(run.path);
    CHECK(c.step == 123456789012);
    CHECK(content_of(c) == 123456789012);
    CHECK_THROWS_AS(save(run.path, 30, 0), Error);
}

TEST_CASE("checkpoint: a step saved again replaces the old one; leftovers of a dead process go; other files stay") {
    TempDir run;
    save(run.path, 10, 2, 1);
    save(run.path, 10, 2, 2);
    CHECK(content_of(checkpoint_find(run.path)) == 2);
    const std::string dir = run.path + "/checkpoints";
    fs::create_directories(dir + "/step-00000015.tmp/x");
    fs::create_directories(dir + "/step-00000012x");
    spill(dir + "/latest.tmp", "?");
    spill(dir + "/notes.txt", "mine");
    CHECK(checkpoint_find(run.path).step == 10);
    save(run.path, 20, 1);
    CHECK(names_in(dir) == std::vector<std::string>{"latest", "notes.txt", "step-00000012x", "step-00000020"});
}

TEST_CASE("checkpoint: a damaged one is named, the one before it is used, and it is repaired when the run comes there again") {
    TempDir run;
    save(run.path, 10);
    const std::string newest = save(run.path, 20);
    for (const std::string file : {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}) {
        CAPTURE(file);
        const std::string path = newest + "/" + file, good = slurp(path);
        for (size_t at = 0; at < good.size(); at += good.size() < 200 ? 1 : good.size() / 97) {
            std::string bad = good;
            bad[at] = char(bad[at] ^ 1);
            spill(path, bad);
            int64_t step = -1;
            const std::string message = stderr_of([&] { step = checkpoint_find(run.path).step; });
            CHECK(step == 10);
            CHECK_MESSAGE(has(message, path), message);
        }
        for (size_t n : {size_t(0), size_t(1), good.size() / 2, good.size() - 2}) {
            spill(path, good.substr(0, n));
            CHECK(has(stderr_of([&] { CHECK(checkpoint_find(run.path).step == 10); }), path));
        }
        fs::remove(path);
        CHECK(has(stderr_of([&] { CHECK(checkpoint_find(run.path).step == 10); }), path));
        spill(path, good);
        CHECK(checkpoint_find(run.path).step == 20);
    }
    // The damaged tensor is named.
    const SafetensorsFile f = safetensors_open(newest + "/optimizer.safetensors");
    std::string bytes = slurp(f.path);
    bytes[f.data_start + f.find("last")->begin + 1] ^= 4;
    spill(f.path, bytes);
    CHECK(has(stderr_of([&] { checkpoint_find(run.path); }), "tensor 'last' is damaged"));
    // keep = 1 counts what is not beyond this step: the damaged 20 must not push out the good 15.
    stderr_of([&] { save(run.path, 15, 1); CHECK(checkpoint_find(run.path).step == 15); });
    save(run.path, 20, 1, 77);
    CHECK(content_of(checkpoint_find(run.path)) == 77);
    // Nothing usable is an error, not a fresh start.
    spill(run.path + "/checkpoints/step-00000020/state.json", "{}");
    std::string message;
    stderr_of([&] { message = error_of([&] { checkpoint_find(run.path); }); });
    CHECK(has(message, "none of the 1 checkpoints"));
}

TEST_CASE("checkpoint: an honest-looking manifest with wrong types is an error, not a crash") {
    TempDir run;
    const std::string manifest = save(run.path, 10) + "/manifest.json";
    auto signed_text = [](nlohmann::json j) {         // with the right checksum of itself, so that the reading goes on
        j["manifest"] = hash_hex(j.dump());
        return j.dump();
    };
    using nlohmann::json;
    const json nothing = json::object();
    for (const std::string& text : {std::string(), std::string("[]"), std::string("{}"), std::string("7"), std::string("{\"manifest\":7}"),
                                    signed_text({{"format", 1}}), signed_text({{"format", 2}, {"step", 10}, {"files", nothing}}),
                                    signed_text({{"format", 1}, {"step", 10}, {"files", 7}}),
                                    signed_text({{"format", 1}, {"step", 11}, {"files", nothing}}),
                                    signed_text({{"format", 1}, {"step", 10}, {"files", {{"model.safetensors", 3}}}}),
                                    signed_text({{"format", 1}, {"step", 10}, {"files", {{"model.safetensors", {{"bytes", "x"}}}}}})}) {
        CAPTURE(text);
        spill(manifest, text);
        const std::string message = stderr_of([&] { CHECK_THROWS_AS(checkpoint_find(run.path), Error); });
        CHECK(has(message, run.path));
    }
}

// Runs f in a child process; returns its status as waitpid gives it.
template <class F> static int in_child(F f) {
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        try {
            f();
        } catch (const std::exception&) {
            _exit(1);
        }
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

TEST_CASE("checkpoint: killed at any point, the last one reported as saved is whole, and saving again works") {
    int kills = 0;
    for (const char* point : {"before-write", "during-write", "after-write", "before-fsync", "after-fsync", "before-rename", "after-rename",
                              "before-publish", "after-publish", "before-latest", "after-latest", "before-prune", "after-prune"})
        for (bool again : {false, true}) {           // again: the step exists already, damaged
            int n = 1;
            for (;; n++) {
                TempDir run;
                save(run.path, 10, 1);
                if (again) {
                    fs::create_directories(run.path + "/checkpoints/step-00000020");
                    spill(run.path + "/checkpoints/step-00000020/state.json", "damaged");
                }
                const int status = in_child([&] {
                    setenv("QV_CRASH_AT", format("%s:%d", point, n).c_str(), 1);
                    save(run.path, 20, 1);
                });
                if (WIFEXITED(status)) {
                    CHECK(WEXITSTATUS(status) == 0);
                    break;
                }
                kills++;
                CAPTURE(point); CAPTURE(n); CAPTURE(again);
                CHECK(WTERMSIG(status) == SIGKILL);
                CheckpointFound c;
                stderr_of([&] { c = checkpoint_find(run.path); });
                CHECK((c.step == 10 || c.step == 20));
                CHECK(content_of(c) == c.step);
                if (std::string(point) == "after-latest" || std::string(point) == "before-prune") CHECK(c.step == 20);
                save(run.path, 20, 1, 5);
                CHECK(content_of(checkpoint_find(run.path)) == 5);
                CHECK(names_in(run.path + "/checkpoints") == std::vector<std::string>{"latest", "step-00000020"});
            }
            CHECK(n > 1);                            // the point exists
        }
    CHECK(kills > 40);
}

TEST_CASE("checkpoint: disk full: the old one stays, the temporary goes, bytes needed and free are told") {
    TempDir run;
    save(run.path, 10);
    std::string message;
    const int status = in_child([&] {
        signal(SIGXFSZ, SIG_IGN);                    // so that write() fails instead
        const rlimit limit = {20'000, 20'000};       // the largest file that this process may write
        setrlimit(RLIMIT_FSIZE, &limit);
        message = error_of([&] { checkpoint_save({run.path, 2}, 20, tensors("w", 20, 100'000), tensors("w.m", 20), "{}"); });
        const bool told = has(message, "step 20 not saved") && has(message, "model.safetensors") &&
                          has(message, "needs about 790.1 KiB (809032 bytes)") && has(message, "are free");
        _exit(told ? 0 : 3);
    });
    CHECK(status == 0);
    CHECK(names_in(run.path + "/checkpoints") == std::vector<std::string>{"latest", "step-00000010"});
    CHECK(content_of(checkpoint_find(run.path)) == 10);
}

TEST_CASE("checkpoints: all gone although one was saved is a loss; before the first save it is a young run") {
    TempDir run;
    CHECK(checkpoint_find(run.path).dir == "");
    save(run.path, 10);
    fs::remove_all(run.path + "/checkpoints");
    int code = 0;
    CHECK(has(error_of([&] { checkpoint_find(run.path); }, &code), "the checkpoints are gone"));
    CHECK(code == EXIT_USAGE);
    fs::create_directory(run.path + "/checkpoints");
    CHECK(has(error_of([&] { checkpoint_find(run.path); }), "put them back, or start again with --overwrite"));
}

TEST_CASE("checkpoints: a pipe or a folder in a file's place is refused, not waited for") {
    for (const char* name : {"manifest.json", "state.json", "model.safetensors"})
        for (bool pipe : {true, false}) {
            TempDir run;
            save(run.path, 10);
            const std::string newest = save(run.path, 20), path = newest + "/" + name;
            fs::remove(path);
            if (pipe) REQUIRE(mkfifo(path.c_str(), 0644) == 0);
            else fs::create_directory(path);
            CHECK(has(error_of([&] { checkpoint_verify(newest); }), path));
            int64_t used = 0;
            stderr_of([&] { used = checkpoint_find(run.path).step; });
            CHECK(used == 10);
        }
}

TEST_CASE("checkpoints: free bytes are told where the disk is at fault, and only there") {
    TempDir run;
    auto diverged = tensors("w", 1);
    diverged[0].fill = [](uint64_t, size_t, void*) { fail("tensor w holds nan at element 3: training diverged"); };
    const std::string message = error_of([&] { checkpoint_save({run.path, 2}, 1, diverged, {}, "{}"); });
    CHECK(has(message, "holds nan"));
    CHECK_FALSE(has(message, "are free"));
    try {
        fs::create_directory(run.path + "/absent/folder");
        CHECK(false);
    } catch (const std::exception& e) {
        CHECK(error_text(e) == run.path + "/absent/folder: cannot create directory: No such file or directory");
    }
}
