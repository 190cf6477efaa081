// A model in a checkpoint: weights and both moments, each tensor by its name in the parameter table. Rank 0 writes,
// asking the owners for their pieces. Every rank reads what it holds, however many ranks wrote the checkpoint.
#pragma once
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "model/gpt.h"
#include "runtime/run/checkpoint.h"
#include "runtime/run/files.h"
#include "runtime/run/progress.h"
#include "runtime/run/safetensors.h"

inline constexpr const char* STATE_DTYPE = sizeof(floatM) == 8 ? "F64" : "F32";

// The three kinds of state in a checkpoint. When they are divided among the ranks, each holds its ranges (owned_ranges).
enum StateKind { WEIGHTS, MOMENT1, MOMENT2 };
inline const char* state_prefix(int kind) { return kind == WEIGHTS ? "" : kind == MOMENT1 ? "moment1." : "moment2."; }
inline floatM* state_of(const GPT& g, int kind) {
    if (kind != WEIGHTS) return kind == MOMENT1 ? g.moment1 : g.moment2;
    // Without a master copy the weights have the same type, and every rank has all of them.
    return g.master ? g.master : reinterpret_cast<floatM*>(g.weights);
}

// Elements [begin, end) of the state, from the ranks that have them.
inline void read_state(const GPT& g, int kind, size_t begin, size_t end, floatM* out) {
    const floatM* mine = state_of(g, kind);
    if (kind == WEIGHTS && !g.master) {
        copy_to_host(out, mine + begin, (end - begin) * sizeof(floatM));
        return;
    }
    for (const Owned& o : owned_ranges(g, begin, end)) {
        const size_t bytes = (o.end - o.begin) * sizeof(floatM);
        if (o.owner == comm_rank()) copy_to_host(out + (o.begin - begin), mine + o.state, bytes);
        else comm_fetch(o.owner, kind, o.state * sizeof(floatM), bytes, out + (o.begin - begin));
    }
}

// A model that holds NaN or infinity is never saved.
inline void ensure_finite(const floatM* first, const floatM* last, const std::string& tensor, size_t index) {
    floatM sum = 0;                                                          // x - x is 0, or NaN when x is not finite; a sum vectorises
#pragma omp simd reduction(+ : sum)
    for (const floatM* x = first; x < last; x++) sum += *x - *x;
    if (sum == 0) return;
    const floatM* bad = std::find_if(first, last, [](floatM x) { return !std::isfinite(x); });
    fail("tensor %s holds %g at element %zu: training diverged, a lower --lr may help", tensor.c_str(), double(*bad),
         index + size_t(bad - first));
}

inline std::vector<TensorToWrite> tensors_of(const GPT& g, int kind) {
    std::vector<TensorToWrite> list;
    for (const Param& p : g.params) {
        if (p.size == 0) continue;
        auto fill = [&g, &p, kind](uint64_t offset, size_t bytes, void* out) {
            const size_t index = size_t(offset) / sizeof(floatM), n = bytes / sizeof(floatM);
            floatM* values = static_cast<floatM*>(out);
            read_state(g, kind, p.offset + index, p.offset + index + n, values);
            ensure_finite(values, values + n, p.spec.name, index);
        };
        list.push_back({state_prefix(kind) + p.spec.name, STATE_DTYPE, p.spec.shape, fill});
    }
    return list;
}

