#!/usr/bin/env bash
# The study: which attention is enough, at which cache, and how sure is that? Called by `make study`; overnight; it continues
# when repeated, from runs/ or from the records in docs/study/ (small, to be committed), on another machine too. What it will
# cost is printed first.
#   1 learning rates of every row, tuned          TUNE=1, rates a factor sqrt 2 apart, a seed that is not used afterwards
#   2 five paired seeds at equal layout           3 at equal parameters, cache, training FLOPs
#   4 the second text, the same again             5 recall
#   6 budgets: half and double the tokens         7 a ladder of widths, with a prediction for 124M
#   ONLY="king-james matchings second-text recall budgets ladder"   POS=rope   TEXT2=DIR (its data folder)
#   SEEDS=5, or auto: as many as decide (scripts/compare.sh)
#   VARIANTS SIZE RUNS_DIR BUILD NICE=15 RECORDS
#   Parts 5 to 7 have settings of their own, for which see scripts/recall.sh, study_budgets.sh, study_ladder.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD=${BUILD:-build} RUNS_DIR=${RUNS_DIR:-runs} SEEDS=${SEEDS:-5} POS=${POS:-rope} SIZE=${SIZE:-default}
VARIANTS=${VARIANTS:-qkv mqa gqa mla qv qv:key qv_ka gta}
TEXT1=${TEXT1:-} TEXT2=${TEXT2:-} RECORDS=${RECORDS-docs/study}
ONLY=${ONLY:-king-james matchings second-text recall budgets ladder}

say() { printf 'study: %s\n' "$*" >&2; }
for program in compare report probe-data probe-table scaling; do
    [[ -x $BUILD/$program ]] || { say "$BUILD/$program is missing: \`make study\` builds it"; exit 1; }
done
[[ -n $TEXT1 ]] || TEXT1=$(scripts/get_data.sh)
for word in $ONLY; do
    [[ $word =~ ^(king-james|matchings|second-text|recall|budgets|ladder)$ ]] || {
        say "ONLY: $word: king-james, matchings, second-text, recall, budgets, ladder"; exit 2; }
done
wants() { [[ " $ONLY " == *" $1 "* ]]; }

# ---- the cost, from a probe of one row: a run is about the same for all rows. Parts 5 to 7 as what they cost in runs: 12 of 3,
# 12 trunks of 2 with branches and 14 to tune, 24 ladders of 6 (15 of them to tune)
rows=$(wc -w <<<"$VARIANTS")
runs=0 seeds=$SEEDS
[[ $SEEDS != auto ]] || seeds=$(awk '{ print $NF }' <<<"${LOOKS:-3 5 8}")
wants king-james && runs=$((runs + rows * (seeds + 4)))
wants matchings && runs=$((runs + 3 * rows * seeds))
wants second-text && [[ -n $TEXT2 ]] && runs=$((runs + rows * (seeds + 4)))
wants recall && runs=$((runs + 36))
wants budgets && runs=$((runs + 42))
wants ladder && runs=$((runs + 144))
case $SIZE in default) sizes=(--layers 4 --width 128 --heads 4 --context 128 --batch-tokens 1024 --steps 900) ;; *) sizes=() ;; esac
if ((${#sizes[@]})); then
    second=$("$BUILD/train-qkv" "${sizes[@]}" --data "$TEXT1" --threads 1 --dry-run | sed -n 's/.*"step_seconds":\([0-9.e+-]*\).*/\1/p')
    cores=$(nproc)
    awk -v runs="$runs" -v s="$second" -v cores="$cores" 'BEGIN {
        each = 900 * s * 1.25
        printf "study: %d runs of about %.0f s of one core, %d at a time: about %.1f hours; ", runs, each, cores, runs * each / cores / 3600
        print "repeat the command after a stop"
    }' >&2
else
    say "$runs runs of this size, parts 5 to 7 as they are"
fi

compare() {      # NAME DATA MATCH
    say "$1: equal $3"
    nice -n "${NICE:-0}" env NAME="$1" DATA="$2" MATCH="$3" POS="$POS" SIZE="$SIZE" VARIANTS="$VARIANTS" SEEDS="$SEEDS" \
        TUNE=1 BASELINE=qkv RECORDS="$RECORDS" RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" scripts/compare.sh
}
name=$(basename "$TEXT1")
wants king-james && compare "study-$name" "$TEXT1" layout
wants matchings && compare "study-$name" "$TEXT1" "cache params flops"
if wants second-text; then
    if [[ -n $TEXT2 ]]; then compare "study-$(basename "$TEXT2")" "$TEXT2" layout
    else say "no second text: TEXT2=DIR, made with scripts/get_data.sh --out data/NAME --source FILE"; fi
fi
part() { env RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" RECORDS="$RECORDS" "${@:2}" "scripts/$1.sh"; }
if wants recall; then part recall VARIANTS= SEEDS=; fi
if wants budgets; then part study_budgets VARIANTS= SEEDS= DATA="$TEXT1"; fi
if wants ladder; then part study_ladder VARIANTS= SEEDS= DATA="$TEXT1"; fi
[[ -z $RECORDS ]] || BUILD="$BUILD" RECORDS="$RECORDS" scripts/study_page.sh
say "records: ${RECORDS:-none}; tables: $RUNS_DIR/study-*/report.md; verdicts on the claims: make claims"
