// One trainer as a child process: started in a process group of its own, so that Ctrl-C reaches it once, through us; its output comes
// through pipes, line by line, and goes to a log file; it is told to save and stop should we die.
#pragma once
#include <string>
#include <sys/types.h>
#include <vector>

struct Process {
    pid_t pid = -1;
    int out = -1, err = -1, log = -1;        // read ends of its pipes; the log
    std::string out_part, err_part;          // the beginning of a line
    bool running() const { return pid > 0; }
};

// `log`: file that everything it prints goes to, "" for none.
Process process_start(const std::vector<std::string>& command, const std::string& log);
// Reads what has come; complete lines are handed to on_line(line, is_error).
template <class OnLine> void process_read(Process& p, OnLine on_line);
// Exit code when it has ended (128 + number for a signal), else -1.
int process_poll(Process& p);
void process_signal(const Process& p, int number);
void process_close(Process& p);              // its pipes, unread
// Runs a command to its end; what it printed on stdout, its exit code, and what it said on stderr.
struct Answer { int code; std::string out, err; };
Answer process_ask(const std::vector<std::string>& command);

std::string shell_words(const std::vector<std::string>& command);      // for people to copy

bool process_next_line(int& fd, int log, std::string& part, std::string& line);
template <class OnLine> void process_read(Process& p, OnLine on_line) {
    std::string line;
    while (process_next_line(p.out, p.log, p.out_part, line)) on_line(line, false);
    while (process_next_line(p.err, p.log, p.err_part, line)) on_line(line, true);
}
