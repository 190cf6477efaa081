#!/usr/bin/env bash
# Runs every suite that `make test` builds: one line each with its seconds, the output of those that fail, at the end the counts.
#   scripts/run_tests.sh [word]      word: only suites with it in their name, such as gradients or qv
#   LIMIT=600                        seconds that a suite may take; a shell suite that needs more says so in a line "# limit: N s"
#   AT_ONCE=2                        suites side by side; default: one for each core, eight at most. A shell suite with a line
#                                    "# alone: why" runs by itself; one with a line "# apart: why" only when the word names it
# It counts doctest's test cases and the shell suites' checks. A suite that prints "test_NAME: skipped: why" counts
# nothing. One that is missing, crashes, runs nothing, exceeds its limit or leaves processes behind counts as failed, and
# everything it started is ended, mpirun's ranks too.
# Not for building: `make test` does that first.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ONLY=${1:-}
BUILD=${BUILD:-build}
LIMIT=${LIMIT:-600}
CONTROLS=${CONTROLS:-$(sed -n 's/^CONTROLS *?= *//p' Makefile)}
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
# Threads that wait for each other spin shortly and then sleep, as in the trainer (backend_prepare): sleeping
# at once makes small models four times slower, spinning for ever makes everything slow on a busy machine.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-5000}
cores=$(nproc 2>/dev/null || echo 1)
AT_ONCE=${AT_ONCE:-$((cores < 8 ? cores : 8))}

# Which random order: the same in every run, so that a failure can be repeated; another by hand.
RANDOM_SEED=${RANDOM_SEED:-1}
[[ $LIMIT =~ ^[1-9][0-9]{0,5}$ ]] || { printf 'LIMIT=%s: give seconds, such as 600\n' "$LIMIT" >&2; exit 2; }
[[ $AT_ONCE =~ ^[1-9][0-9]?$ ]] || { printf 'AT_ONCE=%s: give a number, such as 2\n' "$AT_ONCE" >&2; exit 2; }

# `make test-sanitized` builds the first two and asks for emu-bf16-. The longest first, so that none is left for the end.
suites=()
[[ $ONLY != emu-bf16-* ]] || suites+=("$BUILD/test-emu-bf16-address" "$BUILD/test-emu-bf16-thread")
suites+=("$BUILD/test-unit" "$BUILD/test-ops-fp32" "$BUILD/test-ops-fp64" "$BUILD/test-ops-bf16")
tested="$VARIANTS $(sed -n 's/^ALSO_TESTED *= *//p' test/rules.mk 2>/dev/null)"
for variant in $tested; do
    suites+=("$BUILD/test-gradients-$variant" "$BUILD/test-model-$variant-fp32" "$BUILD/test-model-$variant-fp64"); done
for variant in $VARIANTS; do suites+=("$BUILD/test-model-bf16-$variant"); done
# The CUDA kernels in emulation, in three orders of the threads between barriers (runtime/device/emu/emu.h);
# sanitized and whole models in one.
for emulated in "$BUILD/test-emu-fp32" "$BUILD/test-emu-bf16"; do
    suites+=("$emulated" "$emulated reverse" "$emulated random:$RANDOM_SEED"); done
for variant in $tested; do suites+=("$BUILD/test-emu-model-$variant" "$BUILD/test-emu-model-bf16-$variant"); done
for control in $CONTROLS; do suites+=("$BUILD/test-gradients-$control" "$BUILD/test-emu-model-$control"); done
suites+=(test/*/test_*.sh)

# Prints "passed failed", read from a suite's output:
#   [doctest] test cases: 12 | 11 passed | 1 failed | 0 skipped          test_scripts: 58 checks, 0 failed
counts() {
    sed -n -e 's/^\[doctest\] test cases: *[0-9]* *| *\([0-9]*\) passed *| *\([0-9]*\) failed.*/\1 \2/p' \
        -e 's/^test_[a-z_]*: \([0-9]*\) checks, \([0-9]*\) failed$/\1 \2 checks/p' |
        { read -r a b kind || exit 1; [[ -z $kind ]] || a=$((a - b)); printf '%s %s\n' "$a" "$b"; }
}

