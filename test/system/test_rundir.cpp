// The run's folder: who may open it, what overwriting may delete, what a resume trims; and the console line.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/run/rundir.h"
#include "test/temp_dir.h"

namespace fs = std::filesystem;

static StepMetrics metrics(int64_t step) {
    StepMetrics m;
    m.step = step;
    m.tokens = step * 4096;
    m.seconds = 0.1 * double(step);
    m.loss = 1.0 / 3 / double(step + 1);
    m.lr = 6e-4;
    return m;
}

static std::string open_error(const std::string& runs, const std::string& name, bool resume, bool overwrite, int* code = nullptr) {
    return error_of([&] { RunDir r; rundir_open(r, runs, name, resume, overwrite); }, code);
}

static void make_run(const std::string& runs, const std::string& name, int steps) {
    RunDir r;
    rundir_open(r, runs, name, false, false);
    rundir_write_config(r, "{}");
    for (int step = 1; step <= steps; step++) rundir_log(r, metrics(step));
}

static int lines_in(const std::string& path) {
    const std::string text = slurp(path);
    return int(std::count(text.begin(), text.end(), '\n'));
}

TEST_CASE("rundir: a new run, an existing one, resume, overwrite") {
    TempDir dir;
    const std::string runs = dir.path + "/deep/runs";
    make_run(runs, "a", 3);
    CHECK(slurp(runs + "/a/config.json") == "{}\n");
    const auto written = fs::last_write_time(runs + "/a/lock");
    int code = 0;
    const std::string message = open_error(runs, "a", false, false, &code);
    CHECK(code == EXIT_USAGE);
    CHECK(has(message, "--resume"));
    CHECK(has(message, "--overwrite"));
    CHECK(lines_in(runs + "/a/metrics.jsonl") == 3);
    CHECK(fs::last_write_time(runs + "/a/lock") == written);         // nothing was touched
    CHECK(open_error(runs, "a", true, false) == "");
    CHECK(lines_in(runs + "/a/metrics.jsonl") == 3);
    fs::create_directories(runs + "/a/checkpoints/step-00000001");
    spill(runs + "/a/samples.txt", "x");
    CHECK(open_error(runs, "a", false, true) == "");
    CHECK(lines_in(runs + "/a/metrics.jsonl") == 0);
    CHECK(lines_in(runs + "/a/metrics.csv") == 1);
    CHECK_FALSE(fs::exists(runs + "/a/checkpoints"));
    CHECK_FALSE(fs::exists(runs + "/a/samples.txt"));
    CHECK_FALSE(fs::exists(runs + "/a/config.json"));
    CHECK(open_error(runs, "b", true, false) == "");                 // nothing to resume: a new run
    CHECK(open_error(runs, "c", false, true) == "");
}

TEST_CASE("rundir: a folder that is no run is never deleted nor written into") {
    TempDir dir;
    fs::create_directories(dir.path + "/thesis");
    spill(dir.path + "/thesis/chapter1.tex", "years of work");
    for (bool resume : {false, true}) {
        CHECK(has(open_error(dir.path, "thesis", resume, true), "does not look like a run"));
        CHECK(open_error(dir.path, "thesis", resume, false) != "");
    }
    CHECK(slurp(dir.path + "/thesis/chapter1.tex") == "years of work");
    CHECK_FALSE(fs::exists(dir.path + "/thesis/lock"));
    fs::create_directories(dir.path + "/empty");
    CHECK(open_error(dir.path, "empty", false, false) == "");
    fs::create_directories(dir.path + "/died");                      // a process that died right after locking
    spill(dir.path + "/died/lock", "process 1");
    CHECK(open_error(dir.path, "died", false, false) == "");
    spill(dir.path + "/file", "");
    CHECK(has(open_error(dir.path, "file", false, true), "not a folder"));
    for (const std::string& name :
         {std::string(), std::string("."), std::string(".."), std::string("../x"), std::string("a/b"),
          std::string("/etc"), std::string("-x"), std::string("--resume"), std::string("a\nb"), std::string("\x1b[31m"),
          std::string("a\x7f"), std::string(201, 'n')}) {
        int code = 0;
        CHECK(has(open_error(dir.path, name, false, true, &code), "--run"));
        CHECK(code == EXIT_USAGE);
    }
}

TEST_CASE("rundir: a pipe in a log's place is refused, not waited for") {
    for (const char* name : {"metrics.jsonl", "metrics.csv"}) {
        TempDir dir;
        make_run(dir.path, "a", 1);
        fs::remove(dir.path + "/a/" + name);
        REQUIRE(mkfifo((dir.path + "/a/" + name).c_str(), 0644) == 0);
        CHECK(has(open_error(dir.path, "a", true, false), std::string(name) + ": is a pipe"));
    }
}

