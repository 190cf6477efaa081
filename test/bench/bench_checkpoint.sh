#!/usr/bin/env bash
# How long saving a checkpoint takes against `dd conv=fsync` of as many bytes onto the same disk, in pairs, medians; the bar is 1.3.
#   test/bench/bench_checkpoint.sh [build [pairs [folder]]]        5 pairs; the folder (default: ./runs, made if need be) chooses the disk
# The trainer itself reports the seconds from the first byte to the last fsync, serialising, two checksums and the logs' fsync included.
set -euo pipefail
export OMP_WAIT_POLICY=passive
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd)
pairs=${2:-5}
mkdir -p "${3:-runs}"
T=$(mktemp -d "${3:-runs}/bench-checkpoint-XXXXXX")
memory=$(mktemp -p /dev/shm)
trap 'rm -rf "$T" "$memory"' EXIT
cat train.cu model/gpt.h >"$T/text.txt"
"$BUILD/tokenizer" train --vocab-size 300 --out "$T/tokenizer.json" "$T/text.txt" >/dev/null
"$BUILD/tokenizer" encode --tokenizer "$T/tokenizer.json" --out "$T/data" "$T/text.txt" >/dev/null
median() { sort -n | awk '{ x[NR] = $1 } END { print (x[int((NR + 1) / 2)] + x[int((NR + 2) / 2)]) / 2 }'; }
# 28 million parameters: 0.32 GB with both moments.
train() {
    "$BUILD/train-qkv" --layers 9 --width 512 --heads 8 --context 16 --batch-tokens 16 --steps 1 --val-every 0 \
        --val-tokens 16 --data "$T/data" \
        --runs-dir "$T/runs" --run bench --overwrite
}
for ((i = 1; i <= pairs; i++)); do
    rm -f "$T/dd"
    sync
    read -r size save < <(train | sed -n 's/^saved .*, \(.*\) in \(.*\) s$/\1\t\2/p' | awk -F'\t' '{ gsub(" ", "", $1); print $1, $2 }')
    # The same bytes, from memory: some virtual disks have zeros for nothing.
    cat "$T"/runs/bench/checkpoints/step-*/*.safetensors >"$memory"
    rm -rf "$T/runs"
    sync
    dd=$(LC_ALL=C dd if="$memory" of="$T/dd" bs=4M conv=fsync 2>&1 | sed -n 's/.*copied, \([0-9.e-]*\) s.*/\1/p')
    ratio=$(awk -v a="$save" -v b="$dd" 'BEGIN { printf "%.3f", a / b }')
    printf 'pair %d: %s saved in %s s, dd %s s, ratio %s\n' "$i" "$size" "$save" "$dd" "$ratio" | tee -a "$T/pairs"
done
printf 'median of %d pairs: save %s s, dd %s s, ratio %s\n' "$pairs" "$(sed 's/.*saved in \([^ ]*\).*/\1/' "$T/pairs" | median)" \
    "$(sed 's/.*dd \([^ ]*\) s.*/\1/' "$T/pairs" | median)" "$(sed 's/.*ratio //' "$T/pairs" | median)"
