#!/usr/bin/env bash
# Decoding in every variant: a table, one JSON line, a picture of milliseconds a token and of the cache against the context.
#   test/bench/bench_decode.sh [build]      VARIANTS, CONTEXTS, BATCHES, TOKENS, THREADS, POS as below; the default model is GPT-2's 124M
# Writes runs/bench-decode/decode.json, decode.tsv and, with gnuplot, decode.svg. About 2 minutes a variant on 2 cores.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=${1:-build}
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
CONTEXTS=${CONTEXTS:-128 512 1024} BATCHES=${BATCHES:-1 4} TOKENS=${TOKENS:-16} THREADS=${THREADS:-0} POS=${POS:-rope} EXTRA=${EXTRA:-}
OUT=${OUT:-runs/bench-decode}
mkdir -p "$OUT" || exit 1
rows=""
for variant in $VARIANTS; do
    # shellcheck disable=SC2086
    output=$("$BUILD/bench-decode-$variant" --contexts "$CONTEXTS" --batches "$BATCHES" --tokens "$TOKENS" \
        --threads "$THREADS" --pos "$POS" $EXTRA) || exit 1
    sed '$d' <<<"$output"
    line=$(tail -n 1 <<<"$output")
    line=${line#[} line=${line%]}
    rows+=${rows:+,}$line
done
printf '[%s]\n' "$rows" >"$OUT/decode.json"
# one line a row: attn batch context ms cache
number='\([0-9.]*\)'
line='"attn":"\([^"]*\)","batch":'$number',"context":'$number',.*"ms_per_step":'$number',"cache_bytes_per_token":'$number,
sed 's/},{/}\n{/g' "$OUT/decode.json" | sed -n "s/.*$line.*/\\1\\t\\2\\t\\3\\t\\4\\t\\5/p" >"$OUT/decode.tsv"
if command -v gnuplot >/dev/null; then
    batch=${BATCHES%% *}
    {
        echo "set terminal svg size 1000,420 background 'white'; set output '$OUT/decode.svg'; set multiplot layout 1,2"
        echo "set key top left; set xlabel 'tokens in the cache'; set grid"
        for panel in "ms a token, batch $batch:(\$4)" "cache of one sequence, MB:(\$3*\$5/1e6)"; do
            printf "set title '%s'; set yrange [0:*]; plot " "${panel%%:*}"
            for variant in $VARIANTS; do
                printf "'%s' using (strcol(1) eq '%s' && \$2 == %s ? \$3 : NaN):%s with linespoints title '%s' noenhanced, " \
                    "$OUT/decode.tsv" "$variant" "$batch" "${panel##*:}" "$variant"
            done
            echo
        done
    } | sed 's/, $//' >"$OUT/decode.gp"
    gnuplot "$OUT/decode.gp" && echo "$OUT/decode.svg"
else
    echo "no gnuplot: no picture (apt-get install gnuplot-nox)"
fi
cat "$OUT/decode.json"
