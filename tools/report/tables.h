// The tables of the report, and their three forms: terminal, Markdown, HTML.
#pragma once
#include <string>
#include <vector>

#include "tools/report/comparison.h"
#include "tools/report/text.h"

enum class Tone { plain, better, worse, quiet };          // of a row: what its verdict says
struct Table {
    std::vector<std::string> header;
    std::vector<std::vector<std::string>> rows;
    std::vector<Tone> tones;                              // one per row
    size_t left = 1;                                      // so many columns are text, aligned left
    std::vector<size_t> breaks;                           // an empty line before these rows, on the terminal
    size_t last = 0;                                      // the section's row that was added last
};

Table results_table(const Section& s, const Comparison& c);      // what was trained, how it ended, the verdict
Table differences_table(const Section& s, const Comparison& c);  // intervals over seeds and over text
Table sizes_table(const Section& s);                             // parameters, cache, FLOPs, speed

std::string verdict_words(const Difference& d);
std::string precision_of(const Section& s);                      // "fp32", "bf16"; "mixed": the cells say which
std::string table_for_terminal(const Table& t, bool colour);
std::string table_for_markdown(const Table& t);
std::string table_for_html(const Table& t);
