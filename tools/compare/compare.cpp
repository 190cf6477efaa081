// compare: trains every row with every position and seed on the same data and the same batches, several at a time, then writes the report.
// Called by scripts/compare.sh (`make compare`), which lists what the environment sets. Results: RUNS_DIR/NAME/, one run per folder.
// A finished run is kept, an interrupted one continues: the same command goes on.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <unistd.h>

#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tools/compare/display.h"
#include "tools/compare/jobs.h"
#include "tools/compare/looks.h"
#include "tools/compare/match.h"
#include "tools/compare/plan.h"
#include "tools/compare/process.h"
#include "tools/compare/rates.h"
#include "tools/compare/settings.h"
#include "tools/compare/trainer.h"
#include "tools/one_line.h"

static void say(const std::string& text) { fprintf(stderr, "compare: %s\n", text.c_str()); }

// Everything that can be wrong is found before the first hour of training.
static std::vector<RowSpec> read_rows(const Settings& s) {
    std::vector<RowSpec> rows;
    for (const std::string& word : s.words) {
        const std::string variant = word.substr(0, word.find(':')), trainer = s.trainer(variant);
        ensure(access(trainer.c_str(), X_OK) == 0 || (s.dry_run && variant == word),
               "%s is missing: `make compare` builds it (is there an attention/ file of that name?)", trainer.c_str());
        rows.push_back(read_row(s, word));
        for (size_t i = 0; i + 1 < rows.size(); i++)
            ensure_usage(rows[i].file_name() != rows.back().file_name(), "VARIANTS: %s is there twice", word.c_str());
    }
    const std::string report = s.build + "/report";
    ensure(s.dry_run || access(report.c_str(), X_OK) == 0, "%s is missing: `make compare` builds it", report.c_str());
    return rows;
}

// One comparison at a time in a folder: a second one waits and then finds the runs of the first. The kernel lets go of the lock however a
// process ends. False when a signal came meanwhile.
static bool have_folder_alone(const std::string& folder) {
    std::filesystem::create_directories(folder);
    const std::string path = folder + "/lock";
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);       // open until the end
    ensure(fd >= 0, "%s: cannot be opened (%s)", path.c_str(), strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
    say("another comparison is at work in " + folder + ": waiting for it");
    while (flock(fd, LOCK_EX) != 0)
        if (stop_asked() || errno != EINTR) return false;
    return true;
}

static std::string find_data(const Settings& s, const std::string& vocab) {
    if (!s.data.empty()) return s.data;
    if (s.dry_run) return "data/tinyshakespeare";
    const Answer made = process_ask({"scripts/get_data.sh", "--vocab", vocab});
    fputs(made.err.c_str(), stderr);
    ensure(made.code == 0, "scripts/get_data.sh failed (its message is above)");
    return made.out.substr(0, made.out.find('\n'));
}

static std::vector<Cell> layout_cells(const Settings& s, const std::vector<RowSpec>& rows) {
    std::vector<Cell> cells;
    for (const std::string& pos : s.positions)
        for (const RowSpec& row : rows) {
            Cell c;
            c.row = row;
            c.pos = pos;
            c.lr = s.size.lr;
            c.steps = s.size.steps;
            cells.push_back(c);
        }
    return cells;
}

// Of every way of being equal that is asked for.
static std::vector<Cell> all_cells(const Settings& s, const std::vector<Cell>& layout, const Place& place) {
    std::vector<Cell> cells;
    for (const std::string& matching : s.matchings) {
        if (matching == "layout") cells.insert(cells.begin(), layout.begin(), layout.end());
        else for (const Cell& c : matched_cells(s, matching, layout, place)) cells.push_back(c);
    }
    return cells;
}

