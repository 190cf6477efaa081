#!/usr/bin/env bash
# Whole training runs on several ranks against one: the same curve for ZeRO 0, 1 and 2, the same bits with
# --deterministic-ranks, resuming on another number, memory that falls as 1/N, and faults 9, 11, 12, 13, 14 of
# docs/RELIABILITY.md.    test/system/test_ranks.sh [build]
# alone: its time limits are for ranks that have the cores to themselves
# The messages themselves are tested by test_mpi.sh. Without MPI everything here is skipped, and that is said.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
T=$(mktemp -d -p "${SCRATCH:-/dev/shm}" 2>/dev/null || mktemp -d) || exit 1
job=""
clean_up() {
    [[ -z $job ]] || kill -9 "$job" 2>/dev/null
    pkill -9 -f -- "--runs-dir $T" 2>/dev/null
    rm -rf "$T"
}
trap clean_up EXIT
. test/system/shell_common.sh
MAIN=${VARIANTS%% *}
if ! command -v mpirun >/dev/null || ! ldd "$BUILD/train-$MAIN" | grep -q libmpi; then
    echo "skipped: no MPI here, or build/train-$MAIN was built without it"
    echo "test_ranks: 1 checks, 0 failed"
    exit 0
fi
make_data
MPI=(mpirun)
if mpirun --version 2>&1 | grep -q "Open MPI"; then
    MPI=(mpirun --allow-run-as-root --oversubscribe --mca btl "self,vader")
fi
SIZE=(--layers 2 --width 48 --heads 4 --context 32 --batch-tokens 768 --micro-batch 2 --warmup 5 --val-tokens 1000 \
    --val-every 10 --data "$DATA" --threads 1 --runs-dir "$R")
mpi() {          # ranks, variant, options...
    local ranks=$1 variant=$2
    shift 2
    "${MPI[@]}" -np "$ranks" "$BUILD/train-$variant" "${SIZE[@]}" "$@"
}
# The largest relative difference between two runs' loss, val_loss and grad_norm, over all steps; 9 when they have different steps.
difference() {
    paste -d, <(cut -d, -f1,4,5,8 "$1/metrics.csv") <(cut -d, -f1,4,5,8 "$2/metrics.csv") | awk -F, '
        NR > 1 { if ($1 != $5) worst = 9
                 for (i = 2; i <= 4; i++) {
                     d = $i - $(i + 4); if (d < 0) d = -d
                     s = $i > 0 ? $i : 1
                     if (d / s > worst) worst = d / s
                     if (($i == "") != ($(i + 4) == "")) worst = 9 } }
        END { if (NR < 3) worst = 9; printf "%g", worst }'
}
close_to() {     # description, run, run, tolerance
    local d
    d=$(difference "$2" "$3")
    awk -v d="$d" -v t="$4" 'BEGIN { exit !(d <= t) }'
    report $? "$1: curves differ by $d, allowed is $4"
}
same() {         # description, run, run: bits
    same_run "$1" "$2" "$3" "$(tail -n 1 "$2/checkpoints/latest")"
}
wait_for_step() {        # run, step
    for ((i = 0; i < 300; i++)); do
        (($(tail -n 1 "$R/$1/metrics.csv" 2>/dev/null | cut -d, -f1 | grep -E '^[0-9]+$' || echo 0) >= $2)) && return 0
        sleep 0.1
    done
    return 1
}
rank_pid() {             # run, rank: its process
    local pid
    for pid in $(pgrep -f -- "^$BUILD/train-.*--run $1( |\$)"); do
        tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qxE "(OMPI_COMM_WORLD_RANK|PMI_RANK)=$2" && echo "$pid" && return
    done
}
gone() { ! pgrep -f -- "^$BUILD/train-.*--run $1( |\$)" >/dev/null; }

# ---- the same curve: any number of ranks, any ZeRO stage. Only the order of fp32 additions differs.
for variant in $VARIANTS; do expect "$variant alone" 0 "done: best" "$BUILD/train-$variant" "${SIZE[@]}" \
    --run "one-$variant" --steps 20; done
for zero in 0 1 2; do
    for ranks in 2 3 4; do
        expect "$ranks ranks, zero $zero" 0 "done: best" mpi $ranks "$MAIN" --zero $zero --run "r$ranks-z$zero" --steps 20
        close_to "$ranks ranks, zero $zero" "$R/one-$MAIN" "$R/r$ranks-z$zero" 1e-6
    done