# A suite is a session of its own and carries QV_SUITE in its environment: between them they find what left
# its process group (mpirun's ranks, jobs under set -m), what became a daemon, and what was orphaned. Prints
# the processes of the suite that still run.
processes_of() {         # session, mark
    {
        sed -n 's/^\([0-9]*\) (.*) [^ZX] [0-9]* [0-9]* \([0-9]*\) .*/\1 \2/p' /proc/[0-9]*/stat | sed -n "s/ $1\$//p"
        grep -lzxF "QV_SUITE=$2" /proc/[0-9]*/environ | cut -d/ -f3
    } 2>/dev/null | sort -u
}
end_processes() {        # session, mark: asks, so that a suite may clear up; five seconds later it does not ask
    local signal until pids
    for signal in TERM KILL; do
        until=$((SECONDS + 5))
        while mapfile -t pids < <(processes_of "$1" "$2"); ((${#pids[@]})); do
            kill "-$signal" "${pids[@]}" 2>/dev/null
            ((SECONDS < until)) || break
            sleep 0.5
        done
    done
}
child="" mark="" timer=""
stop() {
    [[ -z $child ]] || end_processes "$child" "$mark"
    [[ -z $timer ]] || kill "$timer" 2>/dev/null
    exit 130
}
# Runs a command within a limit. Sets code, and ended: why it was ended or what it left running, "" if neither.
run_suite() {            # seconds, command...
    local limit=$1 left try
    shift
    mark=$$.$RANDOM.${EPOCHREALTIME//[!0-9]/}
    ended=""
    QV_SUITE=$mark setsid "$@" >"$log" 2>&1 </dev/null &
    child=$!
    sleep "$limit" &
    timer=$!
    wait -n "$child" "$timer"
    code=$?
    if kill -0 "$timer" 2>/dev/null; then
        kill "$timer"
        for ((try = 0; try < 30; try++)); do              # the last ones may be on their way out
            mapfile -t left < <(processes_of "$child" "$mark")
            ((${#left[@]})) || break
            sleep 0.1
        done
        ((${#left[@]} == 0)) || ended="left running: $(for pid in "${left[@]}"; do
            tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-120; printf '; '; done 2>/dev/null)"
    else
        ended="did not end within $limit s" code=124
    fi
    [[ -z $ended ]] || end_processes "$child" "$mark"
    wait "$timer" "$child" 2>/dev/null
    child="" timer=""
}

T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
# One suite, in a process of its own. Into $T/NUMBER: "passed failed [why it is broken]"; what is to be shown goes to stdout.
one_suite() {            # number, suite
    local suite=$2 name=${2##*/} order started limit=$LIMIT own tenths good bad reason why="" log=$T/$1.log
    trap stop TERM
    suite=${suite%% *} order=${name#"${suite##*/}"} order=${order# }
    started=$(date +%s%N)
    case $suite in
        *.sh) own=$(sed -n 's/^# limit: \([0-9]*\) s$/\1/p' "$suite")
              limit=$((${own:-0} > limit ? own : limit))
              run_suite "$limit" bash "$suite" "$BUILD" ;;
        *) [[ -z $order ]] || export EMU_ORDER=$order
           # Side by side, one thread each: threads that wait at a barrier for one that has no core take ten times as long. (ThreadSanitizer
           # watches two.)
           ((AT_ONCE == 1)) || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
           ((AT_ONCE == 1)) || [[ $suite == *-thread ]] || export EMU_THREADS=${EMU_THREADS:-1}
           run_suite "$limit" "$suite" --no-colors ;;
    esac
    tenths=$((($(date +%s%N) - started) / 100000000))
    if ((code == 0)) && [[ -z $ended ]] && reason=$(sed -n 's/^test_[a-z_]*: skipped: //p' "$log" | head -n 1) && [[ -n $reason ]]; then
        printf '%-30s skipped: %s\n' "$name" "$reason"
        echo "0 0" >"$T/$1"
        return
    fi
    read -r good bad < <(counts <"$log") || good=0 bad=0
    ((code == 0 || bad > 0)) || bad=1                # a crash
    ((good + bad > 0)) || bad=1                      # nothing ran
    [[ -z $ended ]] || ((bad > 0)) || bad=1
    printf '%-30s %4d passed %3d failed %5d.%d s%s\n' "$name" "$good" "$bad" $((tenths / 10)) $((tenths % 10)) "${ended:+  $ended}"
    if ((bad)); then
        printf -- '---- %s, exit code %d%s\n' "$suite${order:+, EMU_ORDER=$order}" "$code" "${ended:+, $ended}"
        tail -n 200 "$log"
        printf -- '----\n'
    fi
    ((bad == 0)) || why=" $name${ended:+ (${ended%%:*})}"
    printf '%d %d%s\n' "$good" "$bad" "$why" >"$T/$1"
}
declare -A running=()                                # process -> number
trap 'kill -TERM "${!running[@]}" 2>/dev/null; wait; exit 130' INT TERM HUP
wait_until_fewer_than() {
    local done_
    while ((${#running[@]} >= $1)); do
        wait -n -p done_ "${!running[@]}"
        cat "$T/${running[$done_]}.out"
        unset "running[$done_]"
    done
}
start() {                # number
    one_suite "$1" "${suites[$1]}" >"$T/$1.out" 2>&1 &
    running[$!]=$1
}
says() { [[ $1 == *.sh ]] && grep -q "^# $2: " "$1"; }
alone=()
for i in "${!suites[@]}"; do
    [[ ${suites[i]##*/} == *"$ONLY"* ]] || continue
    if says "${suites[i]}" apart && [[ -z $ONLY ]]; then continue; fi
    if says "${suites[i]}" alone; then alone+=("$i"); continue; fi
    wait_until_fewer_than "$AT_ONCE"
    start "$i"
done
for i in "${alone[@]}"; do
    wait_until_fewer_than 1
    start "$i"
done
wait_until_fewer_than 1

passed=0 failed=0 broken=()
for i in "${!suites[@]}"; do
    [[ ${suites[i]##*/} == *"$ONLY"* && -e $T/$i.out ]] || continue
    read -r good bad why <"$T/$i" || good=0 bad=1 why=${suites[i]##*/}
    passed=$((passed + good)) failed=$((failed + bad))
    [[ -z $why ]] || broken+=("$why")
done
((${#broken[@]} == 0)) || printf 'failed: %s\n' "${broken[*]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0 && passed > 0))
