#!/usr/bin/env bash
# Speed, side by side in one run: the whole training step in fp32 and bf16, the same matrix products alone
# (the limit), and PyTorch's step at its best setting of fp32 and bf16.
# Called by `make bench`. Nothing else should run on the machine: the last field of the peer's line shows how much did.
# The first round tries every setting of PyTorch, the others its best one.
#   ROUNDS=3 how often the sides take turns   SECONDS_EACH=8 per measurement   THREADS=2   PYTHON=python3 one that can import torch
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-8} THREADS=${THREADS:-2}

# Debian's python3-torch belongs to /usr/bin/python3, whatever `python3` is on PATH.
if [[ -z ${PYTHON:-} ]]; then
    for p in python3 /usr/bin/python3; do
        if "$p" -c 'import torch' 2>/dev/null; then PYTHON=$p; break; fi
    done
fi
current='python3 -m venv ~/torch && ~/torch/bin/pip install torch, then: make bench PYTHON=~/torch/bin/python3'
if [[ -z ${PYTHON:-} ]]; then
    echo "no python3 here can import torch: measuring without the peer. To have it: $current"
else
    "$PYTHON" -c 'import torch, sys; sys.exit(int(torch.__version__.split(".")[0]) < 2)' ||
        echo "this PyTorch is older than 2 (no compiler, no fused AdamW) and slower than a current one: $current"
fi

median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
field() { sed -n "s/.* $1 \([0-9.]*\).*/\1/p"; }     # the number after a word of a summary line

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# Ratios are of the same round, and the median of them is shown: the machine may be slower in another.
ratio() {
    paste <(field tokens_per_s <"$results/$1") <(field tokens_per_s <"$results/$2") | awk 'NF == 2 { print $1 / $2 }' | median |
        awk '{ printf "%.2f", $1 } END { if (!NR) printf "-" }'
}
speed() { field tokens_per_s <"$results/$1" | median | awk '{ printf "%.0f", $1 } END { if (!NR) printf "-" }'; }
share() { field percent_of_products <"$results/$1" | median | awk '{ printf "%.0f%%", $1 }'; }
bench_shape() {      # name, layers width heads context vocab batch
    local name=$1 suffix line best=''; shift
    rm -f "$results"/step* "$results/peer"
    touch "$results/peer"
    for ((i = 0; i < ROUNDS; i++)); do
        echo "--- $name, round $((i + 1)) of $ROUNDS"
        for suffix in "" -cpu-bf16; do
            "build/bench-step-qkv$suffix" "$@" "$THREADS" "$SECONDS_EACH" | tee "$results/out"
            grep '^summary' "$results/out" >>"$results/step$suffix"
        done
        if [[ -n ${PYTHON:-} ]]; then
            line=$("$PYTHON" test/bench/peer_torch.py --layers "$1" --width "$2" --heads "$3" --context "$4" \
                --vocab "$5" --batch "$6" --threads "$THREADS" --seconds "$SECONDS_EACH" --only "$best" | tail -1)
            echo "$line"
            best=$(sed -n 's/.* setting \([^ ]*\) .*/\1/p' <<<"$line")       # found once; the later rounds are for the machine's moods
            echo "$line" >>"$results/peer"
        fi
    done
    echo "| $name | $(speed step) | $(speed step-cpu-bf16) | $(ratio step-cpu-bf16 step) |" \
        "$(speed peer) | ${best:--} | $(ratio step peer) |" \
        "$(ratio step-cpu-bf16 peer) | $(share step) | $(share step-cpu-bf16) |" >>"$results/table"
}
bench_shape "L4 C128 NH4 T128 V256 B16" 4 128 4 128 256 16
bench_shape "L6 C384 NH6 T256 V4096 B8" 6 384 6 256 4096 8
bench_shape "GPT-2 124M: L12 C768 NH12 T64 V50257 B4" 12 768 12 64 50257 4

echo
echo "medians of $ROUNDS rounds, $THREADS threads; PyTorch: its fastest setting; the last columns: the step's speed as a part of its"
echo "matrix products' alone, operands in cache, with the best library here (fp32) and oneDNN's bf16 (bf16)"
echo
echo "| shape | fp32, tokens/s | bf16 | bf16 / fp32 | PyTorch | its setting | fp32 / PyTorch | bf16 / PyTorch |" \
    "fp32, of the products alone | bf16, of its own |"
echo "|---|---|---|---|---|---|---|---|---|---|"
cat "$results/table"
