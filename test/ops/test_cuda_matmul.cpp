// layers/matmul_cublaslt.cu as nvcc compiles it, on stand-ins for cuBLASLt and the CUDA runtime: which algorithm a product
// gets, timed or from a file; that a resumed run gets the same, and that programs agree. Built and run by `make cuda-check`,
// without a GPU. Not for what a product is.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "runtime/device/backend.h"
#include "runtime/run/matmul_choices.h"
#include "test/fakes/fake_cublaslt.h"

bool product_of(size_t m, bool accumulate);                  // test/fakes/some_products.cu

namespace {
namespace fs = std::filesystem;
using Algorithms = std::vector<uint64_t>;
const std::string FILE_NAME = "/matmul-NVIDIA-H100-80GB-HBM3-cuBLASLt-130004-fp32.txt";

struct Folders {                                             // a run's folder, a second run's, and the cache's
    fs::path path = fs::temp_directory_path() / ("matmul-" + std::to_string(getpid()));
    const std::string run = path / "run", other = path / "other", cache = path / "cache";
    Folders() { fs::create_directories(run), fs::create_directories(other); }
    ~Folders() { fs::remove_all(path); }
};
std::string text(const std::string& path) {
    std::ostringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
}
void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

// What a program is told: the clock; MATMUL_TUNE ("" is unset); the cache; how long it works on a timed product's choice.
struct World {
    std::vector<float> ms = {4, 3, 2, 3};
    std::string tune = "", cache = "off";
    size_t version = 130004;
    uint64_t refused = 0;
};
// A program of its own, as a run is: keeps its choices in `folder`, makes a product for each of `rows`, the second time
// adding; says which algorithm made each product in the end, and what it had to say. Timing runs are left out.
struct Program { pid_t child; int out; };
Program begin(const std::string& folder, const std::vector<size_t>& rows, const World& w) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    if (child != 0) return close(ends[1]), Program{child, ends[0]};
    std::copy(w.ms.begin(), w.ms.end(), fake_ms);
    fake_version = w.version;
    fake_refused = w.refused;
    w.tune.empty() ? unsetenv("MATMUL_TUNE") : setenv("MATMUL_TUNE", w.tune.c_str(), 1);
    setenv("MATMUL_CACHE", w.cache.c_str(), 1);
    std::ostringstream out;
    dup2(ends[1], STDERR_FILENO);                            // what is said comes before the line "=" and the algorithms
    try {
        backend_init(1);
        if (!folder.empty()) fputs(backend_keep_choices(folder).c_str(), stderr);
        for (bool accumulate : {false, true})
            for (size_t m : rows) {
                if (!product_of(m, accumulate)) out << "0 ";
                out << fake_algorithms_run.back() << ' ';
            }
    } catch (const std::exception& e) {
        fprintf(stderr, "thrown: %s\n", e.what());
    }
    const std::string all = "=\n" + out.str();
    _exit(write(ends[1], all.data(), all.size()) == ssize_t(all.size()) ? 0 : 1);
}
struct Run { Algorithms algorithms; std::string said; };
Run end_of(const Program& program) {
    std::string all;
    char piece[4096];
    for (ssize_t n; (n = read(program.out, piece, sizeof piece)) > 0;) all.append(piece, size_t(n));
    close(program.out);
    int status = 0;
    waitpid(program.child, &status, 0);
    CHECK(status == 0);
    const size_t mark = all.find("=\n");
    REQUIRE(mark != std::string::npos);
    Run r{{}, all.substr(0, mark)};
    std::istringstream in(all.substr(mark + 2));
    for (uint64_t a; in >> a;) r.algorithms.push_back(a);
    return r;
}
Run run(const std::string& folder, const std::vector<size_t>& rows, const World& w = {}) { return end_of(begin(folder, rows, w)); }
const World FIRST_IS_FASTEST = {{1, 3, 4, 5}, "", "off", 130004, 0};
}  // namespace

