// Trains many runs, several at a time, each by a trainer of its own: what `make compare`, `make claims` and `make study` are made of.
// A run that is done is kept, an interrupted one continues; each is known by its folder and by its signature, the options and the data
// that it was made with. How many run at once changes no result: a trainer's bits do not depend on its threads.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

struct Job {
    std::string folder, run;                 // the run is FOLDER/RUN
    std::string label;                       // "qv, rope, seed 1"
    std::string record;                      // folder of its record (records.h), "" for none
    std::string records;                     // the folder of all records
    std::vector<std::string> command;        // without what run_jobs adds: --runs-dir, --run, --threads, --resume or --overwrite
    std::string signature;                   // what decides the result
    double seconds = 0;                      // expected, for what is left; 0: not known
    bool may_fail = false;                   // a rate that is too high ends a run: that is an answer, not a fault
};

struct Place {
    int at_once = 1, threads = 0;            // trainers side by side, threads of each (0: all)
    bool fresh = false, keep_going = false;  // train again what is done; go on after a failure
};

struct JobsResult {
    size_t trained = 0, kept = 0;
    std::vector<std::string> failures;       // one line each, with the command
    bool stopped = false;                    // by a signal: the trainers have saved
};

// True when a run of this name was begun there, with whatever options.
bool job_begun(const Job& job);
// True when the run is finished with this signature. Fails (exit 2) when it was made with another one.
bool job_done(const Job& job);
// Runs them in this order. after(job) is called when one is finished or found finished.
JobsResult run_jobs(const std::vector<Job>& jobs, const Place& place, const std::function<void(const Job&)>& after);
// From the first call on, SIGINT, SIGTERM and SIGHUP stop the trainers: the first makes them save and stop, a second quit at once.
void catch_signals();
bool stop_asked();
