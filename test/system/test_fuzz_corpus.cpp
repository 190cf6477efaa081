// Replays the committed inputs of the fuzzers (test/fuzz): hostile files that were made by hand or found by libFuzzer. Fuzzing itself:
// test/fuzz/run.sh.
#include <doctest/doctest.h>

#include "test/fuzz/targets.h"
#include "test/temp_dir.h"

TEST_CASE("fuzz corpora: accepted or refused, nothing else; cut short as well") {
    for (const fuzz::Target& target : fuzz::TARGETS) {
        CAPTURE(target.name);
        int accepted = 0, refused = 0;
        for (const auto& entry : std::filesystem::directory_iterator(std::string("test/fuzz/corpus/") + target.name)) {
            CAPTURE(entry.path().string());
            const std::string text = slurp(entry.path());
            auto run = [&](size_t size) { return target.run(reinterpret_cast<const uint8_t*>(text.data()), size); };
            (run(text.size()) ? accepted : refused)++;
            for (size_t part : {1, 2, 3}) run(text.size() * part / 4);
        }
        CHECK(accepted >= 2);
        CHECK(refused >= 3);
    }
}