TEST_CASE("rundir: one owner at a time, released however it dies") {
    TempDir dir;
    make_run(dir.path, "a", 1);
    RunDir r;
    rundir_open(r, dir.path, "a", true, false);
    for (bool overwrite : {false, true}) {
        const std::string message = open_error(dir.path, "a", !overwrite, overwrite);       // flock excludes also within a process
        CHECK(has(message, "in use by process " + std::to_string(getpid())));
    }
    CHECK(lines_in(dir.path + "/a/metrics.jsonl") == 1);
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        RunDir mine;
        rundir_open(mine, dir.path, "b", false, false);
        if (write(ready[1], "x", 1) == 1) pause();
        _exit(0);
    }
    char c;
    REQUIRE(read(ready[0], &c, 1) == 1);
    CHECK(has(open_error(dir.path, "b", true, false), "in use"));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    CHECK(open_error(dir.path, "b", true, false) == "");
    close(ready[0]), close(ready[1]);
}

TEST_CASE("rundir: log lines read back exactly; what is not measured is null and empty") {
    TempDir dir;
    RunDir r;
    rundir_open(r, dir.path, "a", false, false);
    StepMetrics m = metrics(7);
    m.grad_norm = INFINITY;
    m.val_loss = 5e-324;
    m.mfu = 0.1 + 0.2;
    rundir_log(r, m);
    const nlohmann::json j = nlohmann::json::parse(slurp(dir.path + "/a/metrics.jsonl"));
    CHECK(j["step"] == 7);
    CHECK(j["tokens"] == 7 * 4096);
    CHECK(j["loss"].get<double>() == m.loss);
    CHECK(j["val_loss"].get<double>() == 5e-324);
    CHECK(j["mfu"].get<double>() == m.mfu);
    CHECK(j["bits_per_byte"].is_null());
    CHECK(j["grad_norm"].is_null());
    const std::string csv = slurp(dir.path + "/a/metrics.csv");
    CHECK(has(csv, "step,tokens,seconds,loss,val_loss,bits_per_byte,lr,grad_norm,tokens_per_second,mfu\n"));
    CHECK(has(csv, "\n7,28672,0.7000000000000001,0.041666666666666664,5e-324,,6e-04,,,0.30000000000000004\n"));
    CHECK(j.size() == 10);
}

TEST_CASE("rundir: trim drops what is past the step, the torn last line, and samples whatever they contain") {
    TempDir dir;
    const std::string a = dir.path + "/a";
    {
        RunDir r;
        rundir_open(r, dir.path, "a", false, false);
        for (int step = 1; step <= 9; step++) rundir_log(r, metrics(step));
        rundir_sample(r, 4, "text\n=== step 99, 5 bytes ===\nthat imitates a title\n");
        rundir_sample(r, 6, std::string("nul \0 byte", 10));
        rundir_sample(r, 8, "late");
    }
    const std::string jsonl = slurp(a + "/metrics.jsonl"), csv = slurp(a + "/metrics.csv"), samples = slurp(a + "/samples.txt");
    // Killed while writing: each file may end anywhere.
    for (size_t cut = 0; cut < 60; cut += 7) {
        spill(a + "/metrics.jsonl", jsonl.substr(0, jsonl.size() - cut));
        spill(a + "/metrics.csv", csv.substr(0, csv.size() - cut));
        spill(a + "/samples.txt", samples.substr(0, samples.size() - std::min<size_t>(cut, 20)));
        RunDir r;
        rundir_open(r, dir.path, "a", true, false);
        rundir_trim(r, 6);
        CHECK(lines_in(a + "/metrics.jsonl") == 6);
        CHECK(lines_in(a + "/metrics.csv") == 7);
        CHECK(has(jsonl, slurp(a + "/metrics.jsonl")));
        CHECK(has(csv, slurp(a + "/metrics.csv")));
        CHECK(has(slurp(a + "/samples.txt"), "that imitates a title"));
        CHECK(has(slurp(a + "/samples.txt"), "nul"));
        CHECK_FALSE(has(slurp(a + "/samples.txt"), "late"));
        for (int step = 7; step <= 9; step++) rundir_log(r, metrics(step));
        rundir_sample(r, 8, "late");
    }
    CHECK(slurp(a + "/metrics.jsonl") == jsonl);             // as if never interrupted
    CHECK(slurp(a + "/metrics.csv") == csv);
    CHECK(slurp(a + "/samples.txt") == samples);
    // Garbage, and a step that appears twice: one line a step.
    spill(a + "/metrics.jsonl", "garbage\n{\"step\":1}\n{\"step\":1}\n{\"step\":\"2\"}\n\n[[[\n{\"step\":3}\n{\"step\":2}\n{\"st");
    spill(a + "/metrics.csv", "");
    RunDir r;
    rundir_open(r, dir.path, "a", true, false);
    rundir_trim(r, 5);
    CHECK(slurp(a + "/metrics.jsonl") == "{\"step\":1}\n{\"step\":3}\n");
    CHECK(lines_in(a + "/metrics.csv") == 1);
    rundir_trim(r, 0);
    CHECK(slurp(a + "/metrics.jsonl") == "");
}

