// Waiting for other ranks: the loop behind every blocking call of comm.h, and what happens when one does not arrive
// (RELIABILITY.md, 12 and 13).
//
// A rank that has waited for the whole timeout without any message arriving calls the roll: it tells all ranks where it is
// ("step 12, reduce-scatter of h.3"), and every rank that hears it answers all others in the same way. A rank that has not
// answered after some seconds is stopped or lost, or has been computing all the while without looking at its messages. The
// lowest rank that is awake prints one line and ends all processes. MPI_Abort kills a stopped process too (mpirun and srun
// send SIGKILL). A rank that was itself away (stopped, and woken by the launcher's SIGCONT) may find a roll call that is
// long over, so it never prints. Not for a rank that was killed: the launcher notices at once and ends the others.
#include <algorithm>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <string>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#include "runtime/comm/mpi.h"

static constexpr double ANSWER_SECONDS = 4;         // for all answers to arrive; less when the timeout itself is shorter, down to one
static constexpr double ABORT_SECONDS = 10;         // if MPI_Abort itself hangs, exit without it
static constexpr unsigned PRINT_MICROSECONDS = 300000;       // MPICH's mpirun drops what was written just before the abort
static constexpr double SPIN_SECONDS = 0.00005;     // without progress: then offer the core to others between looks
static constexpr double YIELD_SECONDS = 0.002;      // then sleep between looks, so that ranks that compute have the cores
static constexpr long SLEEP_NANOSECONDS = 100000;

double comm_clock() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

void comm_set_timeout(double seconds) { comm.timeout_seconds = seconds; }
void comm_at_step(int64_t step) { comm.step = step; }

