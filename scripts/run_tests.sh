#!/usr/bin/env bash
# Runs every suite that `make test` builds: one line each with its seconds, the output of those that fail, at the end the counts.
#   scripts/run_tests.sh [word]      word: only suites with it in their name, such as gradients or qv
# Counted are doctest's test cases and the shell suites' checks. A suite that is missing, crashes or runs nothing counts as failed.
# Not for building: `make test` does that first.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ONLY=${1:-}
BUILD=${BUILD:-build}
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
# Threads that wait for each other sleep instead of spinning: on a busy machine spinning makes small models many times slower.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

suites=("$BUILD/test-unit" "$BUILD/test-ops-fp32" "$BUILD/test-ops-fp64")
for variant in $VARIANTS; do suites+=("$BUILD/test-gradients-$variant" "$BUILD/test-model-$variant-fp32" "$BUILD/test-model-$variant-fp64"); done
for emulated in "$BUILD"/test-emu*; do [[ -x $emulated && ! -d $emulated ]] && suites+=("$emulated"); done
suites+=(test/test_*.sh)

# Prints "passed failed", read from a suite's output:
#   [doctest] test cases: 12 | 11 passed | 1 failed | 0 skipped          test_scripts: 58 checks, 0 failed
counts() {
    sed -n -e 's/^\[doctest\] test cases: *[0-9]* *| *\([0-9]*\) passed *| *\([0-9]*\) failed.*/\1 \2/p' \
        -e 's/^test_[a-z_]*: \([0-9]*\) checks, \([0-9]*\) failed$/\1 \2 checks/p' |
        { read -r a b kind || exit 1; [[ -z $kind ]] || a=$((a - b)); printf '%s %s\n' "$a" "$b"; }
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0 broken=()
for suite in "${suites[@]}"; do
    name=${suite##*/}
    [[ $name == *"$ONLY"* ]] || continue
    started=$(date +%s%N)
    case $suite in
        *.sh) bash "$suite" "$BUILD" >"$log" 2>&1 </dev/null ;;
        *) "$suite" --no-colors >"$log" 2>&1 </dev/null ;;
    esac
    code=$?
    tenths=$((($(date +%s%N) - started) / 100000000))
    read -r good bad < <(counts <"$log") || good=0 bad=0
    ((code == 0 || bad > 0)) || bad=1                # a crash
    ((good + bad > 0)) || bad=1                      # nothing ran
    passed=$((passed + good)) failed=$((failed + bad))
    printf '%-28s %4d passed %3d failed %5d.%d s\n' "$name" "$good" "$bad" $((tenths / 10)) $((tenths % 10))
    if ((bad)); then
        broken+=("$suite")
        printf -- '---- %s, exit code %d\n' "$suite" "$code"
        tail -n 200 "$log"
        printf -- '----\n'
    fi
done
((${#broken[@]} == 0)) || printf 'failed: %s\n' "${broken[*]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0 && passed > 0))
