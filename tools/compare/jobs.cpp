// See jobs.h.
#include "tools/compare/jobs.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <poll.h>

#include "runtime/run/clock.h"
#include "runtime/run/error.h"
#include "runtime/run/files.h"
#include "tools/compare/display.h"
#include "tools/compare/process.h"
#include "tools/compare/records.h"

namespace fs = std::filesystem;

// ---- signals: the handler counts, the loop below passes them on

static volatile sig_atomic_t signals_seen = 0;
static void on_signal(int) { signals_seen = signals_seen + 1; }

void catch_signals() {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    for (int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
    signal(SIGPIPE, SIG_IGN);
}
bool stop_asked() { return signals_seen > 0; }

// ---- a run's state: FOLDER/state/RUN has two lines, "started" or "done", and the signature

struct State { std::string past, signature; };
static std::string state_path(const Job& job) { return job.folder + "/state/" + job.run; }
static State read_state(const Job& job) {
    if (!job_begun(job)) return {};
    const std::string text = file_read(state_path(job), 1 << 20);
    const size_t end = text.find('\n');
    if (end == std::string::npos) return {};
    return {text.substr(0, end), text.substr(end + 1, text.find('\n', end + 1) - end - 1)};
}
static void write_state(const Job& job, const char* past) {
    fs::create_directories(job.folder + "/state");
    file_replace(state_path(job), std::string(past) + "\n" + job.signature + "\n");
}

bool job_begun(const Job& job) { return file_exists(state_path(job)); }

bool job_done(const Job& job) {
    const State state = read_state(job);
    if (state.signature.empty()) return false;
    const bool has_log =
        file_exists(job.folder + "/" + job.run + "/metrics.csv") || file_exists(job.folder + "/" + job.run + "/metrics.jsonl");
    if (state.past == "done" && !has_log) return false;
    ensure_usage(state.signature == job.signature,
                 "%s/%s was trained with other options:\n  then: %s\n  now:  %s\nChoose another NAME=..., or train it again with FRESH=1",
                 job.folder.c_str(), job.run.c_str(), state.signature.c_str(), job.signature.c_str());
    return state.past == "done";
}

static bool has_checkpoint(const Job& job) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(job.folder + "/" + job.run + "/checkpoints", error))
        if (entry.path().filename().string().starts_with("step-")) return true;
    return false;
}

static std::vector<std::string> whole_command(const Job& job, const Place& place, int threads) {
    const bool resume = !place.fresh && read_state(job).past == "started" && has_checkpoint(job);
    std::vector<std::string> c = job.command;
    for (const std::string& word :
         {std::string("--runs-dir"), job.folder, std::string("--run"), job.run, std::string("--threads"), std::to_string(threads)})
        c.push_back(word);
    c.push_back(resume ? "--resume" : "--overwrite");
    return c;
}

// ---- several at once

struct Running {
    const Job* job;
    Process process;
    DisplayLine line;
    double start;
    std::vector<std::string> command;
};

struct Crew {
    const Place& place;
    Display display = display_open();
    std::vector<Running> running = {};
    JobsResult result = {};
    const std::vector<Job>& jobs;
    std::vector<size_t> first = {};          // of each job: the first with the same run and signature, often itself
    size_t total = 0, settled = 0;           // runs in all; done, kept or failed
    double start = now_s(), planned = 0, trained_seconds = 0,
           trained_planned = 0;              // expected seconds of all; measured and expected of those trained
    int told = 0;                            // signals passed on

    std::string whole() const {
        std::string text = format("%zu of %zu done, %s so far", settled, total, duration(now_s() - start).c_str());
        const double left = time_left();
        return left > 0 ? text + ", about " + duration(left) + " left" : text;
    }
    // By the expected seconds of what is left, corrected by what those that are done really took.
    double time_left() const {
        const double slower = trained_planned > 0 && trained_seconds > 0 ? trained_seconds / trained_planned : 1;
        double left = planned * slower;
        for (const Running& r : running) left -= std::min(r.job->seconds * slower, now_s() - r.start);
        return left / std::max(1, place.at_once);
    }
};

static void begin(Crew& crew, const Job& job, size_t number) {
    const size_t left = crew.total - crew.settled - crew.running.size();           // this one included
    Running r{&job, {}, {job.label, {}, 0}, now_s(), whole_command(job, crew.place, crew.place.threads)};
    const bool resumes = r.command.back() == "--resume";
    write_state(job, "started");
    r.process = process_start(r.command, job.folder + "/state/" + job.run + ".log");
    const double time_left = crew.time_left();
    display_message(crew.display, format("[%zu/%zu] %s%s  (%s so far%s)", number, crew.total, job.label.c_str(),
                                         resumes ? ", continued" : "", duration(now_s() - crew.start).c_str(),
                                         left > 0 && time_left > 0 ? (", about " + duration(time_left) + " left").c_str() : ""));
    crew.running.push_back(std::move(r));
}

