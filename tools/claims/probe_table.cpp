// probe-table: accuracies of the probes that scripts/recall.sh trained, as Markdown: one row for each variant, one column for each task,
// width and number of heads; in a cell the best learning rate's mean accuracy at the end over seeds, how many seeds, and for each seed the
// step of the first validation at which nine of ten answers were right.
//   build/probe-table RUNS_DIR > RUNS_DIR/probes.md
// Comparisons are named TASK-wWIDTH-hHEADS-lrRATE: recall-64-4-w64-h4-lr0.003.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/run/error.h"
#include "tools/claims/results.h"
#include "tools/one_line.h"

struct Cell { double accuracy = NAN; size_t seeds = 0; std::string rate, learnt; };

static std::vector<std::string> rows_of(const std::string& folder) {
    std::ifstream file(folder + "/comparison.json");
    const nlohmann::json j = nlohmann::json::parse(file, nullptr, false);
    std::vector<std::string> rows;
    if (j.is_object() && j.contains("rows"))
        for (const auto& row : j["rows"]) rows.push_back(row.value("row", ""));
    return rows;
}

static int print_table(const std::string& runs_dir) {
    std::vector<std::string> columns, rows;
    std::map<std::pair<std::string, std::string>, Cell> cells;
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(runs_dir)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
        const size_t rate = name.rfind("-lr");
        if (rate == std::string::npos ||
            !(name.starts_with("recall-") || name.starts_with("copy-") || name.starts_with("induction-")))
            continue;
        const std::string column = name.substr(0, rate), folder = runs_dir + "/" + name;
        const Results r = open_results(folder);
        if (std::find(columns.begin(), columns.end(), column) == columns.end()) columns.push_back(column);
        for (const std::string& row : rows_of(folder)) {
            if (std::find(rows.begin(), rows.end(), row) == rows.end()) rows.push_back(row);
            std::vector<double> accuracies;
            std::string learnt;
            for (int64_t seed : r.seeds) {
                accuracies.push_back(accuracy_at_end(r, row, "rope", seed));
                if (std::isnan(accuracies.back())) continue;
                const int64_t step = step_of_accuracy(r, row, "rope", seed, 0.9);
                learnt += (learnt.empty() ? "" : ", ") + (step < 0 ? std::string("never") : std::to_string(step));
            }
            const Interval i = interval_of(accuracies);
            Cell& cell = cells[{row, column}];
            if (i.n > 0 && !(i.mean <= cell.accuracy)) cell = {i.mean, i.n, name.substr(rate + 3), learnt};
        }
    }
    ensure(!columns.empty(), "%s: no probes in it; make recall trains them", runs_dir.c_str());
    std::string head = "| |", rule = "|---|";
    for (const std::string& c : columns) {
        head += " " + c + " |";
        rule += "---:|";
    }
    printf("%s\n%s\n", head.c_str(), rule.c_str());
    for (const std::string& row : rows) {
        printf("| %s |", row.c_str());
        for (const std::string& c : columns) {
            const Cell& cell = cells[{row, c}];
            printf("%s |", cell.seeds == 0 ? " -"
                                           : format(" %.3f (%zu, lr %s; 0.9 at: %s)", cell.accuracy, cell.seeds, cell.rate.c_str(),
                                                    cell.learnt.c_str())
                                                 .c_str());
        }
        printf("\n");
    }
    printf("| one of the values there, at random |");               // what knows which values there are, and recalls nothing
    for (const std::string& c : columns) {
        int context = 0, pairs = 0;
        const bool recall = sscanf(c.c_str(), "recall-%d-%d", &context, &pairs) == 2 && pairs > 0;
        printf("%s |", recall ? format(" %.3f", 1.0 / pairs).c_str() : "");
    }
    printf("\n");
    return EXIT_DONE;
}

int main(int argc, char** argv) {
    return errors_in_one_line("probe-table", [&] {
        ensure_usage(argc == 2 && argv[1][0] != '-', "probe-table RUNS_DIR");
        return print_table(argv[1]);
    });
}