done
ranks=3 zero=1
for variant in ${VARIANTS#"$MAIN"}; do
    expect "$variant, $ranks ranks, zero $zero" 0 "done: best" mpi $ranks "$variant" --zero $zero --run "r-$variant" --steps 20
    close_to "$variant, $ranks ranks, zero $zero" "$R/one-$variant" "$R/r-$variant" 1e-6
    ranks=$((5 - ranks)) zero=$((3 - zero))
done
report "$([[ $output != *$'\r'* ]]; echo $?)" "ranks print whole lines, though mpirun gives them a terminal" "$output"
expect "another micro-batch on 2 ranks" 0 "done: best" "${MPI[@]}" -np 2 "$BUILD/train-$MAIN" "${SIZE[@]}" \
    --micro-batch 6 --run micro --steps 20
close_to "another micro-batch on 2 ranks" "$R/one-$MAIN" "$R/micro" 1e-6
mpi 2 "$MAIN" --run again --steps 20 >/dev/null 2>&1
same "2 ranks twice" "$R/r2-z1" "$R/again"

# ---- the same bits
SIZE+=(--deterministic-ranks 4)
expect "deterministic alone" 0 "done: best" "$BUILD/train-$MAIN" "${SIZE[@]}" --run d1 --steps 20 --save-every 5
for ranks in 2 4; do
    for zero in 0 1; do
        expect "deterministic on $ranks" 0 "done: best" mpi $ranks "$MAIN" --zero $zero --run "d$ranks-$zero" --steps 20
        same "deterministic: $ranks ranks, zero $zero, against one" "$R/d1" "$R/d$ranks-$zero"
    done
done
close_to "deterministic against not" "$R/one-$MAIN" "$R/d1" 1e-6
expect "3 ranks are no power of two" 2 "must be a power of two and a multiple of the 3 ranks" mpi 3 "$MAIN" --run no \
    --steps 1 --batch-tokens 1536 --micro-batch 1
expect "not with zero 2" 2 "goes with --zero 0 or 1" mpi 2 "$MAIN" --run no --steps 1 --zero 2

# ---- a checkpoint does not know how many wrote it
expect "half on 4" 75 "stopped at step 10" mpi 4 "$MAIN" --run half --steps 20 --stop-at 10 --save-every 5
for ranks in 1 2 4; do
    whole "$R/half" "$R/half-$ranks"
    expect "the other half on $ranks" 0 "resumed from" mpi $ranks "$MAIN" --run "half-$ranks" --resume --zero $((ranks / 4))
    same "half on 4, half on $ranks" "$R/d1" "$R/half-$ranks"
done

# ---- 12: a rank is killed; 13: a rank hangs
start() {        # run, ranks, options: in the background, until step 6
    local run=$1 ranks=$2
    shift 2
    "${MPI[@]}" -np "$ranks" "$BUILD/train-$MAIN" "${SIZE[@]}" --run "$run" --steps 100000 --schedule constant \
        --save-every 5 "$@" >"$T/$run.out" 2>&1 </dev/null &
    job=$!
    wait_for_step "$run" 6
    report $? "$run: runs" "$(cat "$T/$run.out")"
}
ended() {        # run, text that its output has; sets code
    wait "$job"
    code=$?
    job=""
    sleep 0.2
    gone "$1"
    report $? "$1: no process is left"
    grep -qE "$2" "$T/$1.out"
    report $? "$1: says '$2'" "$(cat "$T/$1.out")"
}
start killed 3 --deterministic-ranks 0
kill -9 "$(rank_pid killed 1)"
ended killed "rank 1|[Ss]ignal 9|KILLED"
report "$((code == 0))" "killed: exit code $code"
expect "killed: goes on, on 2" 75 "resumed from" mpi 2 "$MAIN" --deterministic-ranks 0 --run killed --resume --stop-at 30
report "$([[ $(cut -d, -f1 "$R/killed/metrics.csv" | sort -n | uniq -d | wc -l) == 0 ]]; echo $?)" "killed: one line a step"
start hung 3 --comm-timeout 2 --deterministic-ranks 0
kill -STOP "$(rank_pid hung 2)"
ended hung "rank 2 .*did not answer.*step"
report "$((code == 0))" "hung: exit code $code"
start stopped 3 --comm-timeout 2 --deterministic-ranks 0
kill -STOP "$(rank_pid stopped 0)"                   # wakes up when the launcher ends it: it must not then have an opinion
ended stopped "rank 0 .*did not answer.*step"
report "$(($(grep -c 'error: ' "$T/stopped.out") != 1))" "stopped: one line" "$(cat "$T/stopped.out")"

# ---- 11: a signal to one rank, or to all through mpirun
start signalled 3 --deterministic-ranks 0
kill -TERM "$(rank_pid signalled 2)"
ended signalled "stopped at step [0-9]+ \(a signal to another rank\)"
report "$((code != 75))" "signalled: exit code $code, not 75"
expect "signalled: goes on" 75 "resumed from" mpi 3 "$MAIN" --deterministic-ranks 0 --run signalled --resume --stop-at 40
start usr1 2
kill -USR1 "$job"
ended usr1 "stopped at step [0-9]+ \(SIGUSR1\)"
report "$((code != 75))" "usr1: exit code $code, not 75"

# ---- 9: a gradient that is not finite on one rank
expect "NaN on rank 1" 0 "step 7: loss" env QV_SCALE_GRADIENT=7:nan@1 "${MPI[@]}" -np 4 "$BUILD/train-$MAIN" \
    "${SIZE[@]}" --run nan4 --steps 20
expect "NaN alone" 0 "is not finite: not updated" env QV_SCALE_GRADIENT=7:nan "$BUILD/train-$MAIN" "${SIZE[@]}" --run nan1 --steps 20
same "all ranks skip the step" "$R/nan1" "$R/nan4"
expect "NaN for ever" 1 "not finite 5 times in a row" env QV_SCALE_GRADIENT=7-99:nan@2 "${MPI[@]}" -np 4 \
    "$BUILD/train-$MAIN" "${SIZE[@]}" --run nans --steps 20 --save-every 3
report "$([[ $(tail -n 1 "$R/nans/checkpoints/latest") == step-00000009 ]]; echo $?)" \
    "NaN for ever: no checkpoint after the last good ones" "$(ls "$R/nans/checkpoints")"

# ---- 14: ranks that differ. (Each looks up its own number; `mpirun A : B` ends with a segmentation fault in Open MPI 5.0 as Debian
# 13 and Ubuntu have it [open-mpi/ompi#13303], whatever A and B are.)
other=$(set -- $VARIANTS; echo "${2:-$MAIN}")
printf '%s\n' '# rank-1 PROGRAM OPTION... -- OPTION...: on rank 1 another program, and the last options too' \
    'program=$1 options=()' 'shift' \
    'while [[ $1 != -- ]]; do options+=("$1"); shift; done' 'shift' \
    '((${OMPI_COMM_WORLD_RANK:-$PMI_RANK})) || exec "$TRAINER" "${options[@]}"' 'exec "$program" "${options[@]}" "$@"' >"$T/rank-1"
with_another() { # program of rank 1, its further options...
    local program=$1
    shift
    TRAINER=$BUILD/train-$MAIN "${MPI[@]}" -np 2 bash "$T/rank-1" "$program" "${SIZE[@]}" --run mix -- "$@"
}
expect "two variants" 2 "rank 1: differs from rank 0" with_another "$BUILD/train-$other"
report "$([[ $output == *"attn: \"$MAIN\" -> \"$other\""* ]]; echo $?)" "two variants: both are named" "$output"
expect "two rates" 2 "options.lr: 0.001 -> 0.002" with_another "$BUILD/train-$MAIN" --lr 2e-3
cp -r "$DATA" "$T/data2" && printf '\1' | dd of="$T/data2/train_000000.bin" bs=1 seek=3000 conv=notrunc 2>/dev/null
expect "two data sets" 2 "data.train_fingerprint" with_another "$BUILD/train-$MAIN" --data "$T/data2"
report "$([[ ! -e $R/mix ]]; echo $?)" "ranks that differ leave nothing behind"

