#!/usr/bin/env bash
# The faults of docs/RELIABILITY.md on the real programs: order of the saving calls, a full or failing disk, foreign checkpoints, gradients
# that are not finite, spikes, signals at random moments, two processes at once, too little memory.    test/system/test_faults.sh [build]
# Kills: test_crash.sh. Wrong options and data: test_train.sh. Damage bit by bit: test_checkpoint_damage.cpp.
# Hostile files: test_fuzz_corpus.cpp.
# What this machine cannot do (mount, strace, a C compiler) is skipped and said.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
# In memory where that is possible: a kill or an error is the same there, and on a busy disk fsync takes most of the time.
T=$(mktemp -d -p "${SCRATCH:-/dev/shm}" 2>/dev/null || mktemp -d) || exit 1
children=() mounted=""
clean_up() {
    ((${#children[@]} == 0)) || kill -9 "${children[@]}" 2>/dev/null
    [[ -z $mounted ]] || umount "$mounted"
    rm -rf "$T"
}
trap clean_up EXIT
. test/system/shell_common.sh
make_data
skip() { printf 'skipped: %s\n' "$*"; }
MAIN=${VARIANTS%% *} END=step-00000030
SIZE=(--layers 2 --width 32 --heads 2 --context 32 --batch-tokens 256 --micro-batch 4 --warmup 5 --val-tokens 1024 \
    --val-every 10 --data "$DATA" --steps 30 --threads 1)
TRAIN=("$BUILD/train-$MAIN" "${SIZE[@]}" --runs-dir "$R")
train() { "${TRAIN[@]}" "$@"; }              # in the background "${TRAIN[@]}" itself: $! would be a subshell
only_checkpoint() { report "$([[ $(ls "$1/checkpoints") == "latest"$'\n'"$2" ]]; echo $?)" \
    "$3: the old checkpoint stays, the temporary goes" "$(ls -R "$1/checkpoints")"; }

expect "left alone" 0 "done: best" train --run whole --save-every 10 --threads 2

# ---- 2: the order of calls that a power cut cannot tear
if command -v strace >/dev/null && strace -o /dev/null true 2>/dev/null; then
    expect "under strace" 0 "" strace -f -y -e trace=fsync,fdatasync,rename,renameat,renameat2 -o "$T/strace" \
        "$BUILD/train-$MAIN" "${SIZE[@]}" --runs-dir "$R" --run traced --steps 4 --save-every 2
    sed -n -E -e 's|.*fsync\([0-9]+<'"$R"'/traced/?([^>]*)>.*|fsync \1|p' \
        -e 's|.*rename[a-z0-9]*\([^"]*"'"$R"'/traced/([^"]*)", [^"]*"'"$R"'/traced/([^"]*)".*|rename \1 \2|p' "$T/strace" >"$T/calls"
    c=checkpoints s=checkpoints/step-00000002
    cat >"$T/expected" <<CALLS
fsync metrics.jsonl
fsync metrics.csv
fsync $s.tmp/model.safetensors
fsync $s.tmp/optimizer.safetensors
fsync $s.tmp/state.json
fsync $s.tmp/manifest.json
fsync $s.tmp
rename $s.tmp $s
fsync $c
fsync $c/latest.tmp
rename $c/latest.tmp $c/latest
fsync $c
CALLS
    # The first save also makes the folder of checkpoints durable in its parent.
    sed -n "/fsync metrics.jsonl/,\$p" "$T/calls" | grep -vx 'fsync ' | sed -n '1,12p' | diff "$T/expected" - >"$T/diff"
    report $? "fsync files and folder, rename, fsync the parent, then latest" "$(cat "$T/diff")"
    report "$(grep -qx 'fsync ' "$T/calls"; echo $?)" "the run's folder is made durable" "$(cat "$T/calls")"
else
    skip "strace does not work here: the order of fsync and rename is not checked"
fi

# ---- 3: a full or failing disk
half() { rm -rf "$R/$1"; expect "half of $1" 75 "" train --run "$1" --stop-at 15; }
resumed_whole() { expect "$1: resumed" 0 "resumed from" train --run "$1" --resume; same_run "$1" "$R/whole" "$R/$1" $END; }
half limit
one_line "file size limit: the needed and the free bytes are told" 1 "are free; older checkpoints are untouched" \
    bash -c 'ulimit -f 200; exec "$@"' - "$BUILD/train-$MAIN" "${SIZE[@]}" --runs-dir "$R" --run limit --resume
only_checkpoint "$R/limit" step-00000015 "file size limit"
resumed_whole limit
if cc -shared -fPIC -o "$T/faulty.so" test/fakes/faulty_disk.c -ldl 2>/dev/null; then
    while IFS='|' read -r fault text; do
        half faulty
        FAULTY=$fault LD_PRELOAD=$T/faulty.so one_line "$fault" 1 "$text" train --run faulty --resume
        only_checkpoint "$R/faulty" step-00000015 "$fault"
        resumed_whole faulty
    done <<'TABLE'
write:model.safetensors:1:EIO|model.safetensors: writing: Input/output error
write:optimizer.safetensors:1:ENOSPC|optimizer.safetensors: writing: No space left on device
fsync:model.safetensors:1:EIO|model.safetensors: fsync: Input/output error
fsync:manifest.json:1:EIO|manifest.json: fsync: Input/output error
fsync:step-00000030.tmp:5:EIO|step-00000030.tmp: fsync: Input/output error
rename:step-00000030:1:EIO|Input/output error
TABLE
    half faulty
    FAULTY=write:model.safetensors:1:short LD_PRELOAD=$T/faulty.so expect "a short write is continued" 0 "" train --run faulty --resume
    same_run "a short write" "$R/whole" "$R/faulty" $END
else
    skip "no C compiler for the failing disk"
fi
mkdir "$T/small"
if mount -t tmpfs -o size=900k none "$T/small" 2>/dev/null; then
    mounted=$T/small
    small() { "$BUILD/train-$MAIN" "${SIZE[@]}" --runs-dir "$T/small" --run full "$@"; }
    expect "the first checkpoint fits" 75 "saved" small --stop-at 15
    one_line "the second does not" 1 "No space left on device; it needs about" small --resume
    only_checkpoint "$T/small/full" step-00000015 "disk full"
    mount -o remount,size=20m "$T/small"
    expect "with more space it goes on" 0 "resumed from" small --resume
    same_run "disk full" "$R/whole" "$T/small/full" $END
    umount "$T/small" && mounted=""
else
    skip "mount is not allowed here: no full disk"
fi

# ---- 5: a checkpoint of another run, also when config.json is gone and only the checkpoint can tell
for saver in $VARIANTS; do
    expect "one step of $saver" 75 "" "$BUILD/train-$saver" "${SIZE[@]}" --runs-dir "$R" --run "of-$saver" --stop-at 1 --val-every 0 --quiet
    mv "$R/of-$saver/config.json" "$T/config-$saver.json"
    for loader in $VARIANTS; do
        if [[ $saver == "$loader" ]]; then
            whole "$R/of-$saver" "$R/copy"
            expect "$saver loads $saver" 75 "resumed from" "$BUILD/train-$loader" "${SIZE[@]}" --runs-dir "$R" \
                --run copy --resume --stop-at 2 --quiet
            rm -rf "$R/copy"
        else
            one_line "$loader refuses a checkpoint of $saver" 2 "attn: $saver -> $loader" "$BUILD/train-$loader" \
                "${SIZE[@]}" --runs-dir "$R" --run "of-$saver" --resume
        fi
    done
done
while IFS='|' read -r options text; do
    # shellcheck disable=SC2086
    one_line "a checkpoint without config.json and $options" 2 "$text" train --run "of-$MAIN" --resume $options
done <<TABLE
--width 64|width: 32 -> 64
--layers 3|layers: 2 -> 3
--heads 4|heads: 2 -> 4
--context 16|context: 32 -> 16
--pos alibi|pos: "rope" -> "alibi"
--lr 2e-3|lr: 0.001 -> 0.002
TABLE
"$BUILD/tokenizer" train --vocab-size 310 --out "$T/other.json" "$T/text.txt" >/dev/null
one_line "another vocabulary beside the same shards" 1 "was encoded with another tokenizer" train --run "of-$MAIN" \
    --resume --tokenizer "$T/other.json"
"$BUILD/tokenizer" encode --tokenizer "$T/other.json" --out "$T/other" "$T/text.txt" >/dev/null
one_line "another vocabulary, encoded with it" 2 "tokenizer_fingerprint" train --run "of-$MAIN" --resume --data "$T/other"
other=$(ls -d "$BUILD/train-$MAIN"-cpu-fp64 2>/dev/null)
if [[ -n $other ]]; then one_line "another precision" 2 'build.precision: "fp32" -> "fp64"' "$other" "${SIZE[@]}" \
    --runs-dir "$R" --run "of-$MAIN" --resume
else skip "no fp64 build: another precision"; fi

# ---- 8: the data was changed
cp -r "$DATA" "$T/edited" && printf '\1' | dd of="$(ls "$T"/edited/train*.bin)" bs=1 seek=2000 conv=notrunc status=none
one_line "one byte of the data changed" 2 "data.train_fingerprint: " train --run "of-$MAIN" --resume --data "$T/edited"

# ---- 9: gradients that are not finite
expect "one NaN: said, not updated" 0 "step 7: loss" env QV_SCALE_GRADIENT=7:nan "$BUILD/train-$MAIN" "${SIZE[@]}" --runs-dir "$R" --run nan
report "$([[ $output == *"is not finite: not updated"* &&
    $(grep -c '"step":7,.*"grad_norm":null' "$R/nan/metrics.jsonl") == 1 ]]; echo $?)" "NaN is in the log" "$output"
