#!/usr/bin/env bash
# Tests of build/compare and of the probes with real trainers: the same bits however many run side by side, the four ways of being equal
# against the trainers' own counts, tuned rates, a stop and what follows, masked targets.    test/system/test_compare.sh [build]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
. test/system/shell_common.sh
make_data
small_with() { env BUILD="$BUILD" RUNS_DIR="$T/runs" DATA="$DATA" SIZE=tiny LAYERS=1 WIDTH=32 HEADS=2 CONTEXT=32 \
    BATCH_TOKENS=128 STEPS=12 VAL_TOKENS=512 SEEDS=1 RATES=/dev/null "$@"; }
small() { small_with "$@" scripts/compare.sh; }
number() { sed -n "s/.*\"$2\":\([0-9.e+]*\).*/\1/p" "$1" | head -n 1; }          # of the first place in a file
config() { tr -d ' \n' <"$1/config.json" >"$T/config"; number "$T/config" "$2"; }

# ---- side by side or one after the other
expect "two rows one after the other, two threads" 0 "1 at a time with 2 threads each" small NAME=one VARIANTS="qkv qv" AT_ONCE=1 THREADS=2
expect "two rows side by side" 0 "2 at a time with one thread each" small NAME=two VARIANTS="qkv qv" AT_ONCE=2 THREADS=1
for row in qkv qv; do same_run "$row, side by side" "$T/runs/one/$row-rope-1" "$T/runs/two/$row-rope-1" step-00000012; done
expect "a row with a wrong value is refused before training" 2 "qv:sideways, rope: " small NAME=wrong VARIANTS="qkv qv:sideways"
[[ ! -e $T/runs/wrong/qkv-rope-1 ]]; report $? "(nothing was trained)"

# ---- equal in what
expect "four ways of being equal" 0 "x 4 matchings = 8 runs, 3 of them shared, of" small NAME=match VARIANTS="qkv qv" \
    MATCH="layout params cache flops"
expect "a dry run solves it too" 0 "--mlp-width" small NAME=dry DRY_RUN=1 VARIANTS="qkv qv" MATCH=params
base=$T/runs/match/qkv-rope-1
cmp -s "$base/metrics.jsonl" "$T/runs/match/match-params/qkv-rope-1/metrics.jsonl" &&
    [[ ! -e $T/runs/match/match-params/qkv-rope-1/checkpoints ]]; report $? "a row that a matching leaves alike is trained once"
rm -r "$base" "$T/runs/match/state/qkv-rope-1"
expect "(whichever of the two is there)" 0 "[1/4] qkv, rope, seed 1: done before, kept" small NAME=match VARIANTS="qkv qv" \
    MATCH="layout params"
wanted=$(config "$base" parameters_non_embedding) cache=$(config "$base" cache_bytes_per_token)
for row in qkv qv; do
    got=$(config "$T/runs/match/match-params/$row-rope-1" parameters_non_embedding)
    awk -v a="$got" -v b="$wanted" 'BEGIN { exit !(a > 0.995 * b && a < 1.005 * b) }'; report $? "equal parameters: $row $got, qkv $wanted"
    got=$(config "$T/runs/match/match-cache/$row-rope-1" cache_bytes_per_token)
    [[ $got == $((cache / 2)) ]]; report $? "equal cache: $row $got, half of $cache"
    flops=$(config "$T/runs/match/match-flops/$row-rope-1" flops_per_token) steps=$(config "$T/runs/match/match-flops/$row-rope-1" steps)
    awk -v a="$flops" -v s="$steps" -v b="$(config "$base" flops_per_token)" 'BEGIN { r = a * s / (b * 12); exit !(r > 0.95 && r < 1.05) }'
    report $? "equal FLOPs: $row, $steps steps of $flops"
done

# ---- rates
expect "runs from before the search" 2 "qkv-rope-1 was trained before its rate is searched" small NAME=two VARIANTS="qkv qv" TUNE=1
[[ ! -e $T/runs/two/tune ]]; report $? "(said before it)"
expect "tuned rates" 0 "qv, rope: lr 0.0" small NAME=tune VARIANTS="qkv qv" TUNE=1
[[ $(grep -c '"qv"\|"qkv"' "$T/runs/tune/learning_rates.json") == 2 && $(ls -d "$T"/runs/tune/tune/qv-rope-lr* |
    wc -l) -ge 3 ]]; report $? "(stored, with their curves)" "$(ls "$T/runs/tune/tune")"
expect "found rates are taken again" 0 "tuned2" small NAME=tuned2 VARIANTS="qkv qv" TUNE=1
[[ ! -e $T/runs/tuned2/tune ]]; report $? "(without a search)"
[[ $(config "$T/runs/tune/qv-rope-1" lr) == "$(config "$T/runs/tuned2/qv-rope-1" lr)" ]]; report $? "(the same rate)"

# ---- budgets: a trunk and its branches with one rate, which is tuned for the middle one
expect "budgets" 0 "rates a factor sqrt 2 apart" small_with VARIANTS="qkv qv" BASE_STEPS=10 WARMUP=2 RECORDS="$T/records" \
    scripts/study_budgets.sh
[[ $(config "$T"/runs/budget-20/tune/qv-rope-lr0.003 steps) == 10 ]]; report $? "(tuned at 10 steps)"
rate=$(config "$T/runs/budget-20/qv-rope-1" lr)
for steps in 10 5; do
    branch=$T/runs/budget-$steps/qv-rope-1
    [[ $(config "$branch" lr) == "$rate" && ! -e $T/runs/budget-$steps/tune ]]; report $? "($steps: the trunk's rate)"
    [[ $(cd "$branch/checkpoints" && echo step-*) == "$(printf 'step-%08d' $steps)" ]]
    report $? "($steps: off the trunk at four fifths)" "$(ls "$branch/checkpoints")"
