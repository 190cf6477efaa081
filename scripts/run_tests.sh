#!/usr/bin/env bash
# Runs every suite that `make test` builds: one line each with its seconds, the output of those that fail, at the end the counts.
#   scripts/run_tests.sh [word]      word: only suites with it in their name, such as gradients or qv
# Counted are doctest's test cases and the shell suites' checks. A suite that prints "test_NAME: skipped: why" counts nothing; one that is missing, crashes or runs nothing counts as failed.
# Not for building: `make test` does that first.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ONLY=${1:-}
BUILD=${BUILD:-build}
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
# Threads that wait for each other spin shortly and then sleep, as in the trainer (backend_prepare): sleeping at once makes small models four
# times slower, spinning for ever makes everything slow on a busy machine.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-5000}

# Which random order: the same in every run, so that a failure can be repeated; another by hand.
RANDOM_SEED=${RANDOM_SEED:-1}

suites=("$BUILD/test-unit" "$BUILD/test-ops-fp32" "$BUILD/test-ops-fp64")
for variant in $VARIANTS; do suites+=("$BUILD/test-gradients-$variant" "$BUILD/test-model-$variant-fp32" "$BUILD/test-model-$variant-fp64"); done
# The CUDA kernels in emulation, in three orders of the threads between barriers (runtime/device/emu/emu.h); sanitized and whole models in one.
for emulated in "$BUILD/test-emu-fp32" "$BUILD/test-emu-bf16"; do suites+=("$emulated" "$emulated reverse" "$emulated random:$RANDOM_SEED"); done
suites+=("$BUILD/test-emu-bf16-address" "$BUILD/test-emu-bf16-thread")
for variant in $VARIANTS; do suites+=("$BUILD/test-emu-model-$variant" "$BUILD/test-emu-model-bf16-$variant"); done
suites+=(test/*/test_*.sh)

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
    suite=${suite%% *} order=${name#"${suite##*/}"} order=${order# }
    [[ $name == *"$ONLY"* ]] || continue
    started=$(date +%s%N)
    case $suite in
        *.sh) bash "$suite" "$BUILD" >"$log" 2>&1 </dev/null ;;
        *) EMU_ORDER=${order:-${EMU_ORDER:-}} "$suite" --no-colors >"$log" 2>&1 </dev/null ;;
    esac
    code=$?
    tenths=$((($(date +%s%N) - started) / 100000000))
    if ((code == 0)) && reason=$(sed -n 's/^test_[a-z_]*: skipped: //p' "$log" | head -n 1) && [[ -n $reason ]]; then
        printf '%-30s skipped: %s\n' "$name" "$reason"
        continue
    fi
    read -r good bad < <(counts <"$log") || good=0 bad=0
    ((code == 0 || bad > 0)) || bad=1                # a crash
    ((good + bad > 0)) || bad=1                      # nothing ran
    passed=$((passed + good)) failed=$((failed + bad))
    printf '%-30s %4d passed %3d failed %5d.%d s\n' "$name" "$good" "$bad" $((tenths / 10)) $((tenths % 10))
    if ((bad)); then
        broken+=("$name")
        printf -- '---- %s, exit code %d\n' "$suite${order:+, EMU_ORDER=$order}" "$code"
        tail -n 200 "$log"
        printf -- '----\n'
    fi
done
((${#broken[@]} == 0)) || printf 'failed: %s\n' "${broken[*]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0 && passed > 0))
