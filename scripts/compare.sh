#!/usr/bin/env bash
# Trains every variant with every position and seed on the same data and the same batches, several trainers at a time, then writes the
# report. Called by `make compare`; set what you want to change in the environment: make compare VARIANTS="qkv qv:vo" STEPS=300 SEEDS=3
# Results: runs/NAME/{report.md,report.csv,loss.svg,loss.png} and one run per folder, runs/NAME/ROW-POS-SEED/.
# A finished run is kept, an interrupted one continues (Ctrl-C saves first): repeat the same command to go on. The work: tools/compare/.
#
# What is compared
#   VARIANTS      rows: variants, or variants with options of their own: "qkv qv:vo mla:dc=64,dr=16 gqa:kv-heads=1"     all variants
#   OPTIONS_mla   more options for every row of mla, such as OPTIONS_mla="--mla-dc 64"; so for every variant
#   POS           positions: learned sinusoidal rope alibi power none; several: POS="rope alibi"                       rope
#   SEEDS         how many; three or more for a claim. Default: as many as MINUTES allows, three at most
#                 auto: 3, then more while a row is undecided (tools/compare/looks.h); LOOKS: after how many seeds    3 5 8
#   FIRST_SEED    seeds FIRST_SEED, FIRST_SEED + 1, ...                                                                1
#   MINUTES       see SEEDS; measured with a short probe, said before the first run                                     10
#   MATCH         "layout params cache flops": ways of being equal to the baseline (tools/compare/match.h)              layout
#   CACHE         MATCH=cache: bytes per token                                                       half the baseline's
#   BASELINE      the row that differences are taken to                                                                qkv
# Learning rates (tools/compare/rates.h): LR for all rows, or TUNE=1 to measure each row's, or the measured table
#   RATES         the table                                                                docs/study/learning_rates.json
#   TUNE_STEPS    rates are measured and looked up for this number of steps                                            STEPS
# Sizes
#   SIZE          tiny: seconds, for tests; default: minutes on a laptop; small, base: hours, for a GPU                default
#   STEPS LR BATCH_TOKENS CONTEXT LAYERS HEADS WIDTH WARMUP VAL_TOKENS VAL_EVERY SCHEDULE FINAL_FRACTION               as SIZE says
# Where, how
#   DATA          folder with train*.bin, val*.bin; default: what scripts/get_data.sh makes, with a tokenizer of VOCAB (1024) tokens
#   AT_ONCE       trainers side by side; THREADS: of each. Default: one thread each on all cores, fewer where memory ends
#   LAUNCH        before every trainer, such as LAUNCH="mpirun -np 8" (one trainer at a time)
#   EXTRA         more options for every trainer, such as EXTRA="--grad-clip 0.5"
#   BRANCH_FROM   a checkpoint that every run goes on from, {run} in it for the run's name (scripts/study_budgets.sh)
#   FRESH=1       train again what is already there          KEEP_GOING=1  after a failed run, go on with the others
#   DRY_RUN=1     print the commands only                     RECORDS=DIR   keep small records of finished runs (tools/compare/records.h)
#   NAME          runs/NAME                                                                                   compare-SIZE
#   REPORT=0      no report at the end
#   BUILD, RUNS_DIR, SUFFIX (of the trainers' names: -cuda-bf16)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=${BUILD:-build}/compare
[[ -x $program ]] || { echo "compare: $program is missing: \`make compare\` builds it" >&2; exit 1; }
exec "$program"
