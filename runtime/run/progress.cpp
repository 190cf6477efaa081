// Progress as JSON; see progress.h.
#include "runtime/run/progress.h"

#include <nlohmann/json.hpp>

#include "runtime/run/error.h"

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

std::string described_in(const std::string& state_json, const std::string& where) {
    json state = json::parse(state_json);
    ensure(state.contains("run"), "%s: state.json does not say of which run it is", where.c_str());
    return state["run"].dump();
}

Progress progress_from_json(const std::string& state_json, const std::string&) {
    json state = json::parse(state_json);
    Progress at;
    at.step = state.at("step");
    at.samples = state.at("samples");
    at.seconds = state.at("seconds");
    at.best_val_loss = state.value("best_val_loss", double(INFINITY));
    at.skipped = state.at("skipped");
    at.not_finite_in_a_row = state.at("not_finite_in_a_row");
    at.spikes.norms = state.at("spike_window").get<std::vector<double>>();
    if (!state.contains("unlogged")) return at;
    auto number = [&](const char* key) { return state["unlogged"][key].is_number() ? state["unlogged"][key].get<double>() : NAN; };
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