TEST_CASE("timed by default: the fastest, and a resumed run has the same whatever the clock says") {
    Folders f;
    CHECK(run(f.run, {64, 128}).algorithms == Algorithms{102, 102, 102, 102});
    const std::string kept = text(f.run + FILE_NAME);
    CHECK(kept.starts_with("qv.cu matmul choices 2\nNVIDIA H100 80GB HBM3; cuBLASLt 130004; fp32\n"));
    Run again = run(f.run, {64, 128}, FIRST_IS_FASTEST);
    CHECK(again.algorithms == Algorithms{102, 102, 102, 102});
    CHECK(again.said == "");
    World untimed = FIRST_IS_FASTEST;
    untimed.tune = "0";
    CHECK(run(f.run, {128, 64}, untimed).algorithms == Algorithms{102, 102, 102, 102});
    CHECK(text(f.run + FILE_NAME) == kept);
    // a shape that comes up later, say in another validation: chosen then, and kept beside the others
    CHECK(run(f.run, {192, 64}, {{4, 3, 3, 1}}).algorithms == Algorithms{103, 102, 103, 102});
    CHECK(run(f.run, {64, 128, 192}, FIRST_IS_FASTEST).algorithms == Algorithms{102, 102, 103, 102, 102, 103});
    // without the file, another clock chooses otherwise: this is what the file is for
    CHECK(run(f.other, {64}, FIRST_IS_FASTEST).algorithms == Algorithms{100, 100});
    // a branch begins with them
    fs::remove_all(f.other), fs::create_directories(f.other);
    matmul_choices_copy(f.other, f.run);
    CHECK(run(f.other, {64}, FIRST_IS_FASTEST).algorithms == Algorithms{102, 102});
}

TEST_CASE("MATMUL_TUNE=0: the first proposal, kept all the same, and the cache neither read nor written") {
    Folders f;
    CHECK(run(f.other, {64}, {.cache = f.cache}).algorithms == Algorithms{102, 102});
    const std::string cached = text(f.cache + FILE_NAME);
    CHECK(run(f.run, {64, 128}, {.tune = "0", .cache = f.cache}).algorithms == Algorithms{100, 100, 100, 100});
    CHECK(text(f.cache + FILE_NAME) == cached);
    // resumed with timing switched on: the run's choices stay
    CHECK(run(f.run, {64, 128}, {.cache = f.cache}).algorithms == Algorithms{100, 100, 100, 100});
    // a program that keeps nothing, such as a benchmark, times only if it is told to
    CHECK(run("", {64}).algorithms == Algorithms{100, 100});
    CHECK(run("", {64}, {.tune = "1"}).algorithms == Algorithms{102, 102});
}

TEST_CASE("the cache: a new run has the bits of an earlier one") {
    Folders f;
    CHECK(run(f.run, {64}, {.cache = f.cache}).algorithms == Algorithms{102, 102});
    World later = FIRST_IS_FASTEST;
    later.cache = f.cache;
    Run second = run(f.other, {64, 128}, later);             // 64 from the cache, 128 timed now
    CHECK(second.algorithms == Algorithms{102, 100, 102, 100});
    CHECK(second.said == "");
    CHECK(run(f.run, {128}, {.cache = f.cache}).algorithms == Algorithms{100, 100});      // for the first run too
    // the run's own file is the authority: it stays, though the cache is gone or says otherwise
    fs::remove_all(f.cache);
    CHECK(run(f.path / "run", {64}, later).algorithms == Algorithms{102, 102});
    CHECK_FALSE(fs::exists(f.cache + FILE_NAME));
    CHECK(run(f.other, {256}, later).algorithms == Algorithms{100, 100});
    CHECK(run(f.run, {256}, {.cache = "off"}).algorithms == Algorithms{102, 102});
    CHECK(run(f.run, {256}, later).algorithms == Algorithms{102, 102});
    // another version of the library, another file: nothing of this one's is used
    later.version = 140000;
    CHECK(run(f.path / "other", {512}, later).algorithms == Algorithms{100, 100});
    CHECK(fs::exists(f.cache + "/matmul-NVIDIA-H100-80GB-HBM3-cuBLASLt-140000-fp32.txt"));
}

