// layers/matmul_cublaslt.cu as nvcc compiles it, on stand-ins for cuBLASLt and the CUDA runtime: which algorithm a product
// gets, and that a resumed run gets the same. Built and run by `make cuda-check`, without a GPU. Not for what a product is.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

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
using Algorithms = std::vector<uint64_t>;
struct Folder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / ("matmul-" + std::to_string(getpid()));
    Folder() { std::filesystem::create_directory(path); }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string file(int rank = 0) const { return path.string() + matmul_choices_name(rank); }
};
std::string text(const std::string& path) {
    std::ostringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
}

// A program of its own, as a run is: keeps its choices in `file`, makes a product for each of `rows`, the second time
// adding; says which algorithm made each product in the end, and what it had to say. Timing runs are left out.
struct Run { Algorithms algorithms; std::string said; };
Run run(const std::string& file, bool tune, const std::vector<size_t>& rows,
        const std::vector<float>& ms = {4, 3, 2, 3}, size_t version = 130004, uint64_t refused = 0) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
        std::copy(ms.begin(), ms.end(), fake_ms);
        fake_version = version;
        fake_refused = refused;
        setenv("MATMUL_TUNE", tune ? "1" : "0", 1);
        std::ostringstream out;
        try {
            backend_init(1);
            out << backend_keep_choices(file) << '\n';
            for (bool accumulate : {false, true})
                for (size_t m : rows) {
                    if (!product_of(m, accumulate)) out << "0 ";
                    out << fake_algorithms_run.back() << ' ';
                }
        } catch (const std::exception& e) {
            out << "\nthrown: " << e.what();
        }
        const std::string all = out.str();
        _exit(write(ends[1], all.data(), all.size()) == ssize_t(all.size()) ? 0 : 1);
    }
    close(ends[1]);
    std::string all;
    char piece[4096];
    for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;) all.append(piece, size_t(n));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(status == 0);
    std::istringstream in(all);
    Run r;
    std::getline(in, r.said);
    for (uint64_t a; in >> a;) r.algorithms.push_back(a);
    return r;
}
}  // namespace

TEST_CASE("without timing: the first proposal, kept all the same") {
    Folder f;
    CHECK(run(f.file(), false, {64, 128}).algorithms == Algorithms{100, 100, 100, 100});
    CHECK(text(f.file()).find("NVIDIA H100 80GB HBM3; cuBLASLt 130004; fp32\n") != std::string::npos);
    // resumed with timing switched on: the run's choices stay
    CHECK(run(f.file(), true, {64, 128}).algorithms == Algorithms{100, 100, 100, 100});
}

TEST_CASE("timed: the fastest, and a resumed run has the same whatever the clock says") {
    Folder f;
    CHECK(run(f.file(), true, {64, 128}).algorithms == Algorithms{102, 102, 102, 102});
    const std::string kept = text(f.file());
    Run again = run(f.file(), true, {64, 128}, {1, 3, 4, 5});
    CHECK(again.algorithms == Algorithms{102, 102, 102, 102});
    CHECK(again.said == "");
    CHECK(run(f.file(), false, {128, 64}).algorithms == Algorithms{102, 102, 102, 102});
    CHECK(text(f.file()) == kept);
    // a shape that comes up later, say in another validation: chosen then, and kept beside the others
    CHECK(run(f.file(), true, {192, 64}, {4, 3, 3, 1}).algorithms == Algorithms{103, 102, 103, 102});
    CHECK(run(f.file(), true, {64, 128, 192}, {1, 9, 9, 9}).algorithms == Algorithms{102, 102, 103, 102, 102, 103});
    // without the file, another clock chooses otherwise: this is what the file is for
    CHECK(run(f.file(1), true, {64}, {1, 3, 4, 5}).algorithms == Algorithms{100, 100});
}

TEST_CASE("another library, a refused algorithm, a file that is none") {
    Folder f;
    run(f.file(), true, {64});
    Run other = run(f.file(), true, {64}, {1, 3, 4, 5}, 140000);
    CHECK(other.algorithms == Algorithms{100, 100});
    CHECK(other.said.find("its algorithms are for \"NVIDIA H100 80GB HBM3; cuBLASLt 130004; fp32\"") != std::string::npos);
    CHECK(text(f.file()).find("cuBLASLt 140000") != std::string::npos);
    CHECK(run(f.file(), true, {64}, {4, 1, 4, 5}, 140000, 100).algorithms == Algorithms{101, 101});
    std::ofstream(f.file()) << "something else\n";
    Run none = run(f.file(), true, {64});
    CHECK(none.algorithms == Algorithms{102, 102});
    CHECK(none.said.find("not a file of matrix algorithms") != std::string::npos);
    std::ofstream(f.file(), std::ios::app) << "1 2 3\n";
    CHECK(run(f.file(), true, {64}, {1, 2, 3, 4}).said.find("a line that is none: \"1 2 3\"") != std::string::npos);
}

TEST_CASE("a rank that does not see the run's folder times nothing") {
    Run r = run("/nowhere/at/all/matmul-3.txt", true, {64});
    CHECK(r.algorithms == Algorithms{100, 100});
    CHECK(r.said == "/nowhere/at/all: this rank does not see the folder; its matrix algorithms are not timed");
    CHECK(run("/nowhere/at/all/matmul-3.txt", false, {64}).said == r.said);
}
