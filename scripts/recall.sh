#!/usr/bin/env bash
# What perplexity hides: associative recall, copying, induction (tools/probe_data.cpp says how they are made), as accuracies.
# Called by `make recall`; it continues when repeated. Results: RUNS_DIR/probes.md, one comparison for each task, width, heads, rate.
#   default   recall of 4 pairs (16 keys, 16 values, 12 queries in 32 tokens), width 64, heads 1 and 4, 6000 steps of 128 sequences at
#             2e-3, one seed: a run takes 6 minutes of one core. Fewer steps say nothing: qkv with one head stays at what guessing gives
#             for 2000 steps, and has learnt the task at 5000 (docs/LOG.md). TASKS="copy-64 induction-64" for the others
#   FULL=1    Zoology's grid [arXiv:2312.04927]: vocabulary 8192, (64, 4) (128, 8) (256, 16), widths 64 128 256,
#             heads 1 2 4, rates 1e-3 3e-3 1e-2, three seeds: 81 comparisons of 6 rows, each about 40 times as
#             long or more; days on 2 cores, hours on a GPU
#   TASKS WIDTHS HEADS_LIST RATES SEEDS STEPS VARIANTS VOCAB SYMBOLS (keys and values) QUERIES EXTRA (of the trainer)
#   RUNS_DIR BUILD NICE=15                                                                               change one of these
#   RECORDS=DIR   keep small records of finished runs there, and find them again (tools/compare/records.h)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD=${BUILD:-build} RUNS_DIR=${RUNS_DIR:-runs} FULL=${FULL:-} RECORDS=${RECORDS:-}
VARIANTS=${VARIANTS:-qkv qv qv:key qv_ka gta gqa}
EXTRA=${EXTRA---weight-decay 0.01}
if [[ -n $FULL ]]; then
    TASKS=${TASKS:-recall-64-4 recall-128-8 recall-256-16 copy-64 induction-64} WIDTHS=${WIDTHS:-64 128 256} HEADS_LIST=${HEADS_LIST:-1 2 4}
    RATES=${RATES:-0.001 0.003 0.01} SEEDS=${SEEDS:-3} STEPS=${STEPS:-20000} a_step=64
    vocab=${VOCAB:-8192} symbols=${SYMBOLS:-8192} sequences=100000 queries=${QUERIES:-0}
else
    TASKS=${TASKS:-recall-32-4} WIDTHS=${WIDTHS:-64} HEADS_LIST=${HEADS_LIST:-1 4}
    RATES=${RATES:-0.002} SEEDS=${SEEDS:-1} STEPS=${STEPS:-6000} a_step=128
    vocab=${VOCAB:-256} symbols=${SYMBOLS:-32} sequences=200000 queries=${QUERIES:-12}
fi

say() { printf 'recall: %s\n' "$*" >&2; }
for program in probe-data probe-table compare report; do
    [[ -x $BUILD/$program ]] || { say "$BUILD/$program is missing: \`make recall\` builds it"; exit 1; }
done
total=0 number=0
for task in $TASKS; do for width in $WIDTHS; do for heads in $HEADS_LIST; do for rate in $RATES; do
    total=$((total + 1)); done; done; done; done
say "$total comparisons of $(wc -w <<<"$VARIANTS") rows, $SEEDS seeds, $STEPS steps each"
for task in $TASKS; do
    IFS=- read -r kind context pairs <<<"$task"
    [[ $kind =~ ^(recall|copy|induction)$ && $context =~ ^[0-9]+$ && ${pairs:-1} =~ ^[0-9]+$ ]] || {
        say "TASKS: $task: recall-CONTEXT-PAIRS, copy-CONTEXT or induction-CONTEXT"; exit 2; }
    data=data/probe-$task-$vocab-$symbols-$queries
    [[ -s $data/source.txt ]] || "$BUILD/probe-data" "$kind" --out "$data" --context "$context" \
        --pairs "${pairs:-1}" --vocab "$vocab" --symbols "$symbols" --queries "$queries" --train "$sequences" --val 1000 >&2
    for width in $WIDTHS; do for heads in $HEADS_LIST; do for rate in $RATES; do
        number=$((number + 1))
        say "[$number/$total] $task, width $width, heads $heads, lr $rate"
        # two layers, as associative recall needs
        nice -n "${NICE:-0}" env NAME="$task-w$width-h$heads-lr$rate" REPORT=0 DATA="$data" LAYERS=2 WIDTH="$width" \
            HEADS="$heads" CONTEXT="$context" BATCH_TOKENS=$((a_step * context)) \
            STEPS="$STEPS" LR="$rate" WARMUP=$((STEPS / 30)) FINAL_FRACTION=0.1 EXTRA="$EXTRA" \
            VAL_TOKENS=$((1000 * context)) VAL_EVERY=$((STEPS / 12)) SEEDS="$SEEDS" POS=rope MATCH=layout TUNE= \
            VARIANTS="$VARIANTS" BASELINE=qkv RECORDS="$RECORDS" RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" scripts/compare.sh
        "$BUILD/probe-table" "$RUNS_DIR" >"$RUNS_DIR/probes.md"
    done; done; done
done
cat "$RUNS_DIR/probes.md"
