#!/usr/bin/env bash
# Hostile input to the real programs: the short form of build/hostile (test/fuzz/hostile.cpp), and what it
# cannot do: data and tokenizer that do not belong together, a machine without threads, a program that waits
# when the signal comes, a run whose checkpoints are gone.
#   test/system/test_hostile.sh [build]          make hostile: the long form of the first part
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
T=$(mktemp -d -p "${SCRATCH:-/dev/shm}" 2>/dev/null || mktemp -d) || exit 1
child=""
trap '[[ -z $child ]] || kill -9 $child 2>/dev/null; rm -rf "$T"' EXIT
. test/system/shell_common.sh
make_data
TRAIN=("$BUILD/train-${VARIANTS%% *}" --layers 1 --width 16 --heads 1 --context 16 --batch-tokens 64 --val-tokens 64 \
    --data "$DATA" --steps 4 --threads 1 --runs-dir "$R")
train() { "${TRAIN[@]}" "$@"; }

# (see below)
if [[ -x $BUILD/hostile && -x $BUILD/train-qkv ]]; then
    output=$("$BUILD/hostile" "$BUILD" 0 2>&1)
    report $? "hostile input, by kind" "$(head -n 60 <<<"$output")"
    tail -n 1 <<<"$output"
fi

# ---- shards and tokenizer that do not belong together
"$BUILD/tokenizer" train --vocab-size 400 --out "$T/larger.json" "$T/text.txt" >/dev/null
one_line "a larger tokenizer than the shards'" 1 "train_000000.bin: was encoded with another tokenizer" train \
    --run wrong --tokenizer "$T/larger.json"
cp -r "$DATA" "$T/mixed" && cp "$T/larger.json" "$T/mixed/tokenizer.json"
one_line "the same in the data folder" 1 "encode the text again" train --run wrong --data "$T/mixed"
one_line "decoding with another tokenizer" 1 "another tokenizer" bash \
    -c '"$@" 2> >(sed "s/^tokenizer: /error: /" >&2)' - "$BUILD/tokenizer" decode --tokenizer "$T/larger.json" "$DATA/val_000000.bin"
cp -r "$DATA" "$T/foreign"
# as llm.c writes them
for shard in "$T"/foreign/*.bin; do dd if=/dev/zero of="$shard" bs=16 seek=1 count=1 conv=notrunc status=none; done
expect "shards of another program: said, and trained on" 0 \
    "note: 2 of 2 shards in $T/foreign do not say which tokenizer made them" train --run foreign --data "$T/foreign"
expect "our own: nothing to say" 0 "done: best" train --run own
report "$([[ $output != *"note: "* ]]; echo $?)" "no note about our own shards" "$output"

# ---- a run whose checkpoints are gone
before=$(cat "$R/own/metrics.jsonl")
rm -r "$R/own/checkpoints"
one_line "checkpoints deleted: not from step 0 again" 2 "the checkpoints are gone" train --run own --resume
report "$([[ $before == "$(cat "$R/own/metrics.jsonl")" ]]; echo $?)" "the log is as it was"
expect "--overwrite starts again" 0 "done: best" train --run own --overwrite
expect "a finished run says so" 0 "is already finished" train --run own --resume --sample-every 2
one_line "--stop-at beyond the end" 2 "--stop-at: 5 is beyond the last step, --steps 4" train --run wrong --stop-at 5
one_line "tokens that overflow" 2 "more than 2^63 tokens" train --run wrong --steps 999999999999999 --batch-tokens 64000000 --micro-batch 1

# ---- memory: a batch so large that its losses count
expect "a huge batch" 0 "used at most" train --dry-run --batch-tokens 33554432 --micro-batch 16
planned=$(sed -n 's/^memory *\([0-9.]*\) MiB: .*/\1/p' <<<"$output") used=$(sed -n 's/^memory *\([0-9.]*\) MiB used.*/\1/p' <<<"$output")
report "$(awk -v p="$planned" -v u="$used" 'BEGIN { print !(p > 200 && u > 200 && u < 1.1 * p) }')" \
    "planned $planned MiB, used $used" "$output"

# ---- no threads to be had; a signal while the program waits
if cc -shared -fPIC -o "$T/few.so" test/fakes/few_threads.c -ldl 2>/dev/null &&
    cc -shared -fPIC -o "$T/faulty.so" test/fakes/faulty_disk.c -ldl 2>/dev/null; then
    # (How many of them a library has taken by then depends on the libraries: one on Debian 13, none on 12.)
    FEW_THREADS=0 LD_PRELOAD=$T/few.so one_line "no thread at all" 1 "no thread for signals can be started" train --run wrong --threads 4
    FEW_THREADS=2 LD_PRELOAD=$T/few.so one_line "two threads only" 1 " of 4 threads can be started" train --run wrong --threads 4
    FEW_THREADS=2 LD_PRELOAD=$T/few.so expect "as many as there are" 0 "done: best" train --run few --threads 1
    FEW_THREADS=1 LD_PRELOAD=$T/few.so expect "the tokenizer" 1 " of 4 threads can be started" \
        "$BUILD/tokenizer" train --threads 4 --vocab-size 300 --out "$T/few.json" "$T/text.txt"
    for signal in TERM INT USR1; do
        FAULTY=pread:val_000000.bin:1:hang LD_PRELOAD=$T/faulty.so "${TRAIN[@]}" --run waits >"$T/log" 2>&1 </dev/null &
        child=$!
        for ((i = 0; i < 400; i++)); do [[ $(ls -l "/proc/$child/fd" 2>/dev/null) == *val_000000.bin* ]] && break; sleep 0.05; done
        sleep 0.1
        kill -s $signal "$child"
        for ((i = 0; i < 400; i++)); do kill -0 "$child" 2>/dev/null || break; sleep 0.05; done
        kill -9 "$child" 2>/dev/null
        wait "$child" 2>/dev/null
        code=$? child=""
        report "$([[ $code == 75 && $(cat "$T/log") == "stopped by a signal during start-up; nothing has changed" \
            ]]; echo $?)" "SIG$signal ends a program that waits for a disk" "exit code $code: $(cat "$T/log")"
    done
    report "$([[ ! -e $R/waits && ! -e $R/wrong ]]; echo $?)" "nothing was made" "$(ls "$R")"
else
    echo "skipped: no C compiler for the machine without threads and the disk that hangs"
fi
printf 'test_hostile: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