TEST_CASE("the cache's place") {
    const char* names[] = {"MATMUL_CACHE", "XDG_CACHE_HOME", "HOME"};
    std::string before[3];
    for (int i = 0; i < 3; i++) before[i] = getenv(names[i]) ? getenv(names[i]) : "", unsetenv(names[i]);
    CHECK(matmul_cache_folder() == "");
    setenv("HOME", "/h", 1);
    CHECK(matmul_cache_folder() == "/h/.cache/qv");
    setenv("XDG_CACHE_HOME", "not/absolute", 1);             // to be ignored [XDG Base Directory Specification]
    CHECK(matmul_cache_folder() == "/h/.cache/qv");
    setenv("XDG_CACHE_HOME", "/x", 1);
    CHECK(matmul_cache_folder() == "/x/qv");
    setenv("MATMUL_CACHE", "/m", 1);
    CHECK(matmul_cache_folder() == "/m");
    setenv("MATMUL_CACHE", "off", 1);
    CHECK(matmul_cache_folder() == "");
    for (int i = 0; i < 3; i++) before[i].empty() ? unsetenv(names[i]) : setenv(names[i], before[i].c_str(), 1);
}

TEST_CASE("a cache that cannot be used: one line, and the run goes on without it") {
    Folders f;
    const std::string file = f.cache + FILE_NAME;
    auto expect = [&](const std::string& why) {
        Run r = run(f.run, {64, 128, 192}, {.cache = f.cache});
        CHECK(r.algorithms == Algorithms{102, 102, 102, 102, 102, 102});
        CHECK(r.said.starts_with("matmul: going on without the cache of matrix algorithms: "));
        CHECK_MESSAGE(r.said.find(why) != std::string::npos, r.said);
        CHECK(std::count(r.said.begin(), r.said.end(), '\n') <= 2);          // one to read, one to add
        fs::remove_all(f.run), fs::create_directories(f.run);
    };
    run(f.other, {64}, {.cache = f.cache});
    const std::string good = text(file);
    std::string flipped = good;
    flipped[good.find(" 66 ") + 1] = '7';                    // algorithm 102, in hexadecimal
    write_text(file, flipped);
    expect(": damaged: \"");
    CHECK(text(file) == flipped);                            // left alone, for whoever wants to look
    write_text(file, "something else\n");
    expect("not a file of matrix algorithms");
    write_text(file, good + "1 2 3\n" + good);
    expect(": damaged: \"1 2 3\"");
    write_text(file, good + std::string(17 << 20, '\n'));
    expect("larger than 16 MiB");
    fs::remove(file), fs::create_directory(file);
    expect("Is a directory");
    fs::remove_all(f.cache), write_text(f.cache, "no folder");
    expect(f.cache);
    // and one that its user may only read is read (root may write anyway)
    fs::remove_all(f.cache), fs::create_directory(f.cache), write_text(file, good);
    fs::permissions(file, fs::perms::owner_read);
    CHECK(run(f.run, {64}, {{1, 3, 4, 5}, "", f.cache, 130004, 0}).algorithms == Algorithms{102, 102});
}

TEST_CASE("a line without its end counts for nothing, wherever it was cut") {
    Folders f;
    run(f.run, {64}, {.cache = f.cache});
    const std::string file = f.cache + FILE_NAME, good = text(file);
    for (size_t cut = 0; cut < good.size(); cut += cut + 3 < good.size() ? 11 : 1) {
        write_text(file, good.substr(0, cut));
        fs::remove_all(f.other), fs::create_directories(f.other);
        Run r = run(f.other, {64}, {{1, 3, 4, 5}, "", f.cache, 130004, 0});
        CHECK(r.said == "");
        CHECK(r.algorithms == Algorithms{100, 100});
        CHECK(std::count(good.begin(), good.end(), '\n') == 3);
    }
}

