#!/usr/bin/env bash
# Kills the trainer with SIGKILL at random moments and at every point of the checkpoint protocol (runtime/run/crash_point.h), resumes it,
# and compares weights, moments, log and samples with a run that was left alone. What was reported as saved must never be lost.
#   test/system/test_crash.sh [build [kills]]        kills: 12, and each point once; from 200 on every passage of every point
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
wanted=${2:-12}
# In memory where that is possible: a kill or an error is the same there, and on a busy disk fsync takes most of the time.
T=$(mktemp -d -p "${SCRATCH:-/dev/shm}" 2>/dev/null || mktemp -d) || exit 1
child=""
trap '[[ -z $child ]] || kill -9 $child 2>/dev/null; rm -rf "$T"' EXIT
. test/system/shell_common.sh
make_data
STEPS=40 END=step-00000040
# One thread: twice as many processes are killed in the same time; the reference has two, the bits must not depend on it.
TRAIN=("$BUILD/train-${ATTN:-qkv}" --layers 2 --width 32 --heads 2 --context 32 --batch-tokens 256 --micro-batch 4 \
    --warmup 5 --val-tokens 1024
    --val-every 10 --sample-every 10 --sample-tokens 8 --steps $STEPS --save-every 3 --threads 1 --data "$DATA" --runs-dir "$R")
train() { "${TRAIN[@]}" "$@"; }          # in the background "${TRAIN[@]}" itself: $! would be a subshell
expect "left alone" 0 "done: best validation loss" train --run reference --threads 2
started=$(now_ms)
expect "the same with one thread" 0 "" train --run single
duration=$(($(now_ms) - started))
same_run "one thread and two" "$R/reference" "$R/single" $END

last_saved() { sed -n 's|^saved .*/step-0*\([0-9][0-9]*\),.*|\1|p' "$T/log" | tail -n 1; }
# Resumes once more after a kill; what the killed process had reported as saved must be there.
check_resumed() {        # description, steps reported as saved
    local from
    from=$(sed -n 's|^resumed from .*/step-0*\([0-9][0-9]*\)$|\1|p' "$T/log")
    [[ -z $2 || ${from:-0} -ge $2 ]]
    report $? "$1: step $2 was reported as saved, resumed from ${from:-the start}" "$(cat "$T/log")"
}

# ---- at random moments: several kills in one run
RANDOM=${SEED:-$$}
kills=0 runs=0 reported=0
started=$(now_ms)
while ((kills < wanted)); do
    rm -rf "$R/killed"
    saved="" here=0 runs=$((runs + 1))
    while :; do
        if ((here < 8 && kills < wanted)); then wait_ms=$((RANDOM % (duration + 1))); else wait_ms=""; fi
        "${TRAIN[@]}" --run killed --resume >"$T/log" 2>&1 </dev/null &
        child=$!
        if [[ -n $wait_ms ]]; then
            sleep "$((wait_ms / 1000)).$(printf %03d $((wait_ms % 1000)))"
            kill -9 $child 2>/dev/null
        fi
        wait $child 2>/dev/null
        code=$? child=""
        # A process that died before it could say so has resumed nothing.
        [[ $code == 137 ]] && ! grep -q '^resumed' "$T/log" || check_resumed "kill $kills" "$saved"
        [[ -z $(last_saved) ]] || saved=$(last_saved) reported=$((reported + 1))
        if [[ $code != 137 ]]; then
            report "$code" "after $here kills it runs to the end" "$(tail -n 5 "$T/log")"
            break
        fi
        kills=$((kills + 1)) here=$((here + 1))
    done
    same_run "after $here kills" "$R/reference" "$R/killed" $END
done 2>/dev/null
printf 'random kills: %d in %d runs, %d s; a run left alone takes %d ms; %d times something was reported as saved before\n' $kills $runs \
    $((($(now_ms) - started) / 1000)) $duration $reported

# ---- at every point of the protocol
points=0
started=$(now_ms)
for point in before-write during-write after-write before-fsync after-fsync before-rename after-rename before-publish after-publish \
    before-latest after-latest before-prune after-prune; do
    n=$((1 + RANDOM % 5)) last=$n
    ((wanted < 200)) || n=1 last=1000
    for (( ; n <= last; n++)); do
        rm -rf "$R/killed"
        QV_CRASH_AT=$point:$n train --run killed --save-every 10 --resume >"$T/log" 2>&1 </dev/null
        code=$?
        saved=$(last_saved)
        [[ $code != 0 ]] || { report $((n == 1)) "$point is never passed"; break; }
        report $((code != 137)) "killed at $point:$n" "exit code $code: $(tail -n 3 "$T/log")"
        points=$((points + 1))
        expect "resumed after $point:$n" 0 "" train --run killed --save-every 10 --resume
        printf '%s\n' "$output" >"$T/log"
        check_resumed "$point:$n" "$saved"
        same_run "killed at $point:$n" "$R/reference" "$R/killed" $END
    done
done 2>/dev/null
printf 'kills at points of the protocol: %d, %d s\n' $points $((($(now_ms) - started) / 1000))

printf 'test_crash: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
