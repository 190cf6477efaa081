// Reads multiple-choice questions from JSON lines; see questions.h.
#include "tools/questions.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "runtime/run/files.h"

std::vector<Question> questions_read(const std::string& path) {
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
