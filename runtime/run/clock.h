// Seconds on a clock that is never set back: for how long something took, not for when it happened.
#pragma once
#include <chrono>

inline double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
