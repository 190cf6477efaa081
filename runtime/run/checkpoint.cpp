// The checkpoint protocol of checkpoint.h: what is visible under its final name is complete and durable.
// Not for deciding what goes into a checkpoint, or whether it fits the model: that is up to the caller.
#include "runtime/run/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "runtime/run/crash_point.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "runtime/run/rundir.h"

namespace fs = std::filesystem;
using nlohmann::json;

static constexpr const char* FILES[] = {"model.safetensors", "optimizer.safetensors", "state.json"};
static constexpr uint64_t STATE_MAX_BYTES = 64 << 20, MANIFEST_MAX_BYTES = 64 << 20;
static constexpr int MANIFEST_FORMAT = 1;

static std::string checkpoints_dir(const std::string& run_dir) { return run_dir + "/checkpoints"; }

static std::string saved_mark(const std::string& run_dir) { return run_dir + "/saved"; }

// "step-00000120" -> 120; -1 for anything else ("step-00000120.tmp", "latest").
static int64_t step_of_name(const std::string& name) {
    int64_t step = -1;
    if (!name.starts_with("step-")) return -1;
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    return error == std::errc() && end == name.data() + name.size() ? step : -1;
}

int64_t step_of_checkpoint(const std::string& dir) { return step_of_name(fs::path(dir).filename()); }

static std::vector<std::pair<int64_t, std::string>> list_checkpoints(const std::string& dir) {       // newest first
    std::vector<std::pair<int64_t, std::string>> found;
    if (!fs::is_directory(dir)) return found;
    for (const auto& entry : fs::directory_iterator(dir)) {
        const int64_t step = step_of_name(entry.path().filename());
        if (step >= 0 && entry.is_directory()) found.emplace_back(step, entry.path());
    }
    std::sort(found.rbegin(), found.rend());
    return found;
}

// A folder is renamed before it is emptied: a kill in between leaves a .tmp, never half a checkpoint.
static void remove_checkpoint(const std::string& path) {
    const std::string tmp = path + ".tmp";
    fs::remove_all(tmp);
    fs::rename(path, tmp);
    fs::remove_all(tmp);
}

// ---- saving

// Gives the finished folder its name. There may already be a checkpoint of this step (a damaged one, from before a
// fallback): then the two are exchanged atomically, so that once a whole one has had the name, a whole one always has it.
static void publish(const std::string& tmp, const std::string& final_dir) {
    crash_point("before-publish");
    if (!fs::exists(final_dir)) {
        fs::rename(tmp, final_dir);
    } else if (renameat2(AT_FDCWD, tmp.c_str(), AT_FDCWD, final_dir.c_str(), RENAME_EXCHANGE) == 0) {
        fs::remove_all(tmp);                 // the old one now
    } else {                                 // a file system that cannot exchange (NFS): for a moment the step has no name
        const std::string old = final_dir + ".old.tmp";
        fs::rename(final_dir, old);
        fs::rename(tmp, final_dir);
        fs::remove_all(old);
    }
    crash_point("after-publish");
    fsync_folder(parent_folder(final_dir));
}

static json write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors, int64_t step) {
    std::map<std::string, std::string> hashes;
    const std::string hash = safetensors_write(path, tensors, {{"format", "pt"}, {"step", std::to_string(step)}}, &hashes);
    return {{"bytes", fs::file_size(path)}, {"xxh3_128", hash}, {"tensors", hashes}};
}

// Everything into `tmp`, durable when this returns.
static void write_folder(const std::string& tmp, int64_t step, const std::vector<TensorToWrite>& model,
                         const std::vector<TensorToWrite>& optimizer, const std::string& state_json) {
    fs::create_directory(tmp);
    json files;
    files[FILES[0]] = write_safetensors(tmp + "/" + FILES[0], model, step);
    files[FILES[1]] = write_safetensors(tmp + "/" + FILES[1], optimizer, step);
    files[FILES[2]] = {{"bytes", state_json.size()}, {"xxh3_128", file_write(tmp + "/" + FILES[2], state_json)}};
    json manifest = {{"format", MANIFEST_FORMAT}, {"step", step}, {"files", files}};
    manifest["manifest"] = hash_hex(manifest.dump());       // of itself, so that damage to it is not blamed on the files it lists
    file_write(tmp + "/manifest.json", manifest.dump(1) + "\n");
    fsync_folder(tmp);
}

