// Small records of finished runs, to be kept in the repository: RECORDS/NAME/RUN/ has what tools/report/record.h writes, and the run's
// signature. From records every table and picture is made again (build/report RECORDS/NAME), and a study that was stopped goes on, on
// another machine too. What another comparison has trained, the same row with the same signature, is not trained again either.
#pragma once
struct Job;

// Into job.record, if it has one.
void keep_record(const Job& job);
// The same for a run that was done before, unless its record is there: it may have been trained without RECORDS.
void keep_missing_record(const Job& job);
// Puts a record with this job's signature, its own or another comparison's, back among the runs, as done.
void fetch_record(const Job& job);
// Of two jobs with the same row, options and data (a row that two matchings leave alike), one is trained: its result is the other's, too.
void share_run(const Job& done, const Job& job);
