// SIGTERM, SIGINT and SIGUSR1 ask the run to stop: every loop polls `stop_requested`, the run saves and exits 75.
// During start-up, when there is nothing to save, the first signal ends the program at once, wherever it waits.
// A second signal quits at once. SIGXFSZ and SIGPIPE are ignored, so that a file size limit (ulimit -f) or a
// closed pipe at stdout makes one write fail instead of ending the run.
#pragma once

void signals_install();              // before the first parallel region: threads made earlier would still take the signals
// false: from now on a signal is left to the loops, which save and stop. true until then.
void signals_quit_at_once(bool);
bool stop_requested();
// Before text goes to stdout or stderr: waits while a reader lets a pipe or terminal stay full. When a signal asks for the end meanwhile,
// what is written to fd from then on is thrown away, so that saving waits for nobody.
void wait_for_reader(int fd);
const char* stop_signal_name();      // "SIGTERM", ...
