#!/usr/bin/env bash
# Does the order hold with half and double the tokens? Each row trains for twice BASE_STEPS with --schedule wsd (warm-up, a
# constant rate, a decay over the last fifth). With that schedule a shorter run is the same run until its decay begins: once and
# half BASE_STEPS are branches off checkpoints of the long one (--branch-from), 2.3 trainings' work instead of 3.5, and the same
# bits as from the start. So a row has one rate for all three, tuned at BASE_STEPS. Then build/scaling: differences by budget.
#   SEEDS=3 VARIANTS="qkv gqa mla qv" BASE_STEPS=900 DATA RECORDS RUNS_DIR BUILD NICE
#   TUNE= LR=0.004     one rate for all rows instead
#   results: RUNS_DIR/budget-1800, budget-900, budget-450, RUNS_DIR/budgets
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
base=${BASE_STEPS:-900} BUILD=${BUILD:-build} RUNS_DIR=${RUNS_DIR:-runs} RECORDS=${RECORDS:-}
say() { printf 'study_budgets: %s\n' "$*" >&2; }
[[ $base =~ ^[1-9][0-9]*0$ ]] || { say "BASE_STEPS=$base: give a multiple of 10"; exit 2; }
for program in compare scaling; do
    [[ -x $BUILD/$program ]] || { say "$BUILD/$program is missing: \`make study-binaries\` builds it"; exit 1; }
done
long=$((base * 2))
budget() {               # steps, more settings
    nice -n "${NICE:-0}" env NAME="budget-$1" STEPS="$1" WARMUP="${WARMUP:-50}" SCHEDULE=wsd SEEDS="${SEEDS:-3}" \
        VARIANTS="${VARIANTS:-qkv gqa mla qv}" MATCH=layout RECORDS="$RECORDS" RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" \
        TUNE="${TUNE-1}" TUNE_STEPS="$base" EXTRA="--keep 9" "${@:2}" scripts/compare.sh
}
budget $long             # a comparison saves every fifth of its steps: here at 0.4, 0.8, 1.2, 1.6 and 2 times BASE_STEPS
for steps in $base $((base / 2)); do
    budget "$steps" BRANCH_FROM="$(printf '%s/budget-%d/{run}/checkpoints/step-%08d' "$RUNS_DIR" $long $((steps * 4 / 5)))"
done
"$BUILD/scaling" "$RUNS_DIR"/budget-{$((base / 2)),$base,$long} --out "$RUNS_DIR/budgets"
