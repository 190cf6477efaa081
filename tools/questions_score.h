// How well a model answers multiple-choice questions (questions.h), as the evaluation harnesses score them: the loss of each ending
// after the context and a space.
//   accuracy      the smallest sum of the ending's losses        per token, per byte: the smallest sum over the ending's tokens
//                 (llm.c's "acc_norm"), over its bytes (lm-evaluation-harness's). The text is used unchanged, without their clean-up.
// The context is read once; every ending starts from its cache.
#pragma once
#include <string>
#include <vector>

#include "model/decode.h"
#include "runtime/run/signals.h"
#include "tokenizer/tokenizer.h"
#include "tools/questions.h"

struct Scores { int64_t questions = 0, right = 0, right_per_token = 0, right_per_byte = 0; };

// Sum of the losses of an ending. The context's last token is read again: it predicts the ending's first.
inline double ending_loss(Decoder& d, int context_length, const std::vector<int>& context, const std::vector<int>& ending) {
    d.length[0] = context_length - 1;
    std::vector<NewToken> tokens = {{0, context.back()}};
    for (size_t i = 0; i + 1 < ending.size(); i++) tokens.push_back({0, ending[i]});
    double sum = 0;
    for (double loss : decoder_losses(d, tokens, ending)) sum += loss;
    return sum;
}

inline Scores questions_score(Decoder& d, const Tokenizer& tokenizer, const std::vector<Question>& questions) {
    auto encode = [&](const std::string& text) {
        const std::vector<uint32_t> ids = tokenizer_encode(tokenizer, text);
        return std::vector<int>(ids.begin(), ids.end());
    };
    Scores s;
    for (const Question& q : questions) {
        if (stop_requested()) break;
        std::vector<int> context = encode(q.context);
        std::vector<std::vector<int>> endings;
        size_t longest = 0;
        for (const std::string& e : q.endings) {
            endings.push_back(encode(" " + e));
            longest = std::max(longest, endings.back().size());
        }
        const size_t room = size_t(d.shape.capacity);
        ensure_usage(longest > 0 && longest < room, "an ending of %zu tokens does not fit into the context of %zu", longest, room);
        if (context.empty()) context.push_back(0);
        // its end matters most
        if (context.size() + longest > room) context.erase(context.begin(), context.end() - int64_t(room - longest));
        d.length[0] = 0;
        std::vector<NewToken> tokens;
        for (int id : context) tokens.push_back({0, id});
        decoder_feed(d, tokens, [](size_t, int) {});
        const int length = d.length[0];
        size_t best = 0, best_per_token = 0, best_per_byte = 0;
        std::vector<double> loss;
        for (size_t i = 0; i < endings.size(); i++) {
            loss.push_back(ending_loss(d, length, context, endings[i]));
            auto better = [&](size_t than, auto size) { return loss[i] / double(size(i)) < loss[than] / double(size(than)); };
            if (better(best, [](size_t) { return 1; })) best = i;
            if (better(best_per_token, [&](size_t k) { return endings[k].size(); })) best_per_token = i;
            if (better(best_per_byte, [&](size_t k) { return q.endings[k].size() + 1; })) best_per_byte = i;
        }
        s.questions++;
        s.right += int(best) == q.label;
        s.right_per_token += int(best_per_token) == q.label;
        s.right_per_byte += int(best_per_byte) == q.label;
    }
    return s;
}
