// A run's folder: lock, log files, trimming after a resume; see rundir.h. The console is in console.cpp, checkpoints in checkpoint.cpp.
#include "runtime/run/rundir.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <unistd.h>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "runtime/run/matmul_choices.h"

namespace fs = std::filesystem;

static constexpr const char* CSV_HEADER = "step,tokens,seconds,loss,val_loss,bits_per_byte,lr,grad_norm,tokens_per_second,mfu\n";
static constexpr uint64_t LOG_MAX_BYTES = uint64_t(4) << 30;

StepMetrics::StepMetrics() {
    loss = val_loss = bits_per_byte = accuracy = lr = grad_norm = tokens_per_second = mfu = mfu_causal =
        std::numeric_limits<double>::quiet_NaN();
}

RunDir::~RunDir() {
    if (jsonl) fclose(jsonl);
    if (csv) fclose(csv);
    if (lock_fd >= 0) close(lock_fd);        // releases the lock
}

// ---- opening

static bool looks_like_a_run(const std::string& dir) { return file_exists(dir + "/config.json") || file_exists(dir + "/metrics.jsonl"); }

// A folder with nothing but our lock file was left by a process that died at once: it counts as new.
static bool is_unused(const std::string& dir) {
    for (const auto& entry : fs::directory_iterator(dir))
        if (entry.path().filename() != "lock") return false;
    return true;
}

// False if another process holds the lock. The file is never deleted: else two processes could lock two files of one name.
static bool try_lock(RunDir& r, int flags) {
    const std::string path = r.dir + "/lock";
    r.lock_fd = open(path.c_str(), O_RDWR | O_CLOEXEC | flags, 0666);
    if (r.lock_fd < 0 && errno == ENOENT && !(flags & O_CREAT)) return true;
    ensure(r.lock_fd >= 0, "%s: %s", path.c_str(), strerror(errno));
    if (flock(r.lock_fd, LOCK_EX | LOCK_NB) == 0) return true;
    ensure(errno == EWOULDBLOCK, "%s: flock: %s", path.c_str(), strerror(errno));
    return false;
}

static FILE* open_log(const std::string& path, const char* header) {
    const int fd = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    ensure_written(fd >= 0, "%s: %s", path.c_str(), errno == ENXIO ? "is a pipe, not a regular file" : strerror(errno));
    FILE* f = fdopen(fd, "a");
    ensure(f, "%s: %s", path.c_str(), strerror(errno));
    if (fseek(f, 0, SEEK_END) == 0 && ftell(f) == 0) fputs(header, f), fflush(f);
    return f;
}

static void open_logs(RunDir& r) {
    r.jsonl = open_log(r.dir + "/metrics.jsonl", "");
    r.csv = open_log(r.dir + "/metrics.csv", CSV_HEADER);
}

