// Progress as JSON; see progress.h.
#include "runtime/run/progress.h"

#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "runtime/run/files.h"

using json = nlohmann::ordered_json;

std::string progress_to_json(const Progress& at, const std::string& description) {
    json state = {{"step", at.step},
                  {"samples", at.samples},
                  {"seconds", at.seconds},
                  {"skipped", at.skipped},
                  {"not_finite_in_a_row", at.not_finite_in_a_row},
                  {"spike_window", at.spikes.norms},
                  {"run", json::parse(description)}};
    if (std::isfinite(at.best_val_loss)) state["best_val_loss"] = at.best_val_loss;
    if (const auto& m = at.unlogged)
        state["unlogged"] = {{"loss", m->loss},
                             {"lr", m->lr},
                             {"grad_norm", m->grad_norm},
                             {"tokens_per_second", m->tokens_per_second},
                             {"mfu", m->mfu}};
    return state.dump(2);
}

static constexpr int64_t STEP_MAX = 1'000'000'000'000'000;          // as --steps; a larger number is no count of anything here
static constexpr JsonLimits STATE_LIMITS = {.depth = 8, .members = 10'000, .total = 100'000};

static nlohmann::json state_object(const std::string& text, const std::string& where) {
    nlohmann::json state = json_parse(text, where, STATE_LIMITS);
    ensure(state.is_object(), "%s: is not a JSON object", where.c_str());
    return state;
}

// The value of a key; `null` when there is none.
static const nlohmann::json& at_key(const nlohmann::json& object, const char* key) {
    static const nlohmann::json none;
    return object.contains(key) ? object.at(key) : none;
}
static std::string shown(const nlohmann::json& value) {
    return printable(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), 60);
}

static int64_t whole_number(const nlohmann::json& state, const char* key, int64_t max, const std::string& where) {
    const nlohmann::json& value = at_key(state, key);
    ensure(value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t(max),
           "%s: \"%s\" is %s; expected a whole number, 0 to %lld", where.c_str(), key, shown(value).c_str(),
           (long long)max);
    return value.get<int64_t>();
}
static double finite_number(const nlohmann::json& value, const char* key, const std::string& where) {
    ensure(value.is_number() && std::isfinite(value.get<double>()), "%s: \"%s\" is %s; expected a number",
           where.c_str(), key, shown(value).c_str());
    return value.get<double>();
}
static double not_negative(const nlohmann::json& value, const char* key, const std::string& where) {
    const double x = finite_number(value, key, where);
    ensure(x >= 0, "%s: \"%s\" is %s; expected a number, 0 or more", where.c_str(), key, shown(value).c_str());
    return x;
}

std::string described_in(const std::string& state_json, const std::string& where) {
    const nlohmann::json state = state_object(state_json, where);
    ensure(at_key(state, "run").is_object(), "%s: \"run\", the description of the run, is %s", where.c_str(),
           shown(at_key(state, "run")).c_str());
    return state["run"].dump();
}

Progress progress_from_json(const std::string& state_json, int64_t step, uint64_t sequences, const std::string& where) {
    const nlohmann::json state = state_object(state_json, where);
    Progress at;
    at.step = whole_number(state, "step", STEP_MAX, where);
    ensure(at.step == step, "%s: \"step\" is %lld in the checkpoint of step %lld", where.c_str(), (long long)at.step, (long long)step);
    at.samples = uint64_t(whole_number(state, "samples", INT64_MAX, where));
    uint64_t expected;
    ensure(!__builtin_mul_overflow(uint64_t(step), sequences, &expected) && at.samples == expected,
           "%s: \"samples\" is %llu; %lld steps of %llu sequences are another number", where.c_str(),
           (unsigned long long)at.samples, (long long)step, (unsigned long long)sequences);
    at.seconds = not_negative(at_key(state, "seconds"), "seconds", where);
    if (state.contains("best_val_loss")) at.best_val_loss = finite_number(state["best_val_loss"], "best_val_loss", where);
    at.skipped = whole_number(state, "skipped", at.step, where);
    at.not_finite_in_a_row = int(whole_number(state, "not_finite_in_a_row", at.skipped, where));
    const nlohmann::json& window = at_key(state, "spike_window");
    ensure(window.is_array() && window.size() <= SpikeWindow::WINDOW,
           "%s: \"spike_window\" is not a list of at most %zu numbers", where.c_str(), SpikeWindow::WINDOW);
    for (const nlohmann::json& norm : window) at.spikes.norms.push_back(not_negative(norm, "spike_window", where));
    if (!state.contains("unlogged")) return at;
    const nlohmann::json& unlogged = state["unlogged"];
    ensure(unlogged.is_object(), "%s: \"unlogged\" is %s; expected an object", where.c_str(), shown(unlogged).c_str());
    auto number = [&](const char* key) {
        const nlohmann::json& value = at_key(unlogged, key);
        return value.is_null() ? NAN : finite_number(value, key, where);
    };
    StepMetrics m;
    m.step = at.step;
    m.seconds = at.seconds;
    m.loss = number("loss");
    m.lr = number("lr");
    m.grad_norm = number("grad_norm");
    m.tokens_per_second = number("tokens_per_second");
    m.mfu = number("mfu");
    at.unlogged = m;
    return at;
}