// Saves; all ranks call it. Returns the checkpoint's folder on rank 0, "" elsewhere. The logs are written first: a
// checkpoint must not be ahead of them. If rank 0 cannot write, all ranks throw its error.
inline std::string save_checkpoint(RunDir& run, int keep, GPT& g, const Progress& at, const std::string& description) {
    gpt_wait_for_weights(g);
    if (comm_rank() != 0) {
        const std::string error = comm_serve([&](int kind, uint64_t offset, size_t bytes, void* out) {
            copy_to_host(out, reinterpret_cast<const char*>(state_of(g, kind)) + offset, bytes);
        });
        if (!error.empty()) throw AgreedError(EXIT_FAILED, error);
        return "";
    }
    std::string dir;
    try {
        rundir_sync(run);
        std::vector<TensorToWrite> optimizer = tensors_of(g, MOMENT1), second = tensors_of(g, MOMENT2);
        optimizer.insert(optimizer.end(), second.begin(), second.end());
        dir = checkpoint_save({run.dir, keep}, at.step, tensors_of(g, WEIGHTS), optimizer, progress_to_json(at, description));
    } catch (const std::exception& e) {
        comm_serve_end(error_text(e));
        throw AgreedError(EXIT_FAILED, error_text(e));
    }
    comm_serve_end("");
    return dir;
}

inline double checkpoint_bytes(const std::string& dir) {
    return double(std::filesystem::file_size(dir + "/model.safetensors") + std::filesystem::file_size(dir + "/optimizer.safetensors"));
}

// Each tensor of the file must be one of the model's: otherwise it would be dropped without a message.
inline void ensure_all_known(const GPT& g, const SafetensorsFile& f, const std::vector<int>& kinds) {
    for (const TensorInfo& t : f.tensors) {
        bool known = false;
        for (const Param& p : g.params)
            for (int kind : kinds) known |= p.size > 0 && t.name == state_prefix(kind) + p.spec.name;
        ensure(known, "%s: tensor %s is none of this model's; the checkpoint is of another model", f.path.c_str(),
               printable(t.name).c_str());
    }
}

// rounding: how the last of `updates` updates rounded the weights that the kernels read; the file has the master copy alone.
inline void restore_tensors(GPT& g, const SafetensorsFile& f, int kind, Rounding rounding = {}, int64_t updates = 0) {
    const std::string& path = f.path;
    std::vector<floatM> host;
    for (const Param& p : g.params) {
        if (p.size == 0) continue;
        const std::string name = state_prefix(kind) + p.spec.name;
        const TensorInfo* t = f.find(name);
        ensure(t, "%s: tensor %s is missing; the checkpoint is of another model", path.c_str(), name.c_str());
        ensure(t->shape == p.spec.shape && t->dtype == STATE_DTYPE,
               "%s: tensor %s has another shape or type than this model's", path.c_str(), name.c_str());
        if (kind == WEIGHTS) {                                               // all of them, for the kernels
            host.resize(p.size);
            safetensors_read(f, *t, host.data());
            rounding.stream = rng_stream(p.spec.name) + uint64_t(updates);   // as gpt_adamw has it
            set_weights(g, p, host, rounding);
            continue;
        }
        for (const Owned& o : owned_ranges(g, p.offset, p.offset + p.size)) {
            if (o.owner != comm_rank()) continue;
            host.resize(o.end - o.begin);
            safetensors_read_range(f, *t, (o.begin - p.offset) * sizeof(floatM), host.size() * sizeof(floatM), host.data());
            copy_to_device(state_of(g, kind) + o.state, host.data(), host.size() * sizeof(floatM));
        }
    }
}

// sequences: samples of one step. rounding: the run's (stream and first are filled in here).
inline Progress restore_checkpoint(GPT& g, const CheckpointFound& found, int64_t sequences, Rounding rounding) {
    const Progress at = progress_from_json(found.state_json, found.step, uint64_t(sequences), found.dir + "/state.json");
    const SafetensorsFile weights = safetensors_open(found.dir + "/model.safetensors"),
                          moments = safetensors_open(found.dir + "/optimizer.safetensors");
    ensure_all_known(g, weights, {WEIGHTS});
    ensure_all_known(g, moments, {MOMENT1, MOMENT2});
    const int64_t updates = at.step - at.skipped;
    rounding.stochastic = rounding.stochastic && updates > 0;                // first weights are rounded to nearest
    restore_tensors(g, weights, WEIGHTS, rounding, updates);
    restore_tensors(g, moments, MOMENT1);
    restore_tensors(g, moments, MOMENT2);
    return at;
}
