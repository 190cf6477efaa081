// The console line and human-readable quantities; see rundir.h.
#include <algorithm>
#include <climits>
#include <cmath>
#include <ctime>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/run/clock.h"
#include "runtime/run/error.h"
#include "runtime/run/rundir.h"
#include "runtime/run/signals.h"

static size_t terminal_width(FILE* out) {
    winsize size;
    return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Less than a pipe takes at once when it takes anything: a write that begins also ends.
static void write_text(Console& c, const std::string& text) {
    for (size_t at = 0; at < text.size(); at += PIPE_BUF) {
        wait_for_reader(fileno(c.out));
        fwrite(text.data() + at, 1, std::min<size_t>(PIPE_BUF, text.size() - at), c.out);
        fflush(c.out);
    }
}

Console console_open(int64_t total_steps, bool quiet, bool live) {
    Console c;
    c.total_steps = total_steps;
    c.quiet = quiet;
    c.out = stdout;
    c.tty = live && isatty(fileno(c.out));
    return c;
}

std::string console_line(const Console& c, const StepMetrics& m, double step_ms, double gflops, double elapsed_s) {
    const int digits = int(std::to_string(c.total_steps).size());
    const double done = c.total_steps > 0 ? double(m.step) / double(c.total_steps) : 1;
    std::string line = format("step %*lld/%lld %3.0f%%", digits, (long long)m.step, (long long)c.total_steps, std::floor(100 * done));
    if (c.weight > 0) line += format("  loss %.3f", c.smoothed / c.weight);
    if (!std::isnan(c.val_loss)) line += format("  val %.3f", c.val_loss);
    if (!std::isnan(m.lr)) line += format("  lr %.1e", m.lr);
    if (!std::isnan(m.grad_norm)) line += format("  |g| %.2f", m.grad_norm);
    line += step_ms < 10 ? format("  %.1f ms", step_ms) : format("  %.0f ms", step_ms);
    if (!std::isnan(m.tokens_per_second)) line += "  " + human_count(m.tokens_per_second) + " tok/s";
    if (!std::isnan(m.mfu)) line += format("  MFU %.1f%%", 100 * m.mfu);
    if (!std::isnan(m.mfu_causal)) line += format(" (%.1f%% causal)", 100 * m.mfu_causal);
    if (std::isnan(m.mfu) && gflops >= 1e4) line += format("  %.1f TFLOP/s", gflops / 1e3);
    else if (std::isnan(m.mfu) && gflops > 0) line += format("  %.0f GFLOP/s", gflops);
    line += "  " + human_time(elapsed_s);
    if (m.step < c.total_steps) line += "  eta " + human_time(double(c.total_steps - m.step) * c.smoothed_ms / 1000);
    return line;
}

// Writes the live line over the last one, cut so that it never wraps (a wrapped line cannot be rewritten).
static void show_live(Console& c, std::string line) {
    line = line.substr(0, terminal_width(c.out) - 1);
    const size_t width = line.size();
    if (width < c.last_width) line.append(c.last_width - width, ' ');
    write_text(c, "\r" + line);
    c.last_width = width;
}

void console_step(Console& c, const StepMetrics& m, double step_ms, double gflops, double elapsed_s) {
    // An exponential mean over about 20 steps, without bias towards its start (as Adam's moments).
    const double keep = 0.95;
    if (std::isfinite(m.loss)) {
        c.smoothed = keep * c.smoothed + (1 - keep) * m.loss;
        c.weight = keep * c.weight + (1 - keep);
    }
    c.smoothed_ms = c.smoothed_ms > 0 ? keep * c.smoothed_ms + (1 - keep) * step_ms : step_ms;
    const bool validated = !std::isnan(m.val_loss);
    if (validated) c.val_loss = m.val_loss;
    if (c.quiet) return;
    const double now = now_s(), interval = c.tty ? 0.05 : 1.0;
    if (now - c.last_print < interval && !validated && m.step < c.total_steps) return;
    c.last_print = now;
    const std::string line = console_line(c, m, step_ms, gflops, elapsed_s);
    if (c.tty) show_live(c, line);
    else write_text(c, line + "\n");
}

void console_message(Console& c, const std::string& line) {
    write_text(c, (c.last_width > 0 ? "\r" + std::string(c.last_width, ' ') + "\r" : "") + line + "\n");
    c.last_width = 0;
    c.last_print = 0;                 // the next step draws the live line again
}

void console_close(Console& c) {
    if (c.last_width > 0) write_text(c, "\n");
    c.last_width = 0;
}

std::string human_count(double n) {
    const char* units[] = {"", "k", "M", "G", "T", "P"};
    int u = 0;
    while (std::abs(n) >= (u == 0 ? 999.5 : 999.95) && u < 5) n /= 1000, u++;      // so that rounding never shows 1000.0k
    return u == 0 ? format("%.0f", n) : format("%.1f%s", n, units[u]);
}

std::string human_bytes(double n) {
    const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int u = 0;
    while (std::abs(n) >= (u == 0 ? 1023.5 : 1023.95) && u < 5) n /= 1024, u++;
    return u == 0 ? format("%.0f B", n) : format("%.1f %s", n, units[u]);
}

std::string human_time(double seconds) {
    if (!(seconds >= 0) || seconds > 1e9) return "?";
    const long long s = std::llround(seconds);
    if (s < 3600) return format("%lldm%02llds", s / 60, s % 60);
    if (s < 24 * 3600) return format("%lldh%02lldm", s / 3600, s / 60 % 60);
    return format("%lldd%02lldh", s / 86400, s / 3600 % 24);
}
