#!/usr/bin/env bash
# Does the order hold with half and double the tokens? Trains each row for half, once and twice BASE_STEPS with --schedule wsd (warm-up, a
# constant rate, a decay over the last fifth). With that schedule the three runs of a row and seed are the same run until the shorter one
# begins to decay, so one trunk with three decays would do for 2.2 instead of 3.5 trainings; the trainer cannot yet branch off a checkpoint
# with another schedule, so each budget is a run of its own. The results are those of branches.
#   SEEDS=3 VARIANTS="qkv gqa mla qv" BASE_STEPS=900 RUNS_DIR BUILD NICE     results: RUNS_DIR/budget-450, budget-900, budget-1800
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
base=${BASE_STEPS:-900}
for steps in $((base / 2)) "$base" $((base * 2)); do
    nice -n "${NICE:-0}" env NAME="budget-$steps" STEPS="$steps" WARMUP=50 SCHEDULE=wsd SEEDS="${SEEDS:-3}" VARIANTS="${VARIANTS:-qkv gqa mla qv}" MATCH=layout scripts/compare.sh
done
