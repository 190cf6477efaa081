// See process.h.
#include "tools/compare/process.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/run/error.h"

Process process_start(const std::vector<std::string>& command, const std::string& log) {
    Process p;
    int out[2], err[2];
    ensure(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "pipe: %s", strerror(errno));
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    const pid_t parent = getpid();
    p.pid = fork();
    ensure(p.pid >= 0, "fork: %s", strerror(errno));
    if (p.pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) _exit(128 + SIGTERM);           // it died before the line above
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, nullptr);
        for (int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) signal(number, SIG_DFL);
        const int nothing = open("/dev/null", O_RDONLY);
        dup2(nothing, 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        execvp(argv[0], argv.data());
        const std::string message = format("%s: cannot be started: %s\n", argv[0], strerror(errno));
        if (write(2, message.data(), message.size()) < 0) _exit(126);
        _exit(127);
    }
    setpgid(p.pid, p.pid);                                       // in both, so that it holds whoever comes first
    close(out[1]);
    close(err[1]);
    p.out = out[0];
    p.err = err[0];
    fcntl(p.out, F_SETFL, O_NONBLOCK);
    fcntl(p.err, F_SETFL, O_NONBLOCK);
    if (!log.empty()) p.log = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return p;
}

bool process_next_line(int& fd, int log, std::string& part, std::string& line) {
    for (;;) {
        const size_t end = part.find('\n');
        if (end != std::string::npos) {
            line = part.substr(0, end);
            part.erase(0, end + 1);
            return true;
        }
        if (fd < 0) return false;
        char buffer[4096];
        const ssize_t got = read(fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
        if (got <= 0) {                                          // its last line may lack an end
            close(fd);
            fd = -1;
            if (!part.empty()) part += '\n';
            continue;
        }
        if (log >= 0 && write(log, buffer, size_t(got)) < 0) log = -1;
        part.append(buffer, size_t(got));
    }
}

int process_poll(Process& p) {
    int status = 0;
    const pid_t ended = waitpid(p.pid, &status, WNOHANG);
    if (ended == 0 || (ended < 0 && errno == EINTR)) return -1;
    if (p.log >= 0) close(p.log);
    p.log = -1;
    p.pid = -1;
    if (ended < 0) return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void process_signal(const Process& p, int number) {
    if (p.running()) kill(p.pid, number);
}

Answer process_ask(const std::vector<std::string>& command) {
    Process p = process_start(command, "");
    Answer a{-1, "", ""};
    auto collect = [&] { process_read(p, [&](const std::string& line, bool is_error) { (is_error ? a.err : a.out) += line + "\n"; }); };
    while (p.out >= 0 || p.err >= 0) {
        pollfd waiting[2] = {{p.out, POLLIN, 0}, {p.err, POLLIN, 0}};
        poll(waiting, 2, 1000);
        collect();
    }
    while ((a.code = process_poll(p)) < 0) usleep(1000);
    return a;
}

void process_close(Process& p) {
    for (int* fd : {&p.out, &p.err, &p.log}) {
        if (*fd >= 0) close(*fd);
        *fd = -1;
    }
}

std::string shell_words(const std::vector<std::string>& command) {
    std::string all;
    for (const std::string& word : command) {
        const bool plain =
            !word.empty() &&
            word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+@%") == std::string::npos;
        std::string quoted = word;
        for (size_t at = 0; !plain && (at = quoted.find('\'', at)) != std::string::npos; at += 4) quoted.replace(at, 1, "'\\''");
        all += (all.empty() ? "" : " ") + (plain ? word : "'" + quoted + "'");
    }
    return all;
}
