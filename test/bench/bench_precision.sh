#!/usr/bin/env bash
# The final validation loss of the same run in fp32 and in bf16 (CPU), over paired seeds: same data, same order, same initial weights.
# Called by `make bench-precision`; the sizes are the default comparison's (scripts/compare.sh).
#   SEEDS=3   VARIANT=qkv   DATA=data/NAME (default: what `make data` makes)   EXTRA="more options"   STEPS=900
#   LR=5e-3   THREADS=1 (the two run side by side)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
SEEDS=${SEEDS:-3} VARIANT=${VARIANT:-qkv} EXTRA=${EXTRA:-} STEPS=${STEPS:-900} THREADS=${THREADS:-1} LR=${LR:-5e-3}
DATA=${DATA:-$(scripts/get_data.sh 2>/dev/null | tail -n 1)}
[[ -d $DATA ]] || { echo "bench_precision: no data folder \"$DATA\"; make one with \`make data\` and give DATA=data/NAME" >&2; exit 1; }
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
train() {            # suffix, seed: the last validation loss and the seconds
    # shellcheck disable=SC2086
    "build/train-$VARIANT$1" --data "$DATA" --runs-dir "$runs" --run "$VARIANT$1-$2" --seed "$2" --steps "$STEPS" \
        --threads "$THREADS" --layers 4 --width 128 --heads 4 \
        --context 128 --batch-tokens 1024 --lr "$LR" --pos rope $EXTRA >"$runs/out$1-$2" 2>&1 || {
        tail -n 5 "$runs/out$1-$2" >&2; return 1; }
}
column() {           # file, name: the column's last value
    awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i }
        NR > 1 && $c != "" { last = $c } END { print last }' "$1"
}
echo "| seed | fp32 | bf16 | difference | fp32, s | bf16, s |"
echo "|---|---|---|---|---|---|"
for ((seed = 1; seed <= SEEDS; seed++)); do
    train "" "$seed" & first=$!
    train -cpu-bf16 "$seed"
    wait "$first"
    for suffix in "" -cpu-bf16; do
        column "$runs/$VARIANT$suffix-$seed/metrics.csv" val_loss
        column "$runs/$VARIANT$suffix-$seed/metrics.csv" seconds
    done | paste -sd ' ' | awk -v s="$seed" \
        '{ printf "| %d | %.4f | %.4f | %+.4f | %.1f | %.1f |\n", s, $1, $3, $3 - $1, $2, $4 }' | tee -a "$runs/rows"
done
awk -F'|' '{ d = $5; n++; sum += d; squares += d * d } END { mean = sum / n; sd = (n > 1) ? sqrt((squares - n * mean * mean) / (n - 1)) : 0;
    printf "bf16 - fp32: mean %+.4f nats per token, standard deviation over seeds %.4f, ", mean, sd
    printf "standard error %.4f (%d seeds)\n", (n > 1 ? sd / sqrt(n) : 0), n }' "$runs/rows"
