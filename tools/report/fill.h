// A page whose numbers come from reports: text with holes, so that no number of a result is typed by hand (docs/study/page.md becomes
// docs/STUDY.md). A hole names the folder of a report, relative to the template's own:
//   {{NAME MATCHING ROW FIELD}}       a number of NAME/report.json: the section with this matching (layout, params, cache, flops), the
//   row, then one
//                                     of val_loss, bits_per_byte, difference, sd, interval, corrected_interval, text_interval, p,
//                                     corrected_p, pairs, seeds, cache_bytes_per_token, parameters_non_embedding, flops_per_token,
//                                     verdict, settings
//   {{NAME MATCHING - FIELD}}         of the section: sd_between_seeds, sd_of_paired_difference, tests
//   {{table NAME HEADING...}}         the first table below the line "HEADING..." of NAME/report.md, or of NAME when that is a .md file;
//                                     "## A > ### B" for the heading B below the heading A
//   {{holds NAME MATCHING CLAIM ROW...}}       nothing, and an error unless it is so: the sentence beside it cannot outlive its number.
//                                     CLAIM: better, worse, not-told-apart (the rows' verdicts); order (their mean losses rise);
//                                     above-0, below-0, around-0 (their intervals). A line of nothing else is left out
// A hole that cannot be filled is an error with its line.
#pragma once
#include <string>

std::string fill_page(const std::string& template_path);