void rundir_open(RunDir& r, const std::string& runs_dir, const std::string& name, bool resume, bool overwrite) {
    const bool has_control = std::any_of(name.begin(), name.end(), [](char c) { return uint8_t(c) < 32 || c == 127; });
    ensure_usage(!name.empty() && name.size() <= 200 && name[0] != '.' && name[0] != '-' &&
                     name.find('/') == std::string::npos && !has_control,
                 "--run: '%s' cannot name a run; it must not be empty, longer than 200 bytes, "
                 "begin with '.' or '-', or contain '/' or control characters",
                 printable(name).c_str());
    r.dir = runs_dir + "/" + name;
    const bool exists = fs::is_directory(r.dir);
    ensure(exists || !file_exists(r.dir), "%s: exists and is not a folder; remove it or choose another --run", r.dir.c_str());
    if (!exists) {
        fs::create_directories(r.dir);
        // a checkpoint is as durable as the way to it
        for (const std::string& folder : {r.dir, runs_dir, parent_folder(runs_dir)}) fsync_folder(folder);
    }
    // The lock comes first: a run that another process is working on is neither resumed nor overwritten. In a folder that
    // already exists, the lock file is not created before we know that the folder is a run.
    bool locked = try_lock(r, exists ? 0 : O_CREAT);
    if (locked && !is_unused(r.dir)) {
        ensure_usage(resume || overwrite,
                     "%s: this run exists; continue it with --resume, delete it with --overwrite, "
                     "or choose another --run",
                     r.dir.c_str());
        ensure_usage(looks_like_a_run(r.dir),
                     "%s: does not look like a run (no config.json, no metrics.jsonl); it is left alone, "
                     "choose another --run",
                     r.dir.c_str());
    }
    if (locked && r.lock_fd < 0) locked = try_lock(r, O_CREAT);
    if (!locked) {
        char owner[128] = {};
        if (pread(r.lock_fd, owner, sizeof owner - 1, 0) <= 0) strcpy(owner, "another process");
        fail("%s: in use by %s; wait for it, or choose another --run", r.dir.c_str(), printable(owner).c_str());
    }
    char host[64] = {};
    gethostname(host, sizeof host - 1);
    const std::string owner = format("process %d on %s", int(getpid()), host);
    if (ftruncate(r.lock_fd, 0) != 0 || pwrite(r.lock_fd, owner.data(), owner.size(), 0) < 0) {}   // only for the message above

    if (overwrite) {
        // What identifies a run is removed last, so that an interrupted removal can be repeated.
        for (const auto& entry : fs::directory_iterator(r.dir)) {
            const std::string file = entry.path().filename();
            if (file != "lock" && file != "config.json" && file != "metrics.jsonl") fs::remove_all(entry.path());
        }
        fs::remove(r.dir + "/metrics.jsonl");
        fs::remove(r.dir + "/config.json");
    }
    open_logs(r);
}

void rundir_write_config(RunDir& r, const std::string& json_text) { file_replace(r.dir + "/config.json", json_text + "\n"); }
static void write_floats(const std::string& path, const std::vector<float>& x) {
    if (!x.empty()) file_replace(path, {reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float)});
}
void rundir_write_losses(RunDir& r, const std::vector<float>& by_sequence, const std::vector<float>& by_position) {
    write_floats(r.dir + "/val_sequences.f32", by_sequence);
    write_floats(r.dir + "/val_positions.f32", by_position);
}

// ---- log lines

// The shortest text that reads back as the same double; "" when it is not finite.
static std::string shortest(double x) {
    char text[32];
    return std::isfinite(x) ? std::string(text, std::to_chars(text, text + sizeof text, x).ptr) : "";
}

static void append_line(FILE* f, const std::string& line, const std::string& path) {
    // One flush, so one write: a reader or a kill sees whole lines, at worst the last one cut.
    const bool ok = fwrite(line.data(), 1, line.size(), f) == line.size() && fflush(f) == 0;
    ensure(ok, "%s: writing: %s", path.c_str(), strerror(errno));
}

void rundir_log(RunDir& r, const StepMetrics& m) {
    const std::pair<const char*, double> values[] = {
        {"seconds", m.seconds}, {"loss", m.loss}, {"val_loss", m.val_loss}, {"bits_per_byte", m.bits_per_byte}, {"lr", m.lr},
        {"grad_norm", m.grad_norm}, {"tokens_per_second", m.tokens_per_second}, {"mfu", m.mfu}};
    std::string json = format("{\"step\":%lld,\"tokens\":%lld", (long long)m.step, (long long)m.tokens);
    std::string csv = format("%lld,%lld", (long long)m.step, (long long)m.tokens);
    for (const auto& [name, x] : values) {
        json += format(",\"%s\":%s", name, std::isfinite(x) ? shortest(x).c_str() : "null");
        csv += ',';
        csv += shortest(x);
    }
    if (std::isfinite(m.accuracy)) json += format(",\"accuracy\":%s", shortest(m.accuracy).c_str());
    append_line(r.jsonl, json + "}\n", r.dir + "/metrics.jsonl");
    append_line(r.csv, csv + "\n", r.dir + "/metrics.csv");
}

