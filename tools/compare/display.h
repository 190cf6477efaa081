// What a comparison shows while it runs: on a terminal one live line for every trainer and one for the whole, elsewhere a plain line now
// and then. Each with its progress and the time left.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

// What a trainer's last line said: "step 120/900 13%  loss 4.123  val 4.2 ... eta 0m40s".
struct Progress {
    int64_t step = 0, steps = 0;
    std::string loss, eta;
};
// False when the line is not one of these.
bool read_progress(const std::string& line, Progress& p);

struct DisplayLine { std::string label; Progress progress; double seconds = 0; };

struct Display {
    bool tty = false;
    size_t lines = 0;                        // of the live block on the screen
    double last_shown = -1e9;                // seconds
};
Display display_open();
// The live block (a terminal, ten times a second) or one line (every `plain_interval` seconds).
void display_show(Display& d, const std::vector<DisplayLine>& running, const std::string& whole, double now);
// A line of its own, above the live block; goes to stderr.
void display_message(Display& d, const std::string& text);
void display_close(Display& d);

std::string duration(double seconds);        // 45s, 3m20s, 2h05m