TEST_CASE("many programs at once, each with another clock: they agree on every product, in the cache and in one run") {
    Folders f;
    const std::vector<size_t> rows = {64, 128, 192, 256, 320, 384};
    for (bool one_run : {false, true}) {
        std::vector<Program> programs;
        fs::remove_all(f.cache);
        for (int i = 0; i < 8; i++) {
            const std::string folder = one_run ? f.run : (f.path / ("run" + std::to_string(i))).string();
            fs::create_directories(folder);
            std::vector<float> ms(4, 9.0f);
            ms[size_t(i % 4)] = 1;
            programs.push_back(begin(folder, rows, {ms, "", one_run ? "off" : f.cache, 130004, 0}));
        }
        std::vector<Run> runs;
        for (const Program& p : programs) runs.push_back(end_of(p));
        REQUIRE(runs[0].algorithms.size() == 2 * rows.size());
        for (const Run& r : runs) {
            CHECK(r.said == "");
            CHECK(r.algorithms == runs[0].algorithms);
        }
        const std::string all = text((one_run ? f.run : f.cache) + FILE_NAME);
        CHECK(size_t(std::count(all.begin(), all.end(), '\n')) == 2 + rows.size());
    }
}

TEST_CASE("a lock that is never given back is not waited for for ever") {
    Folders f;
    run(f.run, {64}, {.cache = f.cache});
    const int fd = open((f.cache + FILE_NAME).c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(flock(fd, LOCK_EX) == 0);
    Run r = run(f.other, {64}, {.cache = f.cache});
    close(fd);
    CHECK(r.algorithms == Algorithms{102, 102});
    CHECK(r.said.find("another process has held its lock for ") != std::string::npos);
}

TEST_CASE("a run's file: another library, a refused algorithm, a file that is none") {
    Folders f;
    const std::string file = f.run + FILE_NAME;
    run(f.run, {64});
    World other = FIRST_IS_FASTEST;
    other.version = 140000;
    Run r = run(f.run, {64}, other);
    CHECK(r.algorithms == Algorithms{100, 100});
    CHECK(r.said.find("its algorithms are not for \"NVIDIA H100 80GB HBM3; cuBLASLt 140000; fp32\"") != std::string::npos);
    CHECK(run(f.run, {64}, FIRST_IS_FASTEST).algorithms == Algorithms{102, 102});         // back at the old one: its file is there still
    World refusing;
    refusing.ms = {4, 1, 4, 5};
    refusing.refused = 102;
    r = run(f.run, {64}, refusing);
    CHECK(r.algorithms == Algorithms{101, 101});
    CHECK(r.said.find("the library refuses the algorithm kept for one of the products") != std::string::npos);
    CHECK(run(f.run, {64}).algorithms == Algorithms{101, 101});                          // the later line counts
    write_text(file, "something else\n");
    r = run(f.run, {64});
    CHECK(r.algorithms == Algorithms{102, 102});
    CHECK(r.said.find("not a file of matrix algorithms") != std::string::npos);
    std::ofstream(file, std::ios::app) << "1 2 3\n";
    CHECK(run(f.run, {64}, FIRST_IS_FASTEST).said.find("damaged: \"1 2 3\"") != std::string::npos);
    CHECK(run(f.run, {64}).algorithms == Algorithms{100, 100});
    // one refused in the cache is timed again, and the cache has the new one
    fs::remove_all(f.run), fs::create_directories(f.run);
    run(f.other, {64}, {.cache = f.cache});
    refusing.cache = f.cache;
    CHECK(run(f.run, {64}, refusing).algorithms == Algorithms{101, 101});
    CHECK(run(f.path, {64}, {.cache = f.cache}).algorithms == Algorithms{101, 101});
}

TEST_CASE("a rank that does not see the run's folder times nothing") {
    Run r = run("/nowhere/at/all", {64});
    CHECK(r.algorithms == Algorithms{100, 100});
    CHECK(r.said == "/nowhere/at/all: this rank does not see the folder; no rank times its matrix algorithms\n");
}