void rundir_sync(RunDir& r) {
    for (FILE* f : {r.jsonl, r.csv})
        ensure(fsync(fileno(f)) == 0, "%s: the logs cannot be written: fsync: %s", r.dir.c_str(), strerror(errno));
}

// The length in the title makes a section readable whatever the text contains.
void rundir_sample(RunDir& r, int64_t step, const std::string& text) {
    FILE* f = open_log(r.dir + "/samples.txt", "");
    try {
        append_line(f, format("=== step %lld, %zu bytes ===\n", (long long)step, text.size()) + text + "\n\n", r.dir + "/samples.txt");
    } catch (...) {
        fclose(f);
        throw;
    }
    fclose(f);
}

// ---- trimming: after a kill the logs may extend past the checkpoint, and their last line may be incomplete

static int64_t step_of_json(const std::string& line) {       // -1: not a line of ours
    const nlohmann::json j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_object() || !j.contains("step") || !j["step"].is_number_integer()) return -1;
    return j["step"].get<int64_t>();
}

static int64_t step_of_csv(const std::string& line) {
    if (std::count(line.begin(), line.end(), ',') != std::count(CSV_HEADER, CSV_HEADER + strlen(CSV_HEADER), ',')) return -1;
    int64_t step = -1;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), step);
    return error == std::errc() && *end == ',' ? step : -1;
}

// Keeps the whole lines with increasing steps up to last_step.
static std::string keep_lines(const std::string& text, int64_t last_step, int64_t (*step_of)(const std::string&)) {
    std::string kept;
    int64_t previous = -1;
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
        const std::string line = text.substr(begin, end - begin);
        const int64_t step = step_of(line);
        if (step > previous && step <= last_step) kept += line + "\n", previous = step;
    }
    return kept;
}

static std::string keep_samples(const std::string& text, int64_t last_step) {
    std::string kept;
    size_t begin = 0;
    for (;;) {
        const size_t end_of_title = text.find('\n', begin);
        if (end_of_title == std::string::npos) return kept;
        long long step;
        size_t bytes;
        if (sscanf(text.c_str() + begin, "=== step %lld, %zu bytes ===\n", &step, &bytes) != 2) return kept;
        if (text.size() - end_of_title < 3 || bytes > text.size() - end_of_title - 3) return kept;       // cut off
        const size_t end = end_of_title + 1 + bytes + 2;
        if (step <= last_step) kept += text.substr(begin, end - begin);
        begin = end;
    }
}

static std::string read_if_there(const std::string& path) { return file_exists(path) ? file_read(path, LOG_MAX_BYTES) : ""; }

void rundir_trim(RunDir& r, int64_t last_step) {
    if (r.jsonl) fclose(r.jsonl);
    if (r.csv) fclose(r.csv);
    r.jsonl = r.csv = nullptr;
    const std::string jsonl = r.dir + "/metrics.jsonl", csv = r.dir + "/metrics.csv", samples = r.dir + "/samples.txt";
    auto replace_if_changed = [](const std::string& path, const std::string& before, const std::string& after) {
        if (before != after) file_replace(path, after);
    };
    const std::string json_text = read_if_there(jsonl), csv_text = read_if_there(csv), sample_text = read_if_there(samples);
    replace_if_changed(jsonl, json_text, keep_lines(json_text, last_step, step_of_json));
    replace_if_changed(csv, csv_text, CSV_HEADER + keep_lines(csv_text, last_step, step_of_csv));
    replace_if_changed(samples, sample_text, keep_samples(sample_text, last_step));
    open_logs(r);
}

void rundir_take_logs(RunDir& r, const std::string& from) {
    if (r.jsonl) fclose(r.jsonl);
    if (r.csv) fclose(r.csv);
    r.jsonl = r.csv = nullptr;
    for (const char* log : {"/metrics.jsonl", "/metrics.csv", "/samples.txt"})
        if (file_exists(from + log)) file_replace(r.dir + log, read_if_there(from + log));
    matmul_choices_copy(r.dir, from);                        // its bits, too
    open_logs(r);
}
