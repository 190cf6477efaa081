#!/usr/bin/env bash
# Where a training step's time goes: a Markdown table, one row for each variant, precision and shape. Called by `make bench-parts`.
#   VARIANTS="qkv qv"   SECONDS_EACH=3   THREADS=2
#   SHAPES="4,128,4,128,256,16 6,384,6,256,4096,8" (layers, width, heads, context, vocabulary, batch)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
VARIANTS=${VARIANTS:-qkv} SECONDS_EACH=${SECONDS_EACH:-3} THREADS=${THREADS:-2}
SHAPES=${SHAPES:-4,128,4,128,256,16 6,384,6,256,4096,8}
for shape in $SHAPES; do
    IFS=, read -r layers width heads context vocab batch <<<"$shape"
    echo
    echo "L$layers C$width NH$heads T$context V$vocab B$batch, $THREADS threads:"
    echo
    echo "| variant | precision | ms a step | tokens/s | shares of the time |"
    echo "|---|---|---|---|---|"
    for variant in $VARIANTS; do
        for suffix in "" -cpu-bf16; do
            "build/bench-step-$variant$suffix" "$layers" "$width" "$heads" "$context" "$vocab" "$batch" "$THREADS" "$SECONDS_EACH" parts
        done
    done
done
