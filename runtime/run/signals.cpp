// See signals.h. The handler only sets a flag: everything else is not safe inside one.
//
// It runs in a thread of its own, the only one that does not block the three signals. oneDNN's matrix products (seen in
// 2.6.3 with AVX-512) point the stack pointer into a buffer on the heap, so a handler on a computing thread writes its
// frame over other memory. Of 12 runs stopped at random moments 2 died of "corrupted size vs. prev_size"; with a timer's
// signal every millisecond, all did.
#include "runtime/run/signals.h"

#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <system_error>
#include <thread>
#include <unistd.h>

#include "runtime/run/error.h"

static volatile sig_atomic_t received = 0, quit_at_once = 1;

static void on_signal(int number) {
    if (received) _exit(128 + number);
    received = number;
    if (!quit_at_once) return;
    static const char text[] = "stopped by a signal during start-up; nothing has changed\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {}
    _exit(EXIT_STOPPED_AND_SAVED);
}

void signals_quit_at_once(bool yes) { quit_at_once = yes; }

void signals_install() {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    sigset_t stop;
    sigemptyset(&stop);
    for (int number : {SIGTERM, SIGINT, SIGUSR1}) {
        sigaction(number, &action, nullptr);
        sigaddset(&stop, number);
    }
    action.sa_handler = SIG_IGN;
    for (int number : {SIGXFSZ, SIGPIPE}) sigaction(number, &action, nullptr);
    pthread_sigmask(SIG_BLOCK, &stop, nullptr);            // threads inherit this
    try {
        std::thread([stop] {
            pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
            for (;;) pause();
        }).detach();
    } catch (const std::system_error& e) {
        fail(
            "no thread for signals can be started (%s); raise the limit: ulimit -u, "
            "or a container's number of processes",
            e.code().message().c_str());
    }
}

bool stop_requested() { return received != 0; }

void wait_for_reader(int fd) {
    pollfd p{fd, POLLOUT, 0};
    while (fd >= 0 && poll(&p, 1, 100) == 0) {                       // below 0: no descriptor, a FILE in memory
        if (!stop_requested()) continue;
        const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (nowhere < 0) return;
        dup2(nowhere, fd);
        close(nowhere);
        return;
    }
}

const char* stop_signal_name() {
    return received == SIGTERM ? "SIGTERM" : received == SIGINT ? "SIGINT" : received == SIGUSR1 ? "SIGUSR1" : "none";
}
