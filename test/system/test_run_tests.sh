#!/usr/bin/env bash
# Tests of scripts/run_tests.sh on suites made here: one that hangs is ended within its limit together with
# all that it started; one that leaves a process behind, crashes, says nothing or is missing counts as failed;
# the counts add up.        test/system/test_run_tests.sh [build]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
T=$(mktemp -d) || exit 1
trap 'kill -9 $(cat "$T"/*.pid 2>/dev/null) 2>/dev/null; rm -rf "$T"' EXIT
. test/system/shell_common.sh
. test/system/mpi_common.sh
mkdir -p "$T/scripts" "$T/test/x" "$T/build"
cp scripts/run_tests.sh "$T/scripts/"
echo 'VARIANTS ?= qkv' >"$T/Makefile"
suite() { cat >"$T/test/x/test_$1.sh"; }
run() { env -u QV_SUITE LIMIT=2 "$@"; }
gone_within() {          # seconds, pid files
    local i
    for ((i = 0; i < $1 * 10; i++)); do gone $(cat "${@:2}") && return; sleep 0.1; done
    return 1
}

# What hangs: itself deaf to SIGTERM; a child in a process group of its own; a daemon in a session of its own; one without our mark; ranks.
mpirun=$(command -v mpirun) || mpirun=""
suite hang <<EOF
trap '' TERM
set -m
sleep 1000 & echo \$! >$T/group.pid
setsid bash -c 'echo \$\$ >$T/daemon.pid; trap "" TERM; while :; do sleep 1000; done' &
env -i PATH="\$PATH" sleep 1001 & echo \$! >$T/unmarked.pid
if [[ -n "$mpirun" ]]; then
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \\
        $mpirun --oversubscribe -np 2 bash -c 'echo \$\$ >$T/rank-\$RANDOM\$\$.pid; sleep 1000' &
fi
echo \$\$ >$T/suite.pid
echo "the last words"
kill -STOP \$(<$T/group.pid)
while :; do sleep 1000; done
EOF
started=$(now_ms)
expect "a suite that hangs is ended and named" 1 "test_hang.sh                      0 passed   1 failed" run "$T/scripts/run_tests.sh" hang
took=$(($(now_ms) - started))
report "$((took < 2000 || took > 60000))" "a suite that hangs: ended after its 2 s" "$took ms"
[[ $output == *"did not end within 2 s"*"the last words"*"failed: test_hang.sh (did not end within 2 s)"*"0 passed, 1 failed" ]]
report $? "it says so, with its output" "$output"
for what in suite group daemon unmarked; do
    gone_within 3 "$T/$what.pid"
    report $? "a suite that hangs: no process is left of it ($what)"
done
if [[ -n $mpirun ]]; then
    report "$([[ $(cat "$T"/rank-*.pid | wc -l) == 2 ]]; echo $?)" "two ranks ran" "$output"
    gone_within 3 "$T"/rank-*.pid
    report $? "no rank is left"
fi

suite leave <<EOF
setsid sleep 1000 & echo \$! >$T/left.pid
echo "test_leave: 3 checks, 0 failed"
EOF
expect "a suite that leaves a process behind has failed" 1 "left running: sleep 1000" run "$T/scripts/run_tests.sh" leave
report "$([[ $output == *"3 passed, 1 failed" ]]; echo $?)" "(its checks still count)" "$output"
gone_within 1 "$T/left.pid"
report $? "what was left is ended"

suite long <<'EOF'
# limit: 9 s
sleep 3
echo "test_long: 1 checks, 0 failed"
EOF
expect "a suite may have a longer limit of its own" 0 "1 passed, 0 failed" run "$T/scripts/run_tests.sh" long
suite good <<<'echo "test_good: 4 checks, 0 failed"'
suite bad <<<'echo "test_bad: 4 checks, 1 failed"; exit 1'
suite crash <<<'kill -SEGV $$'
suite mute <<<':'
suite skipped <<<'echo "test_skipped: skipped: no such thing here"'
rm "$T/test/x/test_hang.sh" "$T/test/x/test_leave.sh" "$T/test/x/test_long.sh"
expect "counts" 1 "failed: test_bad.sh test_crash.sh test_mute.sh
7 passed, 3 failed" run "$T/scripts/run_tests.sh" .sh
# Side by side, and not.
for n in 1 2 3; do suite "pair$n" <<EOF
touch $T/pair$n.here
sleep 0.5
seen=0
for other in $T/pair*.here; do ((++seen)); done
sleep 0.5
rm $T/pair$n.here
echo "test_pair: \$seen checks, 0 failed"
EOF
done
expect "suites run side by side, as many as AT_ONCE says" 0 "5 passed, 0 failed" run AT_ONCE=2 "$T/scripts/run_tests.sh" pair
expect "(or one after the other)" 0 "3 passed, 0 failed" run AT_ONCE=1 "$T/scripts/run_tests.sh" pair
for n in 1 3; do sed -i '1i # alone: why not' "$T/test/x/test_pair$n.sh"; done
expect "(or alone, where a suite says so)" 0 "3 passed, 0 failed" run AT_ONCE=2 "$T/scripts/run_tests.sh" pair
rm "$T"/test/x/test_pair*.sh
suite apart <<<'# apart: takes long
echo "test_apart: 1 checks, 0 failed"'
report "$(run "$T/scripts/run_tests.sh" | grep -c test_apart)" "a suite that stands apart is not run" "$output"
expect "(but by its name)" 0 "1 passed, 0 failed" run "$T/scripts/run_tests.sh" apart
expect "AT_ONCE that is no number" 2 "AT_ONCE=many" env AT_ONCE=many "$T/scripts/run_tests.sh"
expect "skipped, and why" 1 "test_skipped.sh                skipped: no such thing here" run "$T/scripts/run_tests.sh" skipped
expect "a missing binary has failed" 1 "failed: test-unit" run "$T/scripts/run_tests.sh" test-unit
expect "a limit that is none" 2 "LIMIT=soon" env LIMIT=soon "$T/scripts/run_tests.sh"

# Ctrl-C ends the suite too.
suite wait <<EOF
echo \$\$ >$T/wait.pid
sleep 1000
EOF
LIMIT=6143 "$T/scripts/run_tests.sh" wait >/dev/null 2>&1 &
runner=$!
for ((i = 0; i < 100; i++)); do [[ -s $T/wait.pid ]] && break; sleep 0.1; done
kill -TERM $runner
wait $runner
report "$(($? != 130))" "a signal to the runner: exit code"
gone_within 3 "$T/wait.pid"
report $? "a signal to the runner ends the suite"
report "$(pgrep -x -P "$$,1" -f 'sleep 6143' >/dev/null; [[ $? == 1 ]]; echo $?)" "a signal to the runner: its clock ends too"

printf 'test_run_tests: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