if [[ -x $BUILD/inspect ]]; then
    expect "and not in the weights" 0 '"not_finite": 0,' "$BUILD/inspect" --json "$R/nan"
    expect "inspect: equal" 0 "equal, bit for bit" "$BUILD/inspect" "$R/whole" "$R/faulty"
    expect "inspect: different" 1 "elements differ" "$BUILD/inspect" "$R/whole" "$R/nan"
    expect "inspect: usage" 2 "inspect [--json]" "$BUILD/inspect"
fi
export QV_SCALE_GRADIENT=7-12:inf
one_line "five in a row: stopped" 1 "step 11: the gradient was not finite 5 times in a row" train --run inf --save-every 5
report "$([[ -d $R/inf/checkpoints/step-00000010 && ! -e $R/inf/checkpoints/step-00000011 ]]; echo $?)" \
    "the checkpoint before stays" "$(ls "$R/inf/checkpoints")"
expect "counted" 75 "" train --run counted --stop-at 9
one_line "and the count goes through the checkpoint" 1 "step 11: " train --run counted --resume
export QV_SCALE_GRADIENT=7:1e25
one_line "what overflows in the optimizer's state is never saved" 1 "step 10 not saved: tensor" train --run overflow \
    --grad-clip 0 --save-every 5
only_checkpoint "$R/overflow" step-00000005 "overflow"
# ---- 10: spikes
export QV_SCALE_GRADIENT=26:1000
expect "a spike is skipped" 0 "far above the recent ones: not updated" train --run spike --spike-zscore 8
report "$(($(grep -c 'not updated' <<<"$output") != 1))" "and nothing else" "$output"
expect "its window" 75 "" train --run window --spike-zscore 8 --stop-at 24
expect "goes through the checkpoint" 0 "far above the recent ones: not updated" train --run window --resume
same_run "a spike after resuming" "$R/spike" "$R/window" $END
unset QV_SCALE_GRADIENT

