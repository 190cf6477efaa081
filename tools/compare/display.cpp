// See display.h.
#include "tools/compare/display.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/run/error.h"

static constexpr double LIVE_INTERVAL = 0.1, PLAIN_INTERVAL = 15;

bool read_progress(const std::string& line, Progress& p) {
    long long step = 0, steps = 0;
    if (sscanf(line.c_str(), "step %lld/%lld", &step, &steps) != 2) return false;
    p.step = step;
    p.steps = steps;
    auto word_after = [&](const char* name) -> std::string {
        const size_t at = line.find(name);
        if (at == std::string::npos) return "";
        const size_t begin = line.find_first_not_of(' ', at + std::string(name).size());
        return begin == std::string::npos ? "" : line.substr(begin, line.find(' ', begin) - begin);
    };
    p.loss = word_after("  loss ");
    p.eta = word_after("  eta ");
    return true;
}

std::string duration(double seconds) {
    if (!(seconds >= 0) || seconds > 1e9) return "?";
    const long long s = std::llround(seconds);
    if (s >= 3600) return format("%lldh%02lldm", s / 3600, s % 3600 / 60);
    return s >= 60 ? format("%lldm%02llds", s / 60, s % 60) : format("%llds", s);
}

Display display_open() {
    Display d;
    d.tty = isatty(STDERR_FILENO) != 0;
    return d;
}

static std::string describe(const DisplayLine& r) {
    std::string text = r.label;
    if (r.progress.steps > 0) text += format("  %3.0f%%", std::floor(100.0 * double(r.progress.step) / double(r.progress.steps)));
    if (!r.progress.loss.empty()) text += "  loss " + r.progress.loss;
    text += "  " + duration(r.seconds);
    if (!r.progress.eta.empty()) text += "  eta " + r.progress.eta;
    return text;
}

static size_t screen_width() {
    winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// The cursor stands below the block; up and clear puts it where the block began.
static void clear_block(Display& d) {
    if (d.lines > 0) fprintf(stderr, "\x1b[%zuA\x1b[J", d.lines);
    d.lines = 0;
}

void display_show(Display& d, const std::vector<DisplayLine>& running, const std::string& whole, double now) {
    if (now - d.last_shown < (d.tty ? LIVE_INTERVAL : PLAIN_INTERVAL)) return;
    d.last_shown = now;
    if (!d.tty) {
        std::string line;
        for (const DisplayLine& r : running) line += (line.empty() ? "  " : " | ") + describe(r);
        fprintf(stderr, "%s | %s\n", line.c_str(), whole.c_str());
        return;
    }
    clear_block(d);
    const size_t width = screen_width() - 1;                     // a line that wraps could not be rewritten
    for (const DisplayLine& r : running) fprintf(stderr, "%s\n", ("  " + describe(r)).substr(0, width).c_str());
    fprintf(stderr, "%s\n", whole.substr(0, width).c_str());
    d.lines = running.size() + 1;
    fflush(stderr);
}

void display_message(Display& d, const std::string& text) {
    clear_block(d);
    fprintf(stderr, "%s\n", text.c_str());
    if (d.tty) d.last_shown = -1e9;
}

void display_close(Display& d) { clear_block(d); }
