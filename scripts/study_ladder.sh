#!/usr/bin/env bash
# Does the order hold with the size? The same rows at several widths, 4 layers, heads of 16, a fixed number of tokens for each
# parameter, each row's rate tuned at each width; then build/scaling: differences by size, fitted laws, a prediction for 124M.
#   WIDTHS="64 96 128 160"    multiples of 32, so that the number of heads is even. At 32 there
#                are so few steps that two seeds ended 0.4 nats apart (docs/LOG.md)
#   TOKENS=2     for each parameter without embeddings (twelve L C^2). More than four passes over the text are another
#                experiment [arXiv:2305.16264]: the King James text allows 3 at width 160, 20 at width 64
#   TUNE= LR=0.005   one rate for all instead. A rate in proportion to 1 / width is no such rate: it favoured qv at 64 (docs/LOG.md)
#   SEEDS=3 VARIANTS="qkv gqa qv" DATA RECORDS RUNS_DIR BUILD NICE            results: RUNS_DIR/ladder-WIDTH, RUNS_DIR/ladder
# A row and seed takes about 0.4, 0.8, 3 and 6 minutes of one core, its rate five times that; repeat the command to go on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD=${BUILD:-build} RUNS_DIR=${RUNS_DIR:-runs} RECORDS=${RECORDS:-} widths=${WIDTHS:-64 96 128 160}
say() { printf 'study_ladder: %s\n' "$*" >&2; }
for program in compare scaling; do
    [[ -x $BUILD/$program ]] || { say "$BUILD/$program is missing: \`make study-binaries\` builds it"; exit 1; }
done
folders=()
for width in $widths; do
    [[ $width =~ ^[1-9][0-9]*$ ]] && ((width % 32 == 0)) || { say "WIDTHS: $width: give multiples of 32"; exit 2; }
    steps=$((${TOKENS:-2} * 12 * 4 * width * width / 1024))
    nice -n "${NICE:-0}" env NAME="ladder-$width" WIDTH="$width" HEADS=$((width / 16)) STEPS="$steps" \
        WARMUP=$((steps / 18)) VAL_EVERY=$((steps / 3)) TUNE="${TUNE-1}" SEEDS="${SEEDS:-3}" VARIANTS="${VARIANTS:-qkv gqa qv}" \
        MATCH=layout RECORDS="$RECORDS" RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" scripts/compare.sh
    folders+=("$RUNS_DIR/ladder-$width")
done
((${#folders[@]} < 2)) || "$BUILD/scaling" "${folders[@]}" --out "$RUNS_DIR/ladder"
