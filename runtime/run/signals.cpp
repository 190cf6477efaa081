// See signals.h. The handler only sets a flag: everything else is not safe inside one.
//
// It runs in a thread of its own, the only one that does not block the three signals. oneDNN's matrix products (seen in 2.6.3 with AVX-512)
// point the stack pointer into a buffer on the heap: a handler on a thread that computes writes its frame over other memory there. Of
// 12 runs stopped at random moments 2 died of "corrupted size vs. prev_size"; with a timer's signal every millisecond, all did.
#include "runtime/run/signals.h"

#include <csignal>
#include <cstring>
#include <thread>
#include <unistd.h>

static volatile sig_atomic_t received = 0;

static void on_signal(int number) {
    if (received) _exit(128 + number);
    received = number;
}

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
    std::thread([stop] {
        pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
        for (;;) pause();
    }).detach();
}

bool stop_requested() { return received != 0; }
const char* stop_signal_name() { return received == SIGTERM ? "SIGTERM" : received == SIGINT ? "SIGINT" : received == SIGUSR1 ? "SIGUSR1" : "none"; }
