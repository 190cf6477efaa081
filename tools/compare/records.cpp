// See records.h.
#include "tools/compare/records.h"

#include <filesystem>

#include "runtime/run/files.h"
#include "tools/compare/jobs.h"
#include "tools/report/record.h"

namespace fs = std::filesystem;

void keep_record(const Job& job) {
    if (job.record.empty()) return;
    Problems problems;                                               // the report says them
    if (!write_record(job.folder + "/" + job.run, job.record, problems)) return;
    file_replace(job.record + "/signature", job.signature + "\n");   // last: a record with a signature is whole
}

void fetch_record(const Job& job) {
    const std::string folder = job.record, run = job.folder + "/" + job.run;
    if (folder.empty() || !file_exists(folder + "/signature")) return;
    if (file_read(folder + "/signature", 1 << 20) != job.signature + "\n") return;
    fs::create_directories(run);
    for (const auto& entry : fs::directory_iterator(folder))
        if (entry.path().filename() != "signature")
            fs::copy_file(entry.path(), run + "/" + entry.path().filename().string(), fs::copy_options::overwrite_existing);
    fs::create_directories(job.folder + "/state");
    file_replace(job.folder + "/state/" + job.run, "done\n" + job.signature + "\n");
}
