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

static bool is_record_of(const Job& job, const fs::path& folder) {
    const std::string path = (folder / "signature").string();
    return file_exists(path) && file_read(path, 1 << 20) == job.signature + "\n";
}

void keep_missing_record(const Job& job) {
    if (!job.record.empty() && !is_record_of(job, job.record)) keep_record(job);
}

// RECORDS/NAME/RUN and RECORDS/NAME/match-params/RUN, of this NAME first; "" when there is none.
static std::string find_record(const Job& job) {
    if (is_record_of(job, job.record)) return job.record;
    std::error_code error;
    for (fs::recursive_directory_iterator at(job.records, error), end; at != end; at.increment(error)) {
        if (at.depth() >= 2) at.disable_recursion_pending();
        // a row's name is part of the run's: the signature has no variant
        if (at->path().filename() == job.run && at->is_directory(error) && is_record_of(job, at->path())) return at->path().string();
    }
    return "";
}

// The files of a finished run, or of its record, as this job's; checkpoints stay where they are.
static void put_among_runs(const std::string& folder, const Job& job) {
    const std::string run = job.folder + "/" + job.run;
    fs::create_directories(run);
    for (const auto& entry : fs::directory_iterator(folder))
        if (entry.is_regular_file() && entry.path().filename() != "signature")
            fs::copy_file(entry.path(), run + "/" + entry.path().filename().string(), fs::copy_options::overwrite_existing);
    fs::create_directories(job.folder + "/state");
    file_replace(job.folder + "/state/" + job.run, "done\n" + job.signature + "\n");
}

void fetch_record(const Job& job) {
    if (job.record.empty()) return;
    const std::string folder = find_record(job);
    if (folder.empty()) return;
    if (folder != job.record) {              // this comparison's records are whole, too
        fs::create_directories(job.record);
        fs::copy(folder, job.record, fs::copy_options::overwrite_existing | fs::copy_options::recursive);
    }
    put_among_runs(folder, job);
}

void share_run(const Job& done, const Job& job) {
    fs::remove_all(job.folder + "/" + job.run);                      // what was begun there, checkpoints of other options
    put_among_runs(done.folder + "/" + done.run, job);
    keep_record(job);
}
