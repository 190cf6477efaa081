// build/inspect: what is in a checkpoint, and where two of them differ.
//   inspect [--json] CHECKPOINT_OR_RUN     configuration, every tensor's shape, norm, mean, range, checksum; is the manifest right
//   inspect [--json] A B                   tensor by tensor: differing elements, largest difference
// Each argument is a run's folder (its newest whole checkpoint), a checkpoint's folder or a .safetensors file.
// Exit codes: 0 whole (equal), 1 damaged or not readable (different), 2 wrong usage.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "runtime/run/inspect.h"
#include "runtime/run/rundir.h"

using json = nlohmann::ordered_json;

static json number(double x) { return std::isfinite(x) ? json(x) : json(nullptr); }

// The options as a command line, 120 columns.
static void print_options(const json& options) {
    std::string line = " ";
    for (const auto& [key, value] : options.items()) {
        if (value == "" || value == false) continue;
        std::string name = key;
        for (char& c : name) if (c == '_') c = '-';
        const std::string word = " --" + name + (value == true ? "" : " " + value.dump());
        if (line.size() + word.size() > 118) printf("%s\n", line.c_str()), line = " ";
        line += word;
    }
    printf("%s\n", line.c_str());
}

static void print_configuration(const json& state) {
    printf("step %s, %s samples, best validation loss %s\n", state.value("step", json()).dump().c_str(),
           state.value("samples", json()).dump().c_str(), state.value("best_val_loss", json()).dump().c_str());
    if (!state.contains("run")) return;
    const json& run = state["run"];
    printf("attention %s, norm %s, MLP %s, %s parameters; commit %s, %s\n", run.value("attn", "?").c_str(),
           run.value("norm", "layernorm").c_str(), run.value("mlp", "gelu").c_str(),
           human_count(run["model"].value("parameters", 0.0)).c_str(), run["build"].value("commit", "?").c_str(),
           run["build"].value("flags", "?").c_str());
    print_options(run.value("options", json::object()));
}

static int show(const std::string& path, bool as_json) {
    const InspectSource s = inspect_open(path);
    json tensors = json::array();
    if (!as_json) {
        printf("%s: %s\n", s.path.c_str(),
               !s.problem.empty() ? s.problem.c_str()
               : s.has_manifest   ? "whole, all checksums are right"
                                  : "no manifest, not verified");
        if (!s.state_json.empty()) print_configuration(json::parse(s.state_json));
        printf("\n%-36s %-5s %-14s %11s %11s %11s %11s  %s\n", "tensor", "dtype", "shape", "norm", "mean", "min", "max", "xxh3-128");
    }
    uint64_t not_finite = 0;
    for (const SafetensorsFile& f : s.files)
        for (const TensorInfo& t : f.tensors) {
            const TensorStats v = inspect_tensor(f, t);
            not_finite += v.not_finite;
            if (as_json) {
                tensors.push_back({{"name", v.name}, {"dtype", v.dtype}, {"shape", v.shape}, {"norm", number(v.norm)},
                                   {"mean", number(v.mean)}, {"min", number(v.min)}, {"max", number(v.max)},
                                   {"not_finite", v.not_finite}, {"xxh3_128", v.checksum}});
            } else {
                printf("%-36s %-5s %-14s %11.4g %11.3g %11.4g %11.4g  %s", printable(v.name).c_str(), v.dtype.c_str(),
                       shape_text(v.shape).c_str(), v.norm, v.mean, v.min, v.max, v.checksum.c_str());
                printf(v.not_finite ? "  %llu NOT FINITE\n" : "\n", (unsigned long long)v.not_finite);
            }
        }
    if (as_json) {
        json j = {{"path", s.path}, {"verified", s.has_manifest && s.problem.empty()}, {"problem", s.problem},
                  {"not_finite", not_finite}, {"tensors", tensors}};
        if (!s.state_json.empty()) j["state"] = json::parse(s.state_json);
        printf("%s\n", j.dump(1, ' ', true, json::error_handler_t::replace).c_str());
    }
    return s.problem.empty() ? EXIT_DONE : EXIT_FAILED;
}

static int compare(const std::string& path_a, const std::string& path_b, bool as_json) {
    const InspectSource a = inspect_open(path_a), b = inspect_open(path_b);
    json rows = json::array();
    size_t unequal = 0;
    const std::vector<TensorDifference> differences = inspect_compare(a, b);
    if (!as_json)
        printf("A %s%s\nB %s%s\n\n", a.path.c_str(), a.problem.empty() ? "" : " (damaged)", b.path.c_str(),
               b.problem.empty() ? "" : " (damaged)");
    for (const TensorDifference& d : differences) {
        const bool equal = d.problem.empty() && d.differing == 0;
        unequal += !equal;
        if (as_json) {
            rows.push_back({{"name", d.name}, {"equal", equal}, {"problem", d.problem}, {"elements", d.elements},
                            {"differing", d.differing}, {"max_abs_difference", number(d.max_abs_difference)}});
        } else if (!equal) {
            if (d.problem.empty())
                printf("%-36s %llu of %llu elements differ, by at most %.4g\n", printable(d.name).c_str(),
                       (unsigned long long)d.differing, (unsigned long long)d.elements, d.max_abs_difference);
            else printf("%-36s %s\n", printable(d.name).c_str(), d.problem.c_str());
        }
    }
    if (as_json)
        printf("%s\n", json({{"a", a.path}, {"b", b.path}, {"equal", unequal == 0}, {"tensors", rows}})
                           .dump(1, ' ', true, json::error_handler_t::replace)
                           .c_str());
    else if (unequal) printf("\n%zu of %zu tensors differ\n", unequal, differences.size());
    else printf("all %zu tensors are equal, bit for bit\n", differences.size());
    return unequal ? EXIT_FAILED : EXIT_DONE;
}

int main(int argc, char** argv) {
    bool as_json = false;
    std::vector<std::string> paths;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) as_json = true;
        else paths.push_back(argv[i]);
    }
    const bool help = paths.size() == 1 && (paths[0] == "--help" || paths[0] == "-h");
    if (help || paths.empty() || paths.size() > 2 || paths[0].starts_with("--")) {
        fprintf(help ? stdout : stderr,
                "inspect [--json] CHECKPOINT_OR_RUN    configuration, tensors, checksums\n"
                "inspect [--json] A B                  where two checkpoints differ; "
                "exit code 0 equal, 1 different, 2 wrong usage\n");
        return help ? EXIT_DONE : EXIT_USAGE;
    }
    try {
        return paths.size() == 1 ? show(paths[0], as_json) : compare(paths[0], paths[1], as_json);
    } catch (const std::exception& e) {
        fprintf(stderr, "error: %s\n", error_text(e).c_str());
        return EXIT_FAILED;
    }
}