// Seeds outermost: stopped half-way, there are whole tables. `from` seeds are there already.
static std::vector<Job> all_jobs(const Settings& s, const std::vector<Cell>& cells, int64_t from, int64_t seeds,
                                 const std::string& mark) {
    std::vector<Job> jobs;
    for (const std::string& matching : s.matchings)
        for (int64_t i = from; i < seeds; i++)
            for (const Cell& c : cells)
                if (c.matching == matching) jobs.push_back(cell_job(s, c, s.first_seed + i, mark));
    return jobs;
}

static std::string describe_plan(const Settings& s, const std::vector<Cell>& cells, int64_t seeds, const Place& place) {
    const size_t runs = cells.size() * size_t(seeds);
    const OneSeed one = one_seed(s, cells);
    double least = 1e30, most = 0;
    for (const Cell& c : cells) {
        least = std::min(least, c.seconds);
        most = std::max(most, c.seconds);
    }
    auto count = [](size_t n, const char* what) { return format("%zu %s%s", n, what, n == 1 ? "" : "s"); };
    std::string text = count(s.words.size(), "row") + " x " + count(s.positions.size(), "position") + " x " + count(size_t(seeds), "seed");
    if (s.matchings.size() > 1) text += " x " + count(s.matchings.size(), "matching");
    const size_t shared = runs - one.runs * size_t(seeds);
    const std::string note = shared > 0 ? format(", %zu of them shared,", shared) : "";
    text += format(" = %s%s of %s to %s, %d at a time with %s: about %s", count(runs, "run").c_str(), note.c_str(), duration(least).c_str(),
                   duration(most).c_str(), place.at_once,
                   place.threads == 0   ? "all threads"
                   : place.threads == 1 ? "one thread each"
                                        : format("%d threads each", place.threads).c_str(),
                   duration(one.seconds * double(seeds) / place.at_once).c_str());
    if (!s.looks.empty()) {
        std::string counts;
        for (int64_t n : s.looks) counts += (counts.empty() ? "" : ", ") + std::to_string(n);
        return text + format(" at most (SEEDS=auto ends when every row is decided; looks after %s seeds, each at 1/%zu of the "
                             "chance of a false verdict)",
                             counts.c_str(), s.looks.size());
    }
    if (s.seeds == 0) text += format(" (SEEDS from MINUTES=%g%s)", s.minutes, seeds < 3 ? "; three make a claim" : "");
    return text;
}

static void run_report(const Settings& s) {
    std::vector<std::string> command = {s.build + "/report", s.folder(), "--baseline", s.baseline};
    fflush(stderr);
    Process p = process_start(command, "");
    int code = -1;
    while (code < 0 || p.out >= 0) {
        process_read(p, [](const std::string& line, bool is_error) { fprintf(is_error ? stderr : stdout, "%s\n", line.c_str()); });
        if (code < 0) code = process_poll(p);
        usleep(5000);
    }
    fflush(stdout);
    ensure(code == 0, "the report failed with exit code %d", code);
}

// report.html is made again as runs finish, beside the trainers, one report at a time: waiting is watching.
struct Refresher {
    Process report;
    void again(const Settings& s) {
        if (!s.report || (report.running() && process_poll(report) < 0)) return;
        process_close(report);
        report = process_start({s.build + "/report", s.folder(), "--quiet", "--no-plot"}, "");
    }
    void wait() {
        while (report.running() && process_poll(report) < 0) usleep(10000);
        process_close(report);
    }
};