// ---------------------------------------------------------------------------------------------- the end
void comm_abort(int exit_code) {
    fflush(stdout);
    fflush(stderr);
    if (!comm.started) _exit(exit_code);
    comm.ending = true;
    try {
        std::thread([exit_code] {
            sleep(unsigned(ABORT_SECONDS));
            _exit(exit_code);
        }).detach();
    } catch (const std::system_error&) {            // no thread can be started: do without this safeguard
    }
    usleep(PRINT_MICROSECONDS);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

// ---------------------------------------------------------------------------------------------- the roll call
struct Answer {
    int32_t rank;
    int32_t was_away;                               // it has not looked for a roll call for so long that one may be over already
    int64_t step;
    double waited_seconds;
    char collective[24], what[72], host[64];
};
static Answer mine;                                 // outlives the sends
static constexpr int ROLL_TAG = 1;

static void copy_text(char* to, size_t bytes, const char* from) { snprintf(to, bytes, "%s", from); }
static std::string position(const Answer& a) {
    std::string text = a.collective;
    if (*a.what) text += std::string(*a.collective ? " of " : "") + a.what;
    return a.step >= 0 ? format("step %lld in %s", static_cast<long long>(a.step), text.c_str()) : "start in " + text;
}

static std::vector<std::string> hosts;              // of all ranks, gathered while all are well
void begin_roll_call() {
    char name[64] = "";
    gethostname(name, sizeof name - 1);
    std::vector<char> all(size_t(comm.size) * sizeof name);
    mpi_check(MPI_Allgather(name, sizeof name, MPI_CHAR, all.data(), sizeof name, MPI_CHAR, comm.roll));
    for (int r = 0; r < comm.size; r++) hosts.emplace_back(&all[size_t(r) * sizeof name]);
}

// A wait for the device is a wait for the oldest collective that the device has not finished.
static constexpr const char* DEVICE = "the device's work";

static double answer_seconds() { return std::clamp(comm.timeout_seconds, 1.0, ANSWER_SECONDS); }

[[noreturn]] static void call_roll(const char* collective, const char* what, double waited, bool was_away) {
    comm.ending = true;
    std::string oldest_collective, oldest_what;
    if (collective == DEVICE && tensors_oldest(oldest_collective, oldest_what)) {
        collective = oldest_collective.c_str();
        what = oldest_what.c_str();
    }
    memset(&mine, 0, sizeof mine);
    mine.rank = comm.rank;
    mine.was_away = was_away;
    mine.step = comm.step;
    mine.waited_seconds = waited;
    copy_text(mine.collective, sizeof mine.collective, collective);
    copy_text(mine.what, sizeof mine.what, what);
    copy_text(mine.host, sizeof mine.host, hosts[size_t(comm.rank)].c_str());

    std::vector<MPI_Request> sends(size_t(comm.size), MPI_REQUEST_NULL);
    for (int r = 0; r < comm.size; r++)
        if (r != comm.rank) MPI_Isend(&mine, sizeof mine, MPI_BYTE, r, ROLL_TAG, comm.roll, &sends[size_t(r)]);
    std::vector<Answer> answers(size_t(comm.size), Answer{-1, 0, 0, 0, {}, {}, {}});
    answers[size_t(comm.rank)] = mine;
    int missing = comm.size - 1;
    for (double end = comm_clock() + answer_seconds(); missing > 0 && comm_clock() < end;) {
        int there = 0;
        MPI_Status status;
        MPI_Iprobe(MPI_ANY_SOURCE, ROLL_TAG, comm.roll, &there, &status);
        if (!there) {
            usleep(1000);
            continue;
        }
        Answer a;
        MPI_Recv(&a, sizeof a, MPI_BYTE, status.MPI_SOURCE, ROLL_TAG, comm.roll, MPI_STATUS_IGNORE);
        if (answers[size_t(a.rank)].rank < 0) missing--;
        answers[size_t(a.rank)] = a;
    }

    const Answer* first = nullptr;                  // the lowest rank that was awake all the time: it prints
    const Answer* patient = &mine;                  // who has waited longest
    for (const Answer& a : answers) {
        if (a.rank < 0) continue;
        if (!first && !a.was_away) first = &a;
        if (a.waited_seconds > patient->waited_seconds) patient = &a;
    }
    if (first && first->rank == comm.rank) {
        std::string line;
        int named = 0;
        for (int r = 0; r < comm.size; r++)
            if (answers[size_t(r)].rank < 0 && ++named <= 8)
                line += format("%srank %d (%s)", line.empty() ? "" : ", ", r, hosts[size_t(r)].c_str());
        if (named > 8) line += format(" and %d more", named - 8);
        if (named) line += " did not answer: hung, stopped or lost";
        else line = "all ranks answered, but they wait for each other: they did not make the same calls";
        line += format("; rank %d (%s) has waited for %.0f s at %s", patient->rank, patient->host,
                       patient->waited_seconds, position(*patient).c_str());
        for (const Answer& a : answers)             // ranks that are somewhere else are the likely cause
            if (a.rank >= 0 && position(a) != position(*patient) && line.size() < 1500)
                line += format("; rank %d is at %s", a.rank, position(a).c_str());
        fprintf(stderr, "error: %s; all processes are ended. If a rank may take that long, raise the timeout\n", line.c_str());
    } else {
        sleep(2);                                   // the speaker's line comes out, and its abort ends us
    }
    comm_abort(EXIT_FAILED);
}

// Called all along the way; a gap means that this rank computed for a long time, or was stopped.
static double passed = 0, gap_ended = -1e9;
static void pass_by(double now) {
    if (passed > 0 && now - passed > answer_seconds()) gap_ended = now;
    passed = now;
}

static void listen(const char* collective, const char* what, double waited) {
    int there = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, ROLL_TAG, comm.roll, &there, MPI_STATUS_IGNORE);
    if (there) call_roll(collective, what, waited, passed - gap_ended < ANSWER_SECONDS);
}
void answer_roll_call() {
    static double looked = 0;
    double t = comm_clock();
    pass_by(t);
    if (t - looked < 0.1) return;
    looked = t;
    listen("computing", "", 0);
}

// ---------------------------------------------------------------------------------------------- waiting
void wait_until(const std::function<bool()>& done, const char* collective, const char* what) {
    if (done()) return;
    const double started = comm_clock();
    pass_by(started);
    double last_progress = started, looked = started, previous = started;
    uint64_t seen = comm.progress;
    for (;;) {
        tensors_advance();
        if (done()) return;
        double t = comm_clock();
        pass_by(t);
        // If we were stopped ourselves (the whole job was suspended), that time does not count. Progress starts the clock again.
        if (comm.progress != seen || t - previous > 1) {
            seen = comm.progress;
            last_progress = t;
        }
        previous = t;
        if (t - looked > 0.02) {
            looked = t;
            listen(collective, what, t - started);
            if (comm.timeout_seconds > 0 && t - last_progress > comm.timeout_seconds) call_roll(collective, what, t - started, false);
        }
        if (t - last_progress < SPIN_SECONDS) continue;
        if (t - last_progress < YIELD_SECONDS) {
            sched_yield();
        } else {
            timespec nap{0, SLEEP_NANOSECONDS};
            nanosleep(&nap, nullptr);
        }
    }
}

void wait_for(MPI_Request& request, const char* collective, const char* what) {
    wait_until([&] {
        int complete = 0;
        mpi_check(MPI_Test(&request, &complete, MPI_STATUS_IGNORE));
        comm.progress += uint64_t(complete);
        return complete != 0;
    }, collective, what);
}

void comm_wait_device(const std::function<bool()>& done) { wait_until(done, DEVICE, ""); }
