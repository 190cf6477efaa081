#!/usr/bin/env bash
# Speed, side by side in one run: the whole training step, the same matrix products alone (the limit), and PyTorch's step.
# Called by `make bench`. Everything else on the machine should be quiet: the last column of the peer's line tells.
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
[[ -n ${PYTHON:-} ]] || echo "no python3 here can import torch (Debian: apt-get install python3-torch): measuring without the peer"

median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
field() { sed -n "s/.* $1 \([0-9.]*\).*/\1/p"; }     # the number after a word of a summary line

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
bench_shape() {      # name, layers width heads context vocab batch
    local name=$1; shift
    local ours=$results/ours theirs=$results/theirs line
    : >"$ours"; : >"$theirs"
    for ((i = 0; i < ROUNDS; i++)); do
        echo "--- $name, round $((i + 1)) of $ROUNDS"
        build/bench-step "$@" "$THREADS" "$SECONDS_EACH" | tee "$results/out"
        grep '^summary' "$results/out" >>"$ours"
        if [[ -n ${PYTHON:-} ]]; then
            line=$("$PYTHON" test/bench/peer_torch.py --layers "$1" --width "$2" --heads "$3" --context "$4" --vocab "$5" --batch "$6" --threads "$THREADS" --seconds "$SECONDS_EACH" | tail -1)
            echo "$line"
            echo "$line" >>"$theirs"
        fi
    done
    local rate products peer
    rate=$(field tokens_per_s <"$ours" | median)
    products=$(field percent_of_products <"$ours" | median)
    peer=$(field tokens_per_s <"$theirs" | median)
    awk -v n="$name" -v r="$rate" -v p="$products" -v q="${peer:-0}" \
        'BEGIN { printf "| %s | %.0f | %s | %s | %.0f%% |\n", n, r, q ? sprintf("%.0f", q) : "-", q ? sprintf("%.2f", r / q) : "-", p }' >>"$results/table"
}
bench_shape "L4 C128 NH4 T128 V256 B16" 4 128 4 128 256 16
bench_shape "L6 C384 NH6 T256 V4096 B8" 6 384 6 256 4096 8
bench_shape "GPT-2 124M: L12 C768 NH12 T64 V50257 B4" 12 768 12 64 50257 4

echo
echo "medians of $ROUNDS rounds, $THREADS threads, fp32; limit: the step's matrix products alone, with the best library here"
echo "| shape | qv.cu tokens/s | PyTorch tokens/s | ratio | of the products-only limit |"
echo "|---|---|---|---|---|"
cat "$results/table"
