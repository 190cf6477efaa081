// A run's description as JSON, and comparing two; see description.h.
#include "runtime/run/description.h"

#include <nlohmann/json.hpp>

#include "runtime/run/build_info.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"

using json = nlohmann::ordered_json;

std::string describe_run(const RunFacts& f, const Options& o) {
    const BuildInfo build = build_info();
    json j;
    j["attn"] = o.program.attn;
    j["norm"] = o.program.norm;
    j["mlp"] = o.program.mlp;
    j["options"] = json::parse(options_to_json(o));
    j["model"] = {{"parameters", f.parameters},
                  {"parameters_non_embedding", f.parameters_non_embedding},
                  {"cache_bytes_per_token", f.cache_bytes_per_token},
                  {"flops_per_token", f.flops_per_token},
                  {"flops_per_token_causal", f.flops_per_token_causal}};
    for (const auto& [name, value] : f.sizes) j["model"][name] = value;
    j["build"] = {{"backend", f.backend}, {"precision", f.precision}, {"commit", build.commit},
                  {"compiler", build.compiler}, {"flags", build.flags}};
    j["machine"] = {{"cpu", f.cpu}, {"threads", f.threads}, {"ranks", f.ranks}, {"communication", f.communication}};
    j["data"] = {{"train_tokens", f.train_tokens},
                 {"val_tokens", f.val_tokens},
                 {"train_fingerprint", f.train_fingerprint},
                 {"val_fingerprint", f.val_fingerprint},
                 {"tokenizer_fingerprint", f.tokenizer_fingerprint}};
    return j.dump(2);
}

// A description from a file, which may hold anything: checks that what we look into is an object, and names what is not.
static json parsed_description(const std::string& text, const std::string& where) {
    const json j = json::parse(json_parse(text, where).dump());
    ensure(j.is_object(), "%s: is not a JSON object", where.c_str());
    for (const char* part : {"options", "model", "build", "machine", "data"})
        ensure(!j.contains(part) || j[part].is_object(), "%s: \"%s\" is not an object", where.c_str(), part);
    return j;
}
static std::string told_whole(const json& value) { return value.dump(-1, ' ', true, json::error_handler_t::replace); }
// The value of part.key in `j`, as JSON text; "?" if there is none.
static std::string told(const json& j, const char* part, const char* key) {
    return j.contains(part) && j[part].contains(key) ? told_whole(j[part][key]) : "?";
}

std::string tokenizer_described(const std::string& description, const std::string& where) {
    const json j = parsed_description(description, where);
    if (!j.contains("data") || !j["data"].contains("tokenizer_fingerprint")) return "";
    const json& value = j["data"]["tokenizer_fingerprint"];
    return value.is_string() ? value.get<std::string>() : told_whole(value);
}

void check_same_run(const std::string& old_description, const std::string& now_description, const Options& o, int ranks,
                    const std::string& where, int64_t done) {
    const json old = parsed_description(old_description, where), now = json::parse(now_description);
    const std::string old_ranks = told(old, "machine", "ranks");
    const bool same_ranks = old_ranks == "?" ? ranks == 1 : old_ranks == std::to_string(ranks);
    std::vector<std::string> differ = options_conflicts(old_description, o, ranks, same_ranks, where, done);
    auto compare = [&](const char* part, const char* key) {
        const std::string was = told(old, part, key), is = told(now, part, key);
        if (was != is) differ.push_back(std::string(part) + "." + key + ": " + printable(was) + " -> " + is);
    };
    const Program plain;                                     // (older runs name no norm and no MLP)
    for (const auto& [choice, if_missing] : {std::pair{"attn", "?"}, {"norm", plain.norm}, {"mlp", plain.mlp}}) {
        const std::string was = !old.contains(choice)     ? if_missing
                                : old[choice].is_string() ? old[choice].get<std::string>()
                                                          : told_whole(old[choice]);
        const std::string is = now[choice].get<std::string>();
        if (was != is) differ.push_back(std::string(choice) + ": " + printable(was) + " -> " + is);
    }
    for (const char* key : {"backend", "precision", "flags"}) compare("build", key);
    for (const char* key : {"train_fingerprint", "val_fingerprint", "tokenizer_fingerprint"}) compare("data", key);
    std::string list;
    for (const std::string& s : differ) list += (list.empty() ? "" : ", ") + s;
    ensure_usage(differ.empty(), "%s: cannot resume a different run (%s); give another --run, or put these back",
                 where.c_str(), list.c_str());
}

void check_same_as_rank_0(const std::string& rank_0, const std::string& mine_text) {
    json first = json::parse(rank_0), mine = json::parse(mine_text);
    for (json* j : {&first, &mine}) {
        j->erase("machine");
        (*j)["build"].erase("commit");
        (*j)["build"].erase("compiler");
    }
    std::string list;
    for (const auto& [part, value] : mine.items()) {
        if (!value.is_object() && first[part] != value) list += " " + part + ": " + first[part].dump() + " -> " + value.dump();
        if (!value.is_object()) continue;
        for (const auto& [key, x] : value.items())
            if (first[part][key] != x) list += " " + part + "." + key + ": " + first[part][key].dump() + " -> " + x.dump();
    }
    ensure_usage(list.empty(),
                 "differs from rank 0 (rank 0's -> this one's):%s; "
                 "start the same program with the same options and data everywhere",
                 list.c_str());
}

std::vector<std::string> rounding_notes(const std::string& old_description, const std::string& now_description, const Options& o) {
    const json old = parsed_description(old_description, "the checkpoint's state.json"), now = json::parse(now_description);
    std::vector<std::string> notes;
    for (const auto& [part, key] : {std::pair{"build", "commit"}, {"build", "compiler"}, {"machine", "cpu"}, {"machine", "ranks"}}) {
        const std::string was = told(old, part, key), is = told(now, part, key);
        if (was == is || was == "?") continue;
        if (std::string(key) == "ranks" && o.deterministic_ranks > 0) continue;
        notes.push_back(format("note: %s was %s and is %s: rounding may differ from a run that was not interrupted",
                               key, printable(was).c_str(), is.c_str()));
    }
    return notes;
}