std::string checkpoint_save(const CheckpointWriter& w, int64_t step, const std::vector<TensorToWrite>& model,
                            const std::vector<TensorToWrite>& optimizer, const std::string& state_json) {
    ensure(w.keep >= 1 && step >= 0, "checkpoint: step %lld, keep %d", (long long)step, w.keep);
    const std::string dir = checkpoints_dir(w.run_dir), name = format("step-%08lld", (long long)step), tmp = dir + "/" + name + ".tmp";
    if (fs::create_directories(dir)) fsync_folder(w.run_dir);
    // We hold the run's lock, so temporary files here belong to a process that died.
    std::vector<fs::path> leftovers;
    for (const auto& entry : fs::directory_iterator(dir))
        if (entry.path().extension() == ".tmp") leftovers.push_back(entry.path());
    for (const fs::path& path : leftovers) fs::remove_all(path);

    uint64_t needed = state_json.size();
    for (const auto* tensors : {&model, &optimizer})
        for (const TensorToWrite& t : *tensors) needed += tensor_bytes(t) + 256;      // 256: its line in header and manifest
    try {
        write_folder(tmp, step, model, optimizer, state_json);
        publish(tmp, dir + "/" + name);
    } catch (const std::exception& e) {
        std::error_code ignored;
        fs::remove_all(tmp, ignored);
        const bool disk = dynamic_cast<const WriteError*>(&e) || dynamic_cast<const fs::filesystem_error*>(&e);
        const std::string space =
            !disk ? ""
                  : format("; it needs about %s (%llu bytes), %s (%llu bytes) are free",
                           human_bytes(double(needed)).c_str(), (unsigned long long)needed,
                           human_bytes(double(free_bytes(dir))).c_str(), (unsigned long long)free_bytes(dir));
        fail("checkpoint of step %lld not saved: %s%s; older checkpoints are untouched", (long long)step,
             error_text(e).c_str(), space.c_str());
    }
    crash_point("before-latest");
    file_replace(dir + "/latest", name + "\n");
    crash_point("after-latest");
    // From now on a folder without any checkpoint means that they were lost, not that the run is young. Written once, now.
    if (!file_exists(saved_mark(w.run_dir)))
        file_replace(saved_mark(w.run_dir), "a checkpoint of this run was saved: --resume needs one\n");

    // Later steps can only be damaged ones that the run fell back from. They do not count as kept, and are not ours to delete.
    crash_point("before-prune");
    int kept = 0;
    for (const auto& [old_step, path] : list_checkpoints(dir))
        if (old_step <= step && ++kept > w.keep) remove_checkpoint(path);
    crash_point("after-prune");
    return dir + "/" + name;
}

// ---- reading

static std::string hash_range(const std::string& path, uint64_t begin, uint64_t end) {
    const int fd = open_to_read(path);
    Hasher hash;
    std::vector<char> buffer(4 << 20);
    try {
        for (uint64_t at = begin; at < end; at += buffer.size()) {
            const size_t bytes = size_t(std::min<uint64_t>(buffer.size(), end - at));
            pread_fully(fd, buffer.data(), bytes, at, path);
            hash.add(buffer.data(), bytes);
        }
    } catch (...) {
        close(fd);
        throw;
    }
    close(fd);
    return hash.hex();
}

// Which part of the file is damaged, as far as its header can still be read.
static std::string damaged_part(const std::string& path, const json& tensor_hashes) {
    try {
        const SafetensorsFile f = safetensors_open(path);
        for (const TensorInfo& t : f.tensors) {
            if (!tensor_hashes.contains(t.name)) break;
            if (hash_range(path, f.data_start + t.begin, f.data_start + t.end) != tensor_hashes[t.name].get<std::string>())
                return "tensor '" + printable(t.name) + "'";
        }
    } catch (const Error&) {
    }
    return "its header";
}

std::string checkpoint_verify(const std::string& dir) {
    const int64_t step = step_of_checkpoint(dir);
    const std::string where = dir + "/manifest.json";
    json manifest = json_parse(file_read(where, MANIFEST_MAX_BYTES), where, {4, 100'000, 1'000'000});
    try {
        const std::string own_hash = manifest.at("manifest");
        manifest.erase("manifest");
        ensure(hash_hex(manifest.dump()) == own_hash, "%s: wrong checksum, the manifest itself is damaged", where.c_str());
        ensure(manifest.at("format") == MANIFEST_FORMAT, "%s: format %s, this program reads %d", where.c_str(),
               manifest.at("format").dump().c_str(), MANIFEST_FORMAT);
        ensure(step < 0 || manifest.at("step") == step, "%s: step %s does not fit the folder's name", where.c_str(),
               manifest.at("step").dump().c_str());
        for (const char* name : FILES) {
            const json& expected = manifest.at("files").at(name);
            const std::string path = dir + "/" + name;
            std::error_code error;
            const uint64_t bytes = fs::file_size(path, error);
            ensure(!error, "%s: %s", path.c_str(), error.message().c_str());
            ensure(expected.at("bytes") == bytes, "%s: %llu bytes, the manifest says %s", path.c_str(), (unsigned long long)bytes,
                   expected.at("bytes").dump().c_str());
            if (hash_range(path, 0, bytes) == expected.at("xxh3_128").get<std::string>()) continue;
            const std::string part = expected.contains("tensors") ? damaged_part(path, expected["tensors"]) : "its text";
            fail("%s: wrong checksum, %s is damaged", path.c_str(), part.c_str());
        }
    } catch (const json::exception& e) {
        fail("%s: %s; not a manifest of this program", where.c_str(), json_reason(e).c_str());
    }
    return file_read(dir + "/state.json", STATE_MAX_BYTES);
}

CheckpointFound checkpoint_find(const std::string& run_dir) {
    const auto candidates = list_checkpoints(checkpoints_dir(run_dir));
    for (const auto& [step, dir] : candidates) {
        try {
            return {dir, step, checkpoint_verify(dir)};
        } catch (const Error& e) {
            fprintf(stderr, "checkpoint of step %lld is not used: %s\n", (long long)step, e.what());
        }
    }
    ensure(candidates.empty(), "%s: none of the %zu checkpoints can be used; start again with --overwrite, or restore a copy",
           checkpoints_dir(run_dir).c_str(), candidates.size());
    ensure_usage(!file_exists(saved_mark(run_dir)),
                 "%s: the checkpoints are gone, though at least one was saved; put them back, "
                 "or start again with --overwrite",
                 checkpoints_dir(run_dir).c_str());
    return {};
}

CheckpointFound checkpoint_at(const std::string& path) {
    if (file_exists(path + "/state.json")) return {path, step_of_checkpoint(path), checkpoint_verify(path)};
    return checkpoint_find(path);
}
