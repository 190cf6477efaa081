#!/usr/bin/env bash
# Does the order hold with the size? Widths 64, 96, 128, 192, 256 at 20 tokens for each parameter without embeddings
# (twelve L C^2), rate scaled by 128 / width. Then build/report on all of them; fits L(N) = a N^-b + c want at least these
# five points.
#   SEEDS=3 VARIANTS="qkv gqa mla qv" WIDTHS="64 96 128 192 256" RUNS_DIR BUILD NICE     results: RUNS_DIR/ladder-WIDTH
# On 2 idle cores about 6 minutes, 20, 50, 3 hours and 8 hours a row and seed: the last two are for a larger machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for width in ${WIDTHS:-64 96 128 192 256}; do
    steps=$((20 * 12 * 4 * width * width / 1024))
    rate=$(awk -v w="$width" 'BEGIN { printf "%.3g", 4e-3 * 128 / w }')
    nice -n "${NICE:-0}" env NAME="ladder-$width" WIDTH="$width" HEADS=$((width / 32)) STEPS="$steps" LR="$rate" \
        SEEDS="${SEEDS:-3}" VARIANTS="${VARIANTS:-qkv gqa mla qv}" MATCH=layout scripts/compare.sh
done
