// See records.h.
#include "tools/compare/records.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tools/compare/jobs.h"

namespace fs = std::filesystem;

// Lines with a validation loss, and the first step's, of metrics.jsonl.
static std::string thinned_json_lines(const std::string& path) {
    std::ifstream file(path);
    std::string line, kept;
    while (std::getline(file, line)) {
        const nlohmann::json m = nlohmann::json::parse(line, nullptr, false);
        if (m.is_object() && m.contains("val_loss") && m["val_loss"].is_number()) kept += line + "\n";
    }
    return kept;
}
// The same of metrics.csv: the header, and lines whose val_loss is not empty.
static std::string thinned_csv(const std::string& path) {
    std::ifstream file(path);
    std::string line, kept;
    size_t column = SIZE_MAX;
    while (std::getline(file, line)) {
        std::vector<std::string> cells;
        for (size_t begin = 0; begin <= line.size();) {
            const size_t end = std::min(line.find(',', begin), line.size());
            cells.push_back(line.substr(begin, end - begin));
            begin = end + 1;
        }
        if (column == SIZE_MAX) {
            for (size_t i = 0; i < cells.size(); i++)
                if (cells[i] == "val_loss") column = i;
            kept += line + "\n";
        } else if (column < cells.size() && !cells[column].empty()) {
            kept += line + "\n";
        }
    }
    return kept;
}

void keep_record(const Job& job) {
    if (job.record.empty()) return;
    const std::string run = job.folder + "/" + job.run, folder = job.record;
    fs::create_directories(folder);
    if (file_exists(run + "/metrics.jsonl")) file_replace(folder + "/metrics.jsonl", thinned_json_lines(run + "/metrics.jsonl"));
    if (file_exists(run + "/metrics.csv")) file_replace(folder + "/metrics.csv", thinned_csv(run + "/metrics.csv"));
    for (const char* name : {"config.json", "val_sequences.f32"})
        if (file_exists(run + "/" + name)) file_replace(folder + "/" + name, file_read(run + "/" + name, 64 << 20));
    file_replace(folder + "/signature", job.signature + "\n");       // last: a record with a signature is whole
}

void fetch_record(const Job& job) {
    const std::string folder = job.record, run = job.folder + "/" + job.run;
    if (folder.empty() || !file_exists(folder + "/signature")) return;
    if (file_read(folder + "/signature", 1 << 20) != job.signature + "\n") return;
    fs::create_directories(run);
    for (const auto& entry : fs::directory_iterator(folder))
        if (entry.path().filename() != "signature") fs::copy_file(entry.path(), run + "/" + entry.path().filename().string(), fs::copy_options::overwrite_existing);
    fs::create_directories(job.folder + "/state");
    file_replace(job.folder + "/state/" + job.run, "done\n" + job.signature + "\n");
}
