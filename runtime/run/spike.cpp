// See spike.h.
#include "runtime/run/spike.h"

#include <cmath>

bool spike_seen(SpikeWindow& w, double norm, double zscore) {
    double mean = 0, variance = 0;
    for (double x : w.norms) mean += x / double(w.norms.size());
    for (double x : w.norms) variance += (x - mean) * (x - mean) / double(w.norms.size());
    const double limit = mean + zscore * std::sqrt(variance);
    const bool spike = w.norms.size() >= SpikeWindow::ENOUGH && norm > limit;
    w.norms.push_back(spike ? limit : norm);
    if (w.norms.size() > SpikeWindow::WINDOW) w.norms.erase(w.norms.begin());
    return spike;
}