static void read_output(Crew& crew, Running& r) {
    process_read(r.process, [&](const std::string& line, bool is_error) {
        if (is_error) display_message(crew.display, r.job->run + ": " + line);
        else read_progress(line, r.line.progress);
    });
}

// Jobs that are the same run as this one, which is done, are done with it.
static void share(Crew& crew, const Job& done, const std::function<void(const Job&)>& after) {
    const size_t number = size_t(&done - crew.jobs.data());
    for (size_t i = number + 1; i < crew.jobs.size(); i++) {
        if (crew.first[i] != number) continue;
        share_run(done, crew.jobs[i]);
        crew.settled++;
        crew.result.kept++;
        display_message(crew.display, format("[%zu/%zu] %s: the same run as %s", i + 1, crew.total, crew.jobs[i].label.c_str(),
                                             done.label.c_str()));
        after(crew.jobs[i]);
    }
}

static void finish(Crew& crew, Running& r, int code, const std::function<void(const Job&)>& after) {
    const double seconds = now_s() - r.start;
    crew.planned -= r.job->seconds;
    if (stop_asked() && code != 0) return;
    crew.settled++;
    if (code == 0) {
        write_state(*r.job, "done");
        crew.result.trained++;
        crew.trained_seconds += seconds;
        crew.trained_planned += r.job->seconds;
        keep_record(*r.job);
        after(*r.job);
        share(crew, *r.job, after);
        return;
    }
    if (r.job->may_fail) {
        display_message(crew.display, r.job->label + ": ended early, exit code " + std::to_string(code));
        after(*r.job);
        return;
    }
    crew.result.failures.push_back(format("%s (exit %d): %s", r.job->run.c_str(), code, shell_words(r.command).c_str()));
    display_message(crew.display, format("compare: %s failed with exit code %d (its message is above)", r.job->run.c_str(), code));
}

// Waits for output or an end, at most a tenth of a second; a signal ends the wait.
static void wait_for_news(const Crew& crew) {
    std::vector<pollfd> waiting;
    for (const Running& r : crew.running)
        for (int fd : {r.process.out, r.process.err})
            if (fd >= 0) waiting.push_back({fd, POLLIN, 0});
    poll(waiting.data(), waiting.size(), waiting.empty() ? 20 : 100);
}

static void pass_signals_on(Crew& crew) {
    const int seen = signals_seen;
    if (seen == crew.told) return;
    if (crew.told == 0) display_message(crew.display, "compare: stopping; the trainers save first (once more: at once)");
    crew.told = seen;
    for (const Running& r : crew.running) process_signal(r.process, SIGTERM);
}

JobsResult run_jobs(const std::vector<Job>& jobs, const Place& place, const std::function<void(const Job&)>& after) {
    Crew crew{.place = place, .jobs = jobs};
    crew.total = jobs.size();
    std::vector<bool> done;
    for (const Job& job : jobs) {                                // every conflict is found before the first hour
        if (!place.fresh && !job_done(job)) fetch_record(job);
        done.push_back(!place.fresh && job_done(job));
    }
    for (size_t i = 0; i < jobs.size(); i++) {
        crew.first.push_back(i);
        for (size_t j = jobs.size(); j-- > 0;) {
            if (jobs[j].run != jobs[i].run || jobs[j].signature != jobs[i].signature) continue;
            if (!done[i] && done[j]) {
                share_run(jobs[j], jobs[i]);
                done[i] = true;
            }
            crew.first[i] = std::min(crew.first[i], j);
        }
        if (!done[i] && crew.first[i] == i) crew.planned += jobs[i].seconds;
    }
    size_t next = 0;
    bool halted = false;
    for (;;) {
        pass_signals_on(crew);
        while (next < jobs.size() && !halted && !stop_asked() && int(crew.running.size()) < std::max(1, place.at_once)) {
            const Job& job = jobs[next++];
            if (done[next - 1]) {
                crew.settled++;
                crew.result.kept++;
                keep_missing_record(job);
                display_message(crew.display, format("[%zu/%zu] %s: done before, kept", next, crew.total, job.label.c_str()));
                after(job);
                continue;
            }
            if (crew.first[next - 1] < next - 1) continue;       // comes with the other one
            begin(crew, job, next);
        }
        if (crew.running.empty()) break;
        wait_for_news(crew);
        for (size_t i = 0; i < crew.running.size();) {
            Running& r = crew.running[i];
            read_output(crew, r);
            r.line.seconds = now_s() - r.start;
            const int code = process_poll(r.process);
            if (code < 0) {
                i++;
                continue;
            }
            read_output(crew, r);
            finish(crew, r, code, after);
            halted = halted || (!crew.result.failures.empty() && !place.keep_going);
            crew.running.erase(crew.running.begin() + ptrdiff_t(i));
        }
        std::vector<DisplayLine> lines;
        for (const Running& r : crew.running) lines.push_back(r.line);
        if (!lines.empty()) display_show(crew.display, lines, crew.whole(), now_s());
    }
    display_close(crew.display);
    crew.result.stopped = stop_asked();
    return crew.result;
}
