// Multiple-choice questions in HellaSwag's JSON lines [Zellers et al. 2019]: {"ctx": "...", "endings": ["...", ...], "label": 2} a line;
// other keys are left alone. Scored as the evaluation harnesses do: the loss of each ending after the context and a space.
//   accuracy      the smallest sum of the ending's losses        per token, per byte: the smallest sum over the ending's tokens
//                 (llm.c's "acc_norm"), over its bytes (lm-evaluation-harness's). The text is used unchanged, without their clean-up.
// The context is read once; every ending starts from its cache.
#pragma once
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/decode.h"
#include "runtime/run/files.h"
#include "runtime/run/signals.h"
#include "tokenizer/tokenizer.h"

struct Question { std::string context; std::vector<std::string> endings; int label; };
struct Scores { int64_t questions = 0, right = 0, right_per_token = 0, right_per_byte = 0; };

inline std::vector<Question> questions_read(const std::string& path) {
    std::ifstream in(path);
    ensure_usage(in.good(), "%s: cannot be read", path.c_str());
    std::vector<Question> list;
    int64_t number = 0;
    for (std::string line; std::getline(in, line);) {
        number++;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const std::string where = format("%s, line %lld", path.c_str(), (long long)number);
        const nlohmann::json j = json_parse(line, where);
        const bool right = j.is_object() && j.contains("ctx") && j["ctx"].is_string() && j.contains("endings") &&
                           j["endings"].is_array() && j.contains("label");
        ensure_usage(right, "%s: not a question; it needs \"ctx\", \"endings\" and \"label\"", where.c_str());
        Question q{j["ctx"].get<std::string>(), {}, -1};
        for (const auto& e : j["endings"]) {
            ensure_usage(e.is_string(), "%s: an ending is not a text", where.c_str());
            q.endings.push_back(e.get<std::string>());
        }
        if (j["label"].is_number_integer()) q.label = j["label"].get<int>();
        if (j["label"].is_string()) q.label = atoi(j["label"].get<std::string>().c_str());
        ensure_usage(q.label >= 0 && q.label < int(q.endings.size()), "%s: the label is none of the %zu endings",
                     where.c_str(), q.endings.size());
        list.push_back(q);
    }
    ensure_usage(!list.empty(), "%s: no question in it", path.c_str());
    return list;
}

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
