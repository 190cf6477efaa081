// state.json and a run's description with any content: only possible values are accepted, anything else is one line that
// names the file and the key.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "runtime/run/description.h"
#include "runtime/run/progress.h"
#include "test/temp_dir.h"

using json = nlohmann::json;

static Progress some_progress() {
    Progress at;
    at.step = 30;
    at.samples = 240;
    at.seconds = 1.5;
    at.best_val_loss = 5.25;
    at.skipped = 3;
    at.not_finite_in_a_row = 2;
    at.spikes.norms = {1, 2.5, 0};
    at.unlogged = StepMetrics();
    at.unlogged->step = 30;
    at.unlogged->loss = 5;
    return at;
}
static std::string described() {
    RunFacts facts;
    facts.backend = "cpu";
    facts.precision = "fp32";
    facts.cpu = "Z80";
    return describe_run(facts, Options());
}
static std::string error(const json& state) {
    return error_of([&] { progress_from_json(state.dump(), 30, 8, "DIR/state.json"); });
}

TEST_CASE("state.json: there and back") {
    const std::string text = progress_to_json(some_progress(), described());
    const Progress at = progress_from_json(text, 30, 8, "state.json");
    CHECK(at.step == 30);
    CHECK(at.samples == 240);
    CHECK(at.seconds == 1.5);
    CHECK(at.best_val_loss == 5.25);
    CHECK(at.skipped == 3);
    CHECK(at.not_finite_in_a_row == 2);
    CHECK(at.spikes.norms == std::vector<double>{1, 2.5, 0});
    REQUIRE(at.unlogged.has_value());
    CHECK(at.unlogged->loss == 5);
    CHECK(std::isnan(at.unlogged->grad_norm));
    CHECK(json::parse(described_in(text, "")) == json::parse(described()));
}

TEST_CASE("state.json: wrong types and impossible values are refused, file and key named") {
    const json good = json::parse(progress_to_json(some_progress(), described()));
    CHECK(error(good) == "");
    const std::vector<json> never = {nullptr, true, "30", json::array(), json::object(), -1, 1e30, 0.5, UINT64_MAX, INT64_MIN};
    for (const char* key : {"step", "samples", "skipped", "not_finite_in_a_row"}) {
        for (const json& value : never) {
            json state = good;
            state[key] = value;
            CHECK_MESSAGE((has(error(state), "DIR/state.json: ") && has(error(state), std::string("\"") + key + "\"")),
                          key << ": " << value.dump() << ": " << error(state));
        }
        json state = good;
        state.erase(key);
        CHECK(has(error(state), std::string("\"") + key + "\" is null"));
    }
    for (const auto& [key, value] : std::vector<std::pair<std::string,
         json>>{{"seconds", -1}, {"seconds", "x"}, {"best_val_loss", "x"}, {"spike_window", 3}, {"unlogged", 3},
                {"spike_window", {1, -2}}, {"spike_window", {1, "x"}}, {"spike_window", std::vector<double>(101, 1.0)},
                {"step", 31}, {"samples", 241}, {"skipped", 31}, {"not_finite_in_a_row", 4}}) {
        json state = good;
        state[key] = value;
        CHECK_MESSAGE((has(error(state), "DIR/state.json: ") && has(error(state), key)),
                      key << ": " << value.dump() << ": " << error(state));
    }
    json state = good;
    state["unlogged"]["loss"] = "x";
    CHECK(has(error(state), "loss"));
    for (const char* text : {"", "[]", "3", "{", "{\"a\":1,\"a\":2}"}) {
        CHECK(has(error_of([&] { progress_from_json(text, 30, 8, "DIR/state.json"); }), "DIR/state.json: "));
        CHECK(has(error_of([&] { described_in(text, "DIR/state.json"); }), "DIR/state.json: "));
    }
    CHECK(has(error_of([&] { described_in("{\"run\": 3}", "DIR/state.json"); }), "\"run\""));
}

TEST_CASE("a run's description: parts of wrong types are refused, and the file that holds it is the one blamed") {
    const std::string now = described();
    CHECK(error_of([&] { check_same_run(now, now, Options(), 1, "W"); }) == "");
    for (const char* part : {"attn", "options", "model", "build", "machine", "data"})
        for (const json& value : {json(nullptr), json(3), json("x"), json::array(), json::object()}) {
            json old = json::parse(now);
            old[part] = value;
            const std::string message = error_of([&] { check_same_run(old.dump(), now, Options(), 1, "W"); });
            if (!message.empty()) CHECK_MESSAGE(has(message, "W: "), part << " " << value.dump() << ": " << message);
            error_of([&] { rounding_notes(old.dump(), now, Options()); });           // an Error or none, no other exception
        }
    json old = json::parse(now);
    old["options"]["lr"] = "x";
    CHECK(has(error_of([&] { check_same_run(old.dump(), now, Options(), 1, "W"); }), "W: lr: expected a number"));
    old = json::parse(now);
    old["machine"]["ranks"] = "x";
    CHECK(error_of([&] { check_same_run(old.dump(), now, Options(), 1, "W"); }) == "");
}
