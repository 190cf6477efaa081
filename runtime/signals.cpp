// See signals.h. The handler only sets a flag: everything else is not safe inside one.
#include "runtime/signals.h"

#include <csignal>
#include <cstring>
#include <initializer_list>
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
    for (int number : {SIGTERM, SIGINT, SIGUSR1}) sigaction(number, &action, nullptr);
    action.sa_handler = SIG_IGN;
    for (int number : {SIGXFSZ, SIGPIPE}) sigaction(number, &action, nullptr);
}

bool stop_requested() { return received != 0; }
const char* stop_signal_name() { return received == SIGTERM ? "SIGTERM" : received == SIGINT ? "SIGINT" : received == SIGUSR1 ? "SIGUSR1" : "none"; }
