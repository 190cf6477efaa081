// The small record of a finished run, a few kilobytes to be kept in the repository: a run's folder with what the report needs and no
// more, so that every table and picture is made again (build/report RECORDS) on any machine, by the same reader:
//   config.json        as it was, without paths; "record" holds what needs the training text: {"unigram": ...}
//   metrics.jsonl      the training curve thinned to 120 points, and every validation
//   val_sequences.f32, val_positions.f32      as they were;   samples.txt: the last sample
#pragma once
#include <string>

#include "tools/report/run.h"

// Writes the record of the run in folder `from` into folder `to`; false when the run is not finished. A file that would not change
// is left alone.
bool write_record(const std::string& from, const std::string& to, Problems& problems);

// A comparison's comparison.json or learning_rates.json into its record, without paths; left alone if it would not change.
void write_record_json(const std::string& path, nlohmann::json j);

// Records every finished run in `from`: one run into to/RUN, or a whole comparison, whose comparison.json, learning_rates.json and
// folders match-*/ and tune/ are mirrored. Returns how many runs are recorded.
size_t write_records(const std::string& from, const std::string& to, Problems& problems);
