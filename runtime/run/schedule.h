// Learning rate by step. Linear warm-up over `warmup` steps, lr (step + 1) / (warmup + 1), then one of
//   cosine    lr * (f + (1 - f) (1 + cos(pi t)) / 2)           t in [0, 1] over the rest  [Loshchilov & Hutter 2017]
//   linear    lr * (1 - (1 - f) t)
//   wsd       lr until the last `decay_fraction` of all steps, then linear to f * lr     [Hu et al. 2024, "MiniCPM"]
//   constant  lr
// f = final_fraction. Steps count from 0; the last step (steps - 1) has t = 1.
#pragma once
#include <cstdint>
#include <string>

struct Schedule {
    std::string kind = "cosine";
    double lr = 1e-3, final_fraction = 0.1, decay_fraction = 0.2;
    int64_t warmup = 0, steps = 1000;
};

double schedule_lr(const Schedule& s, int64_t step);
