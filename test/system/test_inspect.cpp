// runtime/run/inspect.h: numbers of tensors against ones made by hand, differences between checkpoints.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "runtime/run/checkpoint.h"
#include "runtime/run/inspect.h"
#include "test/temp_dir.h"

template <class T> static TensorToWrite tensor(const char* name, const char* dtype, std::vector<T> values) {
    return {name, dtype, {int64_t(values.size())}, [values](uint64_t offset, size_t bytes, void* out) {
                memcpy(out, reinterpret_cast<const char*>(values.data()) + offset, bytes);
            }};
}

TEST_CASE("inspect: norm, mean, range, what is not finite, in every dtype") {
    TempDir dir;
    const std::string path = dir.path + "/x.safetensors";
    safetensors_write(
        path,
        {tensor<float>("f32", "F32", {3, -4, 0, 5, NAN, INFINITY}), tensor<double>("f64", "F64", {1e200, -1e100}),
         tensor<uint16_t>("bf16", "BF16", {0x3f80, 0xc000}),
         tensor<uint16_t>("f16", "F16", {0x3c00, 0xc000, 0x0001, 0x7c00, 0xfe00}),
         tensor<int64_t>("i64", "I64", {-7, 9}), tensor<uint8_t>("u8", "U8", {255}), tensor<float>("empty", "F32", {}),
         tensor<float>("nan", "F32", {NAN})},
        {});
    const SafetensorsFile f = safetensors_open(path);
    auto stats = [&](const char* name) { return inspect_tensor(f, *f.find(name)); };
    const TensorStats a = stats("f32");
    CHECK(a.elements == 6);
    CHECK(a.not_finite == 2);
    CHECK(a.norm == doctest::Approx(std::sqrt(50.0)));
    CHECK(a.mean == 1);
    CHECK(a.min == -4);
    CHECK(a.max == 5);
    CHECK(a.checksum.size() == 32);
    CHECK(stats("f64").max == 1e200); CHECK(stats("f64").min == -1e100);
    CHECK(stats("bf16").min == -2); CHECK(stats("bf16").max == 1);
    CHECK(stats("f16").min == -2);
    CHECK(stats("f16").max == 1);
    CHECK(stats("f16").not_finite == 2);
    CHECK(stats("f16").mean == doctest::Approx((-1 + std::ldexp(1, -24)) / 3));
    CHECK(stats("i64").min == -7); CHECK(stats("i64").max == 9); CHECK(stats("u8").mean == 255);
    CHECK(stats("empty").elements == 0);
    CHECK(std::isnan(stats("empty").mean));
    CHECK(stats("nan").not_finite == 1);
    CHECK(std::isnan(stats("nan").max));
}

TEST_CASE("inspect: a tensor of several pieces") {
    TempDir dir;
    const int64_t n = 3'000'001;
    auto ones = [&](const char* file, int64_t odd) {
        safetensors_write(dir.path + file, {{"w", "F32", {n}, [odd](uint64_t offset, size_t bytes, void* out) {
            for (size_t i = 0; i < bytes / 4; i++) static_cast<float*>(out)[i] = int64_t(offset / 4 + i) == odd ? 3.f : 1.f; }}}, {});
        return inspect_open(dir.path + file);
    };
    const InspectSource a = ones("/a.safetensors", -1), b = ones("/b.safetensors", n - 1);
    CHECK(inspect_tensor(a.files[0], a.files[0].tensors[0]).norm == doctest::Approx(std::sqrt(double(n))));
    CHECK(inspect_compare(a, a)[0].differing == 0);
    const TensorDifference d = inspect_compare(a, b)[0];
    CHECK(d.elements == uint64_t(n)); CHECK(d.differing == 1); CHECK(d.max_abs_difference == 2);
}

TEST_CASE("inspect: differences of two files") {
    TempDir dir;
    safetensors_write(dir.path + "/a",
                      {tensor<float>("same", "F32", {1, 2}), tensor<float>("w", "F32", {1, 2, NAN, 0.f}),
                       tensor<float>("shape", "F32", {1}), tensor<float>("a", "F32", {1})},
                      {});
    safetensors_write(dir.path + "/b",
                      {tensor<float>("b", "F32", {1}), tensor<float>("shape", "F32", {1, 2}),
                       tensor<float>("w", "F32", {1, 2.5f, NAN, -0.f}), tensor<float>("same", "F32", {1, 2})},
                      {});
    const auto d = inspect_compare(inspect_open(dir.path + "/a"), inspect_open(dir.path + "/b"));
    REQUIRE(d.size() == 5);
    CHECK(d[0].name == "same"); CHECK(d[0].differing == 0); CHECK(d[0].problem == "");
    CHECK(d[1].differing == 2); CHECK(d[1].max_abs_difference == 0.5);          // NaN with the same bits is equal, -0 has other bits
    CHECK(d[2].problem == "F32 (1) in A, F32 (2) in B");
    CHECK(d[3].problem == "only in A"); CHECK(d[4].problem == "only in B"); CHECK(d[4].name == "b");
    safetensors_write(dir.path + "/c", {tensor<float>("w", "F32", {NAN, NAN, NAN, 0.f})}, {});
    CHECK(std::isnan(inspect_compare(inspect_open(dir.path + "/c"), inspect_open(dir.path + "/b"))[0].max_abs_difference));
}

TEST_CASE("inspect: runs, checkpoints, damage, nothing") {
    TempDir run;
    CHECK(has(error_of([&] { inspect_open(run.path); }), "neither a run"));
    CHECK(error_of([&] { inspect_open(run.path + "/none"); }) != "");
    auto save = [&](int64_t step) {
        return checkpoint_save({run.path, 2}, step, {tensor<float>("w", "F32", {float(step)})},
                               {tensor<float>("m", "F32", {1})}, "{\"step\": 5}");
    };
    save(5);
    const std::string newest = save(9);
    InspectSource s = inspect_open(run.path);
    CHECK(s.path == newest);
    CHECK(s.problem == "");
    CHECK(s.has_manifest);
    CHECK(s.files.size() == 2);
    CHECK(s.state_json == "{\"step\": 5}");
    std::string bytes = slurp(newest + "/model.safetensors");
    bytes.back() = char(bytes.back() ^ 1);
    spill(newest + "/model.safetensors", bytes);
    s = inspect_open(newest);
    CHECK(has(s.problem, "tensor 'w' is damaged")); CHECK(s.files.size() == 2); CHECK(s.state_json == "");
    // A checkpoint that was copied under another name verifies all the same.
    std::filesystem::copy(run.path + "/checkpoints/step-00000005", run.path + "/copy");
    CHECK(inspect_open(run.path + "/copy/").problem == "");
}