TEST_CASE("console: the line") {
    Console c;
    c.total_steps = 1000;
    c.smoothed = 2.345 * 0.5, c.weight = 0.5, c.smoothed_ms = 41;
    StepMetrics m;
    m.step = 120, m.lr = 6e-4, m.grad_norm = 0.83, m.tokens_per_second = 99'800;
    CHECK(console_line(c, m, 41.2, 188.4, 12.3) ==
          "step  120/1000  12%  loss 2.345  lr 6.0e-04  |g| 0.83  41 ms  99.8k tok/s  188 GFLOP/s  0m12s  eta 0m36s");
    m.mfu = 0.417;
    c.val_loss = 2.5;
    m.step = 1000;
    CHECK(console_line(c, m, 4.123, 188.4, 3700) ==
          "step 1000/1000 100%  loss 2.345  val 2.500  lr 6.0e-04  |g| 0.83  4.1 ms  99.8k tok/s  MFU 41.7%  1h01m");
}

TEST_CASE("console: elsewhere plain lines, at most one a second, but every validation and the last step") {
    char* text = nullptr;
    size_t size = 0;
    Console c;
    c.total_steps = 100;
    c.out = open_memstream(&text, &size);
    for (int step = 1; step <= 100; step++) {
        StepMetrics m = metrics(step);
        m.loss = 5;
        if (step == 50) m.val_loss = 1.25;
        console_step(c, m, 10, 100, 1);
    }
    console_message(c, "done");
    fflush(c.out);
    const std::string out(text, size);
    CHECK(has(out, "step   1/100"));
    CHECK(has(out, "step  50/100"));
    CHECK(has(out, "val 1.250"));
    CHECK(has(out, "step 100/100"));
    CHECK(has(out, "\ndone\n"));
    CHECK(has(out, "loss 5.000"));               // the mean has no bias towards zero at its start
    CHECK(out.find('\r') == std::string::npos);
    CHECK(std::count(out.begin(), out.end(), '\n') <= 5);
    c.quiet = true;
    console_step(c, metrics(100), 10, 100, 1);
    console_close(c);
    fflush(c.out);
    CHECK(std::string(text, size) == out);
    fclose(c.out);
    free(text);
}

TEST_CASE("console: on a terminal one line, rewritten, never wider than the terminal") {
    char* text = nullptr;
    size_t size = 0;
    Console c;
    c.total_steps = 100;
    c.tty = true;
    c.out = open_memstream(&text, &size);        // has no width: taken as 80 columns
    StepMetrics m = metrics(1);
    m.grad_norm = m.mfu = m.val_loss = 1, m.tokens_per_second = 1e6;
    console_step(c, m, 10, 100, 1);
    m.step = 100;
    console_step(c, m, 10, 100, 1);
    console_message(c, "saved");
    fclose(c.out);
    const std::string out(text, size);
    free(text);
    const size_t second = out.find('\r', 1);
    CHECK(out[0] == '\r');
    CHECK(second == 80);                         // 1 + 79 columns
    CHECK(std::count(out.begin(), out.end(), '\n') == 1);
    CHECK(out.ends_with("\rsaved\n"));
}

TEST_CASE("human-readable quantities") {
    CHECK(human_count(0) == "0");
    CHECK(human_count(999) == "999");
    CHECK(human_count(999.7) == "1.0k");
    CHECK(human_count(99'800) == "99.8k");
    CHECK(human_count(999'949) == "999.9k");
    CHECK(human_count(999'999) == "1.0M");
    CHECK(human_count(12'345'678) == "12.3M");
    CHECK(human_bytes(1023) == "1023 B");
    CHECK(human_bytes(1.2 * 1024 * 1024 * 1024) == "1.2 GiB");
    CHECK(human_bytes(1024 * 1024 - 1) == "1.0 MiB");
    CHECK(human_time(12.3) == "0m12s");
    CHECK(human_time(65) == "1m05s");
    CHECK(human_time(59.7) == "1m00s");
    CHECK(human_time(3599.9) == "1h00m");
    CHECK(human_time(3 * 3600 + 60) == "3h01m");
    CHECK(human_time(50 * 3600) == "2d02h");
    CHECK(human_time(NAN) == "?");
    CHECK(human_time(-1) == "?");
}