# ---- 11: signals at random moments of start-up, training, evaluation, sampling, saving
BUSY=(--val-every 2 --val-tokens 4096 --sample-every 3 --sample-tokens 20 --save-every 4)
started=$(now_ms)
expect "left alone" 0 "" train "${BUSY[@]}" --run busy
duration=$(($(now_ms) - started)) signals=0
RANDOM=${SEED:-$$}
names=(TERM INT USR1)
for ((attempt = 0; attempt < 60 && signals < 12; attempt++)); do
    "${TRAIN[@]}" "${BUSY[@]}" --run signals --resume >"$T/log" 2>&1 </dev/null &
    children=($!)
    ms=$((RANDOM % duration)) name=${names[attempt % 3]}
    sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
    kill -s "$name" "${children[0]}" 2>/dev/null
    wait "${children[0]}" 2>/dev/null
    code=$? children=()
    [[ $code == 75 ]] && signals=$((signals + 1))
    # Before the handler is there, in the first milliseconds, a signal ends a process that has done nothing yet.
    [[ $code == 75 || $code == 0 || ($code -gt 128 && ! -s $T/log) ]]
    report $? "SIG$name after $ms ms: exit 75, or 0 when it was done" "exit code $code: $(cat "$T/log")"
    if [[ $code == 0 ]]; then
        same_run "interrupted at random" "$R/busy" "$R/signals" $END
        rm -rf "$R/signals"
    fi
