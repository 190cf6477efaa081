// The report's documents, all from the same Comparison and Gallery: text for the terminal, report.md, report.html (one file, no
// network, light and dark, readable on a phone; it reloads itself while the comparison runs), report.csv and report.json.
#pragma once
#include <string>
#include <vector>

#include "tools/report/pictures.h"

struct Document {
    Comparison comparison;
    Gallery gallery;
    std::vector<double> unigram;                     // of each section; NaN: unknown
    Problems problems;
    std::vector<std::pair<std::string, std::string>> files;      // pictures beside the report: name, alternative text
    std::string again;                               // the command that writes this report
};

std::string for_terminal(const Document& d, bool colour);
std::string for_markdown(const Document& d);
std::string for_html(const Document& d, double now);             // now: seconds since 1970, for the time left
std::string for_csv(const Comparison& c);                        // one line per run
std::string for_json(const Comparison& c);                       // one object per row, with every interval

std::string section_title(const Comparison& c, const Section& s);
std::string command_of(const Run& run);              // build/train-VARIANT with every option that is not the default
std::string progress_words(const Comparison& c,
                           double now);    // "5 of 18 runs, about 12m left"; "" when nothing is planned or all is done