# ---- one voice
expect "a wrong option" 2 "did you mean --layers?" mpi 3 "$MAIN" --layer 2
report "$([[ $(grep -c '^error' <<<"$output") == 1 ]]; echo $?)" "a wrong option is reported once" "$output"
expect "an indivisible batch" 2 "the nearest: " mpi 3 "$MAIN" --deterministic-ranks 0 --batch-tokens 128 --run no
expect "rank logs" 0 "done: best" mpi 2 "$MAIN" --run logs --steps 3 --rank-logs
report "$([[ -s $R/logs/rank-1.log && ! -e $R/logs/rank-0.log && $(grep -c 'done: best' <<<"$output") == 1 ]];
    echo $?)" "rank 1 has a log, rank 0 the screen" "$output"

# ---- memory of the optimizer's state falls as 1/N (buckets are padded to N x 1024 elements each)
moment_kib() {   # ranks: sets kib
    expect "a dry run on $1 ends well" 0 "AdamW first moment" mpi "$1" "$MAIN" --deterministic-ranks 0 --width 256 --run plan --dry-run
    kib=$(sed -n 's/^ *\([0-9.]*\) \([KM]\)iB  AdamW first moment$/\1 \2/p' <<<"$output" | awk '{ print $1 * ($2 == "M" ? 1024 : 1) }')
}
moment_kib 1
one=$kib
for ranks in 2 4; do
    moment_kib $ranks
    awk -v a="$one" -v b="$kib" -v n=$ranks 'BEGIN { exit !(a > 1000 && b > 0.99 * a / n && b < 1.03 * a / n) }'
    report $? "first moment: $one KiB on one rank, $kib KiB on each of $ranks"
done

# ---- bf16 weights with fp32 master copies that are divided among the ranks, in the emulated CUDA kernels
EMU=$BUILD/train-$MAIN-emu-bf16
if [[ -x $EMU ]]; then
    SMALL=(--layers 1 --width 64 --heads 2 --context 16 --batch-tokens 64 --micro-batch 2 --warmup 1 --val-tokens 64 \
        --val-every 2 --data "$DATA" --threads 1 --runs-dir "$R" --steps 3 --deterministic-ranks 2)
    expect "bf16 alone" 0 "done: best" "$EMU" "${SMALL[@]}" --run b1
    expect "bf16 on 2" 0 "done: best" "${MPI[@]}" -np 2 "$EMU" "${SMALL[@]}" --run b2
    same "bf16 on 2 ranks against one" "$R/b1" "$R/b2"
else
    echo "skipped: $EMU was not built"
fi

echo "test_ranks: $checks checks, $failures failed"
((failures == 0))