// After the first seeds come more, until every row is decided or LOOKS end (looks.h). Without SEEDS=auto one look: the end.
static JobsResult train_by_looks(const Settings& s, const std::vector<Cell>& cells, const std::vector<int64_t>& looks,
                                 const Place& place, const std::string& mark, const std::string& plan) {
    JobsResult all;
    size_t finished = 0;
    Refresher refresher;
    for (size_t i = 0; i < looks.size(); i++) {
        const int64_t from = i ? looks[i - 1] : 0, seeds = looks[i];
        auto write_progress = [&] {
            for (const std::string& m : s.matchings) {
                const std::string folder = m == "layout" ? s.folder() : s.folder() + "/match-" + m;
                write_comparison(s, folder, m, cells, seeds, plan, finished, cells.size() * size_t(seeds));
            }
        };
        write_progress();
        const JobsResult result = run_jobs(all_jobs(s, cells, from, seeds, mark), place, [&](const Job&) {
            finished++;
            write_progress();
            refresher.again(s);
        });
        all.trained += result.trained;
        all.kept += result.kept;
        all.failures.insert(all.failures.end(), result.failures.begin(), result.failures.end());
        all.stopped = result.stopped;
        if (result.stopped || !result.failures.empty() || i + 1 == looks.size()) break;
        Problems ignored;                                        // the report at the end says them
        std::string open;
        for (const std::string& row : undecided_rows(load_comparison({{s.folder()}, s.baseline}, ignored), s))
            open += (open.empty() ? "" : "; ") + row;
        if (open.empty()) {
            say(format("decided after %lld seeds", (long long)seeds));
            break;
        }
        say(format("after %lld seeds undecided: %s. On to %lld", (long long)seeds, open.c_str(), (long long)looks[i + 1]));
    }
    refresher.wait();
    return all;
}

static int compare() {
    Settings s = read_settings();
    const char* vocab = getenv("VOCAB");
    const std::vector<RowSpec> rows = read_rows(s);
    s.data = find_data(s, vocab && *vocab ? vocab : "1024");
    if (std::find(s.words.begin(), s.words.end(), s.baseline) == s.words.end() &&
        !std::filesystem::exists(s.folder() + "/" + s.baseline + "-" + s.positions[0] + "-1"))
        s.baseline = s.words[0];
    std::vector<Cell> cells = layout_cells(s, rows);
    if (s.dry_run) {
        if (s.matchings != std::vector<std::string>{"layout"}) {
            ask_cells(s, cells, false, Place{});                 // trains nothing: sizes, which want the data
            cells = all_cells(s, cells, Place{});
        }
        for (const Job& job : all_jobs(s, cells, 0, s.seeds > 0 ? s.seeds : 1, ""))
            printf("%s --runs-dir %s --run %s\n", shell_words(job.command).c_str(), job.folder.c_str(), job.run.c_str());
        return EXIT_DONE;
    }
    const std::string mark = data_mark(s.data);
    catch_signals();
    if (!have_folder_alone(s.folder())) return 130;
    ask_cells(s, cells, false, Place{});
    Place place = choose_place(s, cells, cells.size() * size_t(s.seeds > 0 ? s.seeds : 3) * s.matchings.size());
    ask_cells(s, cells, true, place);
    if (!settle_rates(s, cells, place, mark)) {
        if (stop_asked()) say("stopped. Repeat the same command to go on; the finished runs are kept.");
        return stop_asked() ? 130 : EXIT_FAILED;
    }
    cells = all_cells(s, cells, place);
    const std::vector<int64_t> looks = s.looks.empty() ? std::vector<int64_t>{choose_seeds(s, cells, place)} : s.looks;
    place.at_once = int(std::min<size_t>(size_t(place.at_once), cells.size() * size_t(looks[0])));
    const std::string plan = describe_plan(s, cells, looks.back(), place);
    say(plan);
    const JobsResult result = train_by_looks(s, cells, looks, place, mark, plan);
    if (result.stopped) {
        say("stopped. Repeat the same command to go on; the finished runs are kept.");
        return 130;
    }
    if (s.report && result.trained + result.kept > 0) run_report(s);
    if (result.failures.empty()) return EXIT_DONE;
    for (const std::string& f : result.failures) say("FAILED " + f);
    say("repeat the same command after mending it; the finished runs are kept (KEEP_GOING=1 trains the others first).");
    return EXIT_FAILED;
}

int main() {
    return errors_in_one_line("compare", [&] {
        return compare();
    });
}
