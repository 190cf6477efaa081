#!/usr/bin/env bash
# One process with two threads against two processes with one thread each, the same model and batch, in turns: `make bench-ranks`.
#   test/bench/bench_ranks.sh [build] [turns]       prints tokens/s of every turn (median over its steps), the medians and their ratio
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd)
TURNS=${2:-5}
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
"$BUILD/tokenizer" train --vocab-size 1024 --out "$T/tokenizer.json" ./*.h train.cu README.md attention/* layers/* runtime/* >/dev/null
"$BUILD/tokenizer" encode --tokenizer "$T/tokenizer.json" --out "$T/data" ./*.h train.cu README.md attention/* layers/* runtime/* >/dev/null
OPTIONS=(--layers 6 --width 384 --heads 6 --context 256 --batch-tokens 4096 --steps 8 --warmup 2 --val-every 0 \
    --val-tokens 256 --data "$T/data" --runs-dir "$T" --overwrite --quiet)
MPI=(mpirun -np 2)
mpirun --version | grep -q "Open MPI" && MPI=(mpirun --allow-run-as-root --bind-to core -np 2)
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
rate() { tail -n +3 "$T/$1/metrics.csv" | cut -d, -f9 | median; }            # without the first step

for ((turn = 1; turn <= TURNS; turn++)); do
    "$BUILD/train-qkv" "${OPTIONS[@]}" --threads 2 --run one >/dev/null
    rate one >>"$T/one.txt"
    for zero in 1 0 2; do
        "${MPI[@]}" "$BUILD/train-qkv" "${OPTIONS[@]}" --threads 1 --zero $zero --run two >/dev/null
        rate two >>"$T/two-$zero.txt"
    done
done
one=$(median <"$T/one.txt")
printf '1 process x 2 threads   %s tokens/s   (%s)\n' "${one%.*}" "$(awk '{ printf "%s%d", (NR > 1 ? " " : ""), $1 }' "$T/one.txt")"
for zero in 0 1 2; do
    two=$(median <"$T/two-$zero.txt")
    printf '2 x 1, zero %d           %s tokens/s   (%s)   ratio %.3f\n' $zero "${two%.*}" \
        "$(awk '{ printf "%s%d", (NR > 1 ? " " : ""), $1 }' "$T/two-$zero.txt")" \
        "$(awk -v a="$two" -v b="$one" 'BEGIN { print a / b }')"
done
