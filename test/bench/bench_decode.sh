#!/usr/bin/env bash
# Decoding in every variant: a table, one JSON line, a picture of milliseconds a token and of the cache against the context.
#   test/bench/bench_decode.sh [build]      VARIANTS, CONTEXTS, BATCHES, TOKENS, THREADS, POS as below; the default model is GPT-2's 124M
# Writes runs/bench-decode/decode.json, decode.tsv and, with gnuplot, decode.svg. About 2 minutes a variant on 2 cores.
# Where PYTHON (default python3) has transformers, its generate() writes from an exported qkv model too, in turns with ours: PEER=0 leaves
# that out, PEER=only does nothing else.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=${1:-build}
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
CONTEXTS=${CONTEXTS:-128 512 1024} BATCHES=${BATCHES:-1 4} TOKENS=${TOKENS:-16} THREADS=${THREADS:-0} POS=${POS:-rope} EXTRA=${EXTRA:-}
OUT=${OUT:-runs/bench-decode}
PYTHON=${PYTHON:-python3} PEER=${PEER:-1} PEER_SIZE=${PEER_SIZE:---layers 12 --width 768 --heads 12 --context 1024}
mkdir -p "$OUT" || exit 1

# Ours and transformers' generate(), the same weights, the same prompt, the likeliest token: a line each.
peer() {
    local size model="$OUT/peer" threads=$THREADS
    read -ra size <<<"$PEER_SIZE"
    ((threads > 0)) || threads=$(nproc)
    if [[ ! -d $model/exported ]]; then
        rm -rf "$model"
        "$BUILD/synthetic-data" "$model/data" 50257 40000 &&
            "$BUILD/train-qkv" "${size[@]}" --pos learned --batch-tokens 1024 --micro-batch 1 --steps 1 --warmup 1 --val-tokens 1024 \
                --data "$model/data" --runs-dir "$model" --run model --quiet --threads "$threads" &&
            "$BUILD/export" "$model/model" "$model/exported" || return 1
    fi
    head -c 256 README.md >"$model/prompt"
    local round
    for round in 1 2; do                             # in turns; the second round is the one to read
        "$BUILD/generate-qkv" "$model/model" --prompt-file "$model/prompt" --temperature 0 --tokens 64 --past-end --only-new \
            --threads "$threads" 2>"$model/ours.txt" >"$model/ours" || { cat "$model/ours.txt"; return 1; }
        echo "ours, round $round: $(tail -n 1 "$model/ours.txt")"
        HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false "$PYTHON" test/bench/peer_generate.py \
            "$model/exported" --prompt-file "$model/prompt" --tokens 64 --threads "$threads" --text "$model/theirs" || return 1
    done
    if diff -q "$model/theirs" <(head -c -1 "$model/ours") >/dev/null; then echo "the same text in float32"
    else echo "not the same text in float32: see $model/ours, $model/theirs"; fi
}
if [[ $PEER == only ]]; then peer; exit; fi
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
if [[ $PEER == 0 ]]; then :
elif "$PYTHON" -c 'import torch, transformers' 2>/dev/null; then peer || exit 1
else echo "no transformers for $PYTHON: not compared (pip install torch transformers)"
fi
cat "$OUT/decode.json"