done
expect "run to the end" 0 "" train "${BUSY[@]}" --run signals --resume
same_run "interrupted at random" "$R/busy" "$R/signals" $END
printf 'signals that arrived while it ran: %d of %d\n' $signals $attempt
report "$((signals < 4))" "signals arrived while it ran" "only $signals of $attempt; a run takes $duration ms"
# Two steps of seconds: the second signal does not wait for the end of the first.
"$BUILD/train-$MAIN" --layers 8 --width 256 --heads 4 --context 256 --batch-tokens 16384 --micro-batch 64 --steps 2 \
    --val-every 0 --data "$DATA" --runs-dir "$R" --run twice >"$T/log" 2>&1 </dev/null &
children=($!)
for ((i = 0; i < 500; i++)); do [[ -s $R/twice/config.json ]] && break; sleep 0.01; done
sleep 0.1
kill "${children[0]}" && sleep 0.1 && kill "${children[0]}"
wait "${children[0]}" 2>/dev/null
code=$? children=()
report $((code != 143)) "the second signal quits at once" "exit code $code: $(cat "$T/log")"

# Its output goes to a pipe that nobody reads and that is full: it waits there, and the first signal is enough all the same.
mkfifo "$T/full"
exec 8<>"$T/full"
head -c 49152 /dev/zero >&8
"${TRAIN[@]}" --run unread --val-every 1 --steps 100000 >&8 2>"$T/log" </dev/null 8>&- &
children=($!)
for ((i = 0, lines = 0, same = 0; i < 300 && same < 10; i++)); do
    before=$lines lines=$(cat "$R/unread/metrics.jsonl" 2>/dev/null | wc -l)
    ((lines > 0 && lines == before)) && ((++same)) || same=0
    sleep 0.1
done
report "$((same < 10))" "a full pipe at stdout: training waits" "$lines steps; $(cat "$T/log")"
kill "${children[0]}"
for ((i = 0; i < 100; i++)); do kill -0 "${children[0]}" 2>/dev/null || break; sleep 0.1; done
report "$((i == 100))" "(until one signal ends it)"
kill -9 "${children[0]}" 2>/dev/null
wait "${children[0]}" 2>/dev/null
code=$? children=()
report $((code != 75)) "(saved)" "exit code $code: $(cat "$T/log")"
exec 8>&-
step=$(sed -n '$s/^{"step":\([0-9]*\).*/\1/p' "$R/unread/metrics.jsonl")
[[ -n $step && -d $R/unread/checkpoints/step-$(printf %08d "$step") ]]
report $? "(at its last step)" "$step; $(ls "$R/unread/checkpoints")"

# ---- 15: two at once
for n in 1 2; do
    "${TRAIN[@]}" --run both >"$T/both$n" 2>&1 </dev/null &
    children+=($!)
done
codes=""
for child in "${children[@]}"; do wait "$child"; codes+=" $?"; done
children=()
report "$([[ $codes == " 0 1" || $codes == " 1 0" || $codes == " 0 2" || $codes == " 2 0" ]]; echo $?)" \
    "two at once: one runs, one is refused" "exit codes$codes: $(cat "$T"/both*)"
same_run "two at once" "$R/whole" "$R/both" $END

# ---- 16: memory
big=(--layers 12 --width 1024 --heads 16 --context 512 --batch-tokens 8192 --micro-batch 16 --runs-dir "$R" --data "$DATA")
one_line "a memory limit" 1 "out of memory" bash -c 'ulimit -v 1500000; exec "$@"' - "$BUILD/train-$MAIN" "${big[@]}" --run memory
report "$([[ $output == *"largest"* && $output == *"--micro-batch"* ]]; echo $?)" \
    "the largest buffers and the option to lower are named" "$output"
one_line "more than the machine has" 1 "this run needs" "$BUILD/train-$MAIN" "${big[@]}" --run memory --layers 500 --width 65536
expect "--dry-run tells it too" 0 "too little; a smaller --micro-batch" "$BUILD/train-$MAIN" "${big[@]}" \
    --run memory --layers 500 --width 65536 --dry-run

printf 'test_faults: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