done
expect "the same from the start" 0 "" small NAME=start VARIANTS=qv STEPS=10 WARMUP=2 SCHEDULE=wsd LR="$rate" EXTRA="--keep 9"
cmp -s "$T"/runs/{start,budget-10}/qv-rope-1/checkpoints/step-00000010/model.safetensors; report $? "(the same bits)"
for file in budget-20/learning_rates.json budget-10/comparison.json budget-5/qv-rope-1/metrics.jsonl; do
    [[ -s $T/records/$file ]]; report $? "(recorded: $file)"
done
expect "budgets side by side" 0 "| 2560 | 12" cat "$T/runs/budgets/report.md"

# ---- stopped and continued: the same bits
small NAME=stop VARIANTS="qkv qv" STEPS=400 VAL_EVERY=0 >"$T/stop.log" 2>&1 &
pid=$!
for i in {1..200}; do [[ -s $T/runs/stop/qkv-rope-1/metrics.csv ]] && break; sleep 0.05; done
kill -INT $pid
wait $pid
code=$?
[[ $code == 130 || $code == 0 ]]; report $? "Ctrl-C: exit code 130" "$code $(cat "$T/stop.log")"
expect "continued" 0 "" small NAME=stop VARIANTS="qkv qv" STEPS=400 VAL_EVERY=0
expect "the same without a stop" 0 "" small NAME=whole VARIANTS="qkv qv" STEPS=400 VAL_EVERY=0
cmp -s "$T/runs/stop/qv-rope-1/checkpoints/step-00000400/model.safetensors" \
    "$T/runs/whole/qv-rope-1/checkpoints/step-00000400/model.safetensors"; report $? "stopped, continued: the same bits"

# ---- probes
expect "pairs that do not fit" 2 "--pairs 20" "$BUILD/probe-data" recall --out "$T/p" --context 64 --pairs 20
expect "an unknown task" 2 "TASK" "$BUILD/probe-data" juggle --out "$T/p"
for task in recall copy induction; do expect "$task" 0 "sequences of 32 tokens" "$BUILD/probe-data" $task \
    --out "$T/$task" --context 32 --pairs 2 --vocab 256 --train 256 --val 32; done
expect "the same again" 0 "" "$BUILD/probe-data" recall --out "$T/again" --context 32 --pairs 2 --vocab 256 --train 256 --val 32
cmp -s "$T/recall/train_000000.bin" "$T/again/train_000000.bin" &&
    cmp -s "$T/recall/train_000000.mask" "$T/again/train_000000.mask"; report $? "a function of the seed"
[[ $(tr -d '\0' <"$T/recall/train_000000.mask" | wc -c) == 512 ]]; report $? "two counted targets a sequence"
"$BUILD/probe-data" recall --out "$T/queries" --context 32 --pairs 2 --queries 5 --vocab 256 --train 256 --val 32 >/dev/null
[[ $(tr -d '\0' <"$T/queries/train_000000.mask" | wc -c) == 1280 ]]; report $? "five, with --queries 5"
probe() { small DATA="$T/$1" NAME="probe-$1" VARIANTS=qkv HEADS=1 LR=0.01 BATCH_TOKENS=512 STEPS=${2:-30} BASELINE=qkv; }
expect "the trainer takes masks" 0 "" probe copy
grep -q '"accuracy":' "$T/runs/probe-copy/qkv-rope-1/metrics.jsonl"; report $? "accuracy is logged"
first=$(head -n 1 "$T/runs/probe-copy/qkv-rope-1/metrics.jsonl" | sed 's/.*"val_loss":\([0-9.]*\).*/\1/')
awk -v l="$first" 'BEGIN { exit !(l > 5.4 && l < 5.7) }'; report $? "the first loss is ln 256 = 5.545, over counted targets only" "$first"
expect "recall" 0 "" small DATA="$T/recall" NAME=recall-32-2-w32-h1-lr0.01 VARIANTS=qkv HEADS=1 LR=0.01 BATCH_TOKENS=512 STEPS=5
expect "a table of the probes" 0 "| one of the values there, at random | 0.500 |" "$BUILD/probe-table" "$T/runs"
head -c 100 "$T/copy/val_000000.mask" >"$T/short" && cp "$T/short" "$T/copy/val_000000.mask"
one_line "a mask of another length" 1 "a mask has one byte for each token" "$BUILD/train-qkv" --data "$T/copy" \
    --context 32 --batch-tokens 32 --runs-dir "$T/runs" --run bad

# ---- two at once in one folder: the second waits, then finds everything done
for n in 1 2; do small NAME=both VARIANTS="qkv" SEEDS=2 >"$T/both$n" 2>&1 & pids[n]=$!; done
codes=""
for n in 1 2; do wait "${pids[n]}"; codes+=" $?"; done
report "$([[ $codes == " 0 0" ]]; echo $?)" "two comparisons at once: both end well" "$codes: $(cat "$T/both1" "$T/both2")"
report "$([[ $(cat "$T/both1" "$T/both2" | grep -c "another comparison is at work") == 1 ]]; echo $?)" "(one waited)" "$(cat "$T"/both?)"
report "$([[ $(cat "$T/both1" "$T/both2" | grep -c "done before, kept") == 2 ]]; echo $?)" "(and trained nothing again)" "$(cat "$T"/both?)"

printf 'test_compare: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
