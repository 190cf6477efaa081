// Whether a training step is replayed as CUDA graphs (runtime/device/replay.cu) or launched kernel by kernel. Launching costs
// the host about 2.5 us a kernel, while the GPU works on those before; so it weighs where a step's kernels take no longer
// than that: small models, small batches. Decided once, after the first step, whose launches were counted:
//   launches x 2.5 us  against  FLOPs / (40% of the nominal peak)
// From a tenth on, graphs. A prediction, and a low one of the arithmetic: small kernels do not come near 40%. Not measured.
// One graph each for a step's first micro-batch, for every other one, and for the norm with the update. Between them the
// host is as before: it reads data, looks for signals, waits once a step. With --spike-zscore the norm is looked at before
// the update, so these two are launched one by one. Several processes: no graphs, the collectives would be in them.
#pragma once
#include <string>

#include "model/gpt.h"
#include "model/memory.h"
#include "runtime/run/options.h"

struct StepGraphs {
    Repeat first_pass, next_pass, update;
    bool decided = false;
};

inline constexpr double GRAPHS_FROM = 0.1, SHARE_OF_PEAK = 0.4, UNKNOWN_PEAK = 100e12;

// After the first step. Returns a line for the log, or "".
inline std::string decide_graphs(StepGraphs& s, const GPT& g, const Options& o) {
    s.decided = true;
    const bool forced = o.cuda_graphs == "on";
    if (o.cuda_graphs == "off" || (launch_overhead_us() == 0 && !forced)) return "";
    if (g.run.ranks > 1) return forced ? "--cuda-graphs on: not with several processes; launched kernel by kernel" : "";
    if (s.first_pass.launches == 0) return "--cuda-graphs on: this backend launches nothing";
    const double launches = double(s.first_pass.launches + size_t(g.run.micro_batches - 1) * s.next_pass.launches + s.update.launches);
    const double launch_ms = launches * launch_overhead_us() * 1e-3, peak = device_facts().peak_flops;
    const double flops_ms = flops_per_token(g) * double(o.batch_tokens) / (SHARE_OF_PEAK * (peak > 0 ? peak : UNKNOWN_PEAK)) * 1e3;
    const bool wanted = forced || launch_ms > GRAPHS_FROM * flops_ms;
    s.first_pass.wanted = s.next_pass.wanted = s.update.wanted = wanted;
    if (launch_overhead_us() == 0) return format("a step is %.0f launches: replayed as graphs", launches);
    return format("a step is %.0f launches, about %.2f ms of the host's time, and about %.2f ms of arithmetic (predicted): %s", launches,
                  launch_ms, flops_ms,
                  wanted ? "replayed as CUDA graphs (--cuda-graphs off: kernel by kernel)" : "launched kernel by kernel");
}
