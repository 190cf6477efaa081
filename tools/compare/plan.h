// From settings and rows to runs: the cells of the table, their commands, what they take of time and memory, how many run at once.
#pragma once
#include <string>
#include <vector>

#include "tools/compare/jobs.h"
#include "tools/compare/settings.h"
#include "tools/compare/trainer.h"

// A row at a position under a matching: trained once for every seed.
struct Cell {
    RowSpec row;
    std::string pos, matching = "layout";
    std::vector<std::string> matched;        // options that the matching adds
    double lr = 0;
    int64_t steps = 0;
    Numbers numbers;
    double seconds = 0;                      // expected of one run
};

std::vector<std::string> cell_arguments(const Settings& s, const Cell& c, int64_t seed, double lr);
Job cell_job(const Settings& s, const Cell& c, int64_t seed, const std::string& data_mark);
// A name for the data's content: a run that saw other data is another run.
std::string data_mark(const std::string& data);

// Fills in the numbers of every cell; with `probe` also the expected seconds, measured with as many probes at once as trainers will run.
void ask_cells(const Settings& s, std::vector<Cell>& cells, bool probe, const Place& place);
// How many trainers, with how many threads. One thread each makes the most of the cores; fewer when memory or the number of runs asks
// for it. Fails when not even one fits.
Place choose_place(const Settings& s, const std::vector<Cell>& cells, size_t runs);
// What one seed of all cells takes: a run that two ways of being equal leave alike is trained once (share_run).
struct OneSeed { size_t runs = 0; double seconds = 0; };
OneSeed one_seed(const Settings& s, const std::vector<Cell>& cells);
// SEEDS, or as many as fit MINUTES, three at most.
int64_t choose_seeds(const Settings& s, const std::vector<Cell>& cells, const Place& place);
// comparison.json of a folder: rows, seeds, plan, how far it is.
void write_comparison(const Settings& s, const std::string& folder, const std::string& matching, const std::vector<Cell>& cells,
                      int64_t seeds, const std::string& plan, size_t finished, size_t total);
