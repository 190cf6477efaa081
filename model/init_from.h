// --init-from PATH: training begins with the weights of another run or checkpoint, for other data, more steps, another
// schedule, or another variant. Tensors with the same name and shape are taken over; everything else (the optimizer, the
// step, other tensors) begins as in any new run. The tokenizer must be the same, else a token's row would mean something
// else. Learned positions are taken as far as both contexts go. For GPT-2's weights, build/import makes a run first.
#pragma once
#include "model/load.h"
#include "model/open.h"
#include "runtime/run/description.h"
#include "runtime/run/files.h"
#include "runtime/run/rundir.h"

// Throws unless PATH is a checkpoint with the same tokenizer. Called before anything is written.
inline CheckpointFound init_from_checkpoint(const Options& o, const Data& d) {
    const std::string& path = o.init_from;
    const std::string ours = tokenizer_fingerprint(d.tokenizer);
    ensure_usage(!file_exists(path + "/model.safetensors") || file_exists(path + "/state.json"),
                 "--init-from %s: a folder for transformers; make a run of it first: build/import %s runs/NAME",
                 path.c_str(), path.c_str());
    const CheckpointFound found = checkpoint_of_option(path, "--init-from");
    const std::string where = found.dir + "/state.json";
    const std::string theirs = tokenizer_described(described_in(found.state_json, where), where);
    ensure_usage(theirs == ours,
                 "--init-from %s: it was trained with another tokenizer (%s) than --data has (%s); "
                 "encode the text with its tokenizer.json",
                 path.c_str(), theirs.empty() ? "none" : printable(theirs).c_str(), ours.c_str());
    return found;
}

// g: initialised. Every rank calls it and reads all weights, since its kernels need them. Returns what is kept and what
// is new, for the console.
inline std::string init_from(GPT& g, const CheckpointFound& found) {
    const SafetensorsFile f = safetensors_open(found.dir + "/model.safetensors");
    size_t kept_tensors = 0, tensors = 0, kept = 0, all = 0, new_tensors = 0;
    std::string new_names;
    for (const Param& p : g.params) {
        if (p.size == 0) continue;
        tensors++;
        all += p.size;
        const TensorInfo* t = f.find(p.spec.name);
        const bool longer_or_shorter = t && p.spec.name == "wpe.weight" && t->shape.size() == 2 && t->shape[1] == p.spec.shape[1];
        if (!t || (t->shape != p.spec.shape && !longer_or_shorter)) {
            if (new_tensors++ < 4) new_names += (new_names.empty() ? "" : ", ") + p.spec.name;
            continue;
        }
        const std::vector<floatM> read = read_floats(f, *t);
        std::vector<floatM> ours = get_weights(g, p);
        const size_t n = std::min(read.size(), ours.size());
        std::copy_n(read.begin(), n, ours.begin());
        set_weights(g, p, ours);
        kept_tensors++;
        kept += n;
    }
    ensure_usage(kept_tensors > 0, "--init-from %s: no tensor of it has a name and shape of this model's", found.dir.c_str());
    std::string text = format("weights from %s: %zu of %zu tensors, %s of %s parameters", found.dir.c_str(), kept_tensors, tensors,
                              human_count(double(kept)).c_str(), human_count(double(all)).c_str());
    if (new_tensors > 0) text += "; new: " + new_names + (new_tensors > 4 ? format(" and %zu more", new_tensors - 4) : "");
    return text;
}
