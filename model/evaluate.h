// The validation loss: the mean over the same fixed samples in every run, whatever the number of ranks.
#pragma once
#include <cmath>
#include <vector>

#include "dataloader/data.h"
#include "model/gpt.h"
#include "runtime/run/signals.h"

struct Evaluation {
    double loss = NAN, bits_per_byte = NAN;      // nats per token; bits per byte of text
    double accuracy = NAN;                       // with masks (probes): share of the counted targets that the likeliest token gets right
    std::vector<float> by_sequence;              // mean nats per token of each validation sample, in their order
    std::vector<float> by_position;              // mean nats at each position of the context; empty with masks
    bool stopped = false;                        // a stop request cut it short: the losses are NaN
};

inline Evaluation stopped_evaluation() {
    Evaluation e;
    e.stopped = true;
    return e;
}

// For how many of the targets that count the likeliest token is right, from the logits that gpt_loss left on the device.
inline double count_correct(const GPT& g, const std::vector<int>& targets, size_t rows) {
    std::vector<floatX> logits(size_t(g.c.V));
    double correct = 0;
    for (size_t r = 0; r < rows; r++) {
        if (targets[r] < 0) continue;
        copy_to_host(logits.data(), g.logits + r * size_t(g.c.Vp()), logits.size() * sizeof(floatX));
        size_t best = 0;
        for (size_t v = 1; v < logits.size(); v++)
            if (float(logits[v]) > float(logits[best])) best = v;
        correct += int(best) == targets[r];
    }
    return correct;
}

// The ranks take batches in turn. The sums are added in the order of the samples, so the number of ranks changes nothing.
// Targets below 0 do not count (masked positions).
inline Evaluation evaluate(GPT& g, const Data& d) {
    const int T = g.c.T, ranks = comm_size();
    const int64_t batches = (d.val_samples + g.max_B - 1) / g.max_B;
    std::vector<int> inputs(size_t(g.max_B) * T), targets(inputs.size());
    // Nats, bytes, counted tokens and right ones of each batch; the nats of each sample; of each position in each batch, [batches, T].
    // Every rank fills in its own.
    std::vector<double> sums(size_t(4 * batches + d.val_samples + batches * T));
    double *nats = sums.data(), *bytes = nats + batches, *tokens = bytes + batches, *right = tokens + batches;
    double *by_sequence = right + batches, *by_position = by_sequence + d.val_samples;
    gpt_wait_for_weights(g);
    for (int64_t first = 0; first < batches; first += ranks) {
        if (comm_any(stop_requested(), "validation")) return stopped_evaluation();
        const int64_t batch = first + comm_rank(), sample = batch * g.max_B;
        if (batch >= batches) continue;
        const int B = int(std::min<int64_t>(g.max_B, d.val_samples - sample));
        for (int b = 0; b < B; b++) dataset_read(d.val, validation_sample(d, sample + b), &inputs[size_t(b) * T], &targets[size_t(b) * T]);
        nats[batch] = gpt_loss(g, inputs.data(), targets.data(), B, T);
        if (d.val.masked) right[batch] = count_correct(g, targets, size_t(B) * T);
        for (int b = 0; b < B; b++) {
            double sum = 0;
            int counted = 0;
            for (int t = 0; t < T; t++) {
                const int target = targets[size_t(b) * T + t];
                if (target < 0) continue;
                bytes[batch] += d.token_bytes[size_t(target)];
                const double loss = double(g.host_losses[size_t(b) * T + t]);
                sum += loss;
                by_position[batch * T + t] += loss;
                counted++;
            }
            tokens[batch] += counted;
            by_sequence[sample + b] = counted > 0 ? sum / counted : 0;
        }
    }
    comm_sum(sums.data(), sums.size(), "validation losses");
    double all_nats = 0, all_bytes = 0, all_tokens = 0, all_right = 0;
    for (int64_t batch = 0; batch < batches; batch++) {
        all_nats += nats[batch];
        all_bytes += bytes[batch];
        all_tokens += tokens[batch];
        all_right += right[batch];
    }
    Evaluation e;
    e.loss = all_nats / all_tokens;
    e.bits_per_byte = all_nats / std::log(2.0) / all_bytes;
    if (d.val.masked) e.accuracy = all_right / all_tokens;
    e.by_sequence.assign(by_sequence, by_sequence + d.val_samples);
    if (!d.val.masked) {
        for (int t = 0; t < T; t++) {
            double sum = 0;
            for (int64_t batch = 0; batch < batches; batch++) sum += by_position[batch * T + t];
            e.by_position.push_back(float(sum / double(d.val_samples)));
        }
    }
    return e;
}
