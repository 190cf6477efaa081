#!/usr/bin/env bash
# The trainer end to end, with the real programs and a tiny model on this repository's own text: interrupted runs give the same bits,
# wrong input gives one line and the right exit code, nothing is lost or overwritten. No network.    test/system/test_train.sh [build]
# Not for numbers: those are checked against references in test_ops*.cpp and test_model.cpp. More faults: test_faults.sh, test_crash.sh.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
MAIN=${VARIANTS%% *} OTHER=${VARIANTS##* }
T=$(mktemp -d) || exit 1
background=""
trap '[[ -z $background ]] || kill -9 $background 2>/dev/null; rm -rf "$T"' EXIT
. test/system/shell_common.sh
same_bits() {    # description, run, run, checkpoint
    cmp -s "$2/checkpoints/$4/model.safetensors" "$3/checkpoints/$4/model.safetensors" &&
        cmp -s "$2/checkpoints/$4/optimizer.safetensors" "$3/checkpoints/$4/optimizer.safetensors"
    report $? "$1: weights and moments are the same bits" "$(ls "$2/checkpoints" "$3/checkpoints" 2>&1)"
}
same_curve() { diff <(curve "$2") <(curve "$3") >"$T/diff" 2>&1; report $? "$1: the same log, one line a step" "$(cat "$T/diff")"; }
wait_for_lines() { local i; for ((i = 0; i < 6000; i++)); do [[ -f $1 ]] && (($(wc -l <"$1") >= $2)) && return; sleep 0.01; done; }
last() { sed -n '$s/.*"'"$2"'":\([^,}]*\).*/\1/p' "$1/metrics.jsonl"; }                   # last value of a key
snapshot() { (cd "$1" && find . -type f ! -name lock -print0 | sort -z | xargs -0 md5sum); }

make_data
SHARD=$(cd "$DATA" && echo train*.bin)
SIZE="--layers 2 --width 32 --heads 2 --context 32 --batch-tokens 256 --micro-batch 4"
SIZE+=" --warmup 5 --val-tokens 2048 --val-every 10 --data $DATA --runs-dir $R"
# shellcheck disable=SC2206
TRAIN=("$BUILD/train-$MAIN" $SIZE --steps 20)
train() { "${TRAIN[@]}" "$@"; }

# ---- interrupted and continued
END=step-00000020
expect "20 steps" 0 "best validation loss" train --run whole
report "$(($(wc -l <"$R/whole/metrics.jsonl") != 21))" "one line for each of the steps 0 to 20" "$(cat "$R/whole/metrics.jsonl")"
report "$(($(wc -l <"$R/whole/metrics.csv") != 22))" "and a header more in metrics.csv" "$(cat "$R/whole/metrics.csv")"
expect "again" 0 "" train --run again --quiet
same_bits "repeated" "$R/whole" "$R/again" $END
same_curve "repeated" "$R/whole" "$R/again"
for by in val_sequences:64 val_positions:32; do          # 2048 tokens in samples of 32
    means=$(od -An -v -w4 -tf4 "$R/whole/${by%:*}.f32" |
        awk -v loss="$(last "$R/whole" val_loss)" '{ sum += $1 } END { d = sum / NR - loss; print NR, (d < 1e-5 && d > -1e-5) }')
    report "$([[ $means == "${by#*:} 1" ]]; echo $?)" "${by%:*}.f32: ${by#*:} losses, whose mean is the validation loss" "$means"
done
expect "stopped at step 7: exit 75" 75 "stopped at step 7 (--stop-at)" train --run parts --stop-at 7
expect "continued" 0 "resumed from $R/parts/checkpoints/step-00000007" train --run parts --resume
same_bits "stopped and continued" "$R/whole" "$R/parts" $END
same_curve "stopped and continued" "$R/whole" "$R/parts"
expect "a finished run, resumed, does nothing" 0 "best validation loss" train --run parts --resume
same_bits "resumed after the end" "$R/whole" "$R/parts" $END
expect "one thread" 0 "" train --run one --threads 1
expect "two threads" 0 "" train --run two --threads 2
expect "three threads" 0 "" train --run three --threads 3
for n in two three; do same_bits "1 and $n threads" "$R/one" "$R/$n" $END; done
same_curve "1 and 2 threads" "$R/one" "$R/two"
expect "config.json repeats the run" 0 "" "$BUILD/train-$MAIN" --config "$R/whole/config.json" --run repeat
same_bits "repeated from config.json" "$R/whole" "$R/repeat" $END

for n in 1 2 8; do
    expect "micro-batch $n" 0 "" train --run micro$n --micro-batch $n
    near=$(awk -v a="$(last "$R/whole" val_loss)" -v b="$(last "$R/micro$n" val_loss)" \
        'BEGIN { d = a - b; print (d < 1e-5 && d > -1e-5 && a > 1 ? 0 : 1) }')
    report "$near" "micro-batch $n: the same validation loss within 1e-5" "$(last "$R/whole" val_loss) and $(last "$R/micro$n" val_loss)"
done

# Another plan for the steps to come, where the rates of those done stay as they are: a branch is the run that
# it would have been from the start.
WSD="--schedule wsd --decay-fraction 0.25 --val-every 5"
expect "a trunk" 0 "" train --run trunk $WSD --save-every 5 --keep 9                    # decays over steps 15 to 20
for branch in 12:05 32:15; do                                                           # decay over 9 to 12, 24 to 32
    steps=${branch%:*} from=$R/trunk/checkpoints/step-000000${branch#*:}
    expect "$steps steps from the start" 0 "" train --run start$steps $WSD --steps $steps
    expect "$steps steps as a branch" 0 "resumed from $from" train --run branch$steps $WSD --steps $steps --branch-from "$from"
    same_bits "branch of $steps steps" "$R/start$steps" "$R/branch$steps" step-000000$steps
    same_curve "branch of $steps steps" "$R/start$steps" "$R/branch$steps"
done
one_line "a branch whose decay should have begun" 2 "decay_fraction: 0.25 -> 0.5" train --run refused $WSD \
    --steps 12 --decay-fraction 0.5 --branch-from "$R/trunk/checkpoints/step-00000010"
one_line "a branch behind its end" 2 "steps: 20 -> 12" train --run refused $WSD --steps 12 --branch-from "$R/trunk"
one_line "a branch with another seed" 2 "seed: 1 -> 2" train --run refused $WSD --steps 32 --seed 2 \
    --branch-from "$R/trunk/checkpoints/step-00000010"
one_line "a branch of nothing" 2 "is neither a run's folder nor a checkpoint's" train --run refused --branch-from "$DATA"
one_line "branch and weights" 2 "choose one" train --run refused --branch-from "$R/trunk" --init-from "$R/trunk"
report "$([[ ! -e $R/refused ]]; echo $?)" "what is refused leaves no folder" "$(ls "$R")"
expect "a branch, stopped" 75 "" train --run branch-stopped $WSD --steps 32 --branch-from "$R/trunk/checkpoints/step-00000010" --stop-at 13
expect "and continued" 0 "" train --run branch-stopped $WSD --steps 32 --branch-from "$R/nowhere" --resume
same_bits "a branch, stopped and continued" "$R/start32" "$R/branch-stopped" step-00000032
expect "made longer: stopped" 75 "" train --run longer $WSD --stop-at 12
expect "made longer: continued" 0 "" train --run longer --resume --steps 32
same_bits "made longer" "$R/start32" "$R/longer" step-00000032
report "$(grep -q '"steps": 32' "$R/longer/config.json"; echo $?)" "config.json says so" "$(grep steps "$R/longer/config.json")"

# Weights of another run.
expect "weights from a run" 0 "weights from $R/whole/checkpoints/$END: " train --run tuned --steps 3 --lr 1e-4 \
    --seed 5 --init-from "$R/whole"
first=$(sed -n 's/^{"step":0,.*"val_loss":\([^,]*\).*/\1/p' "$R/tuned/metrics.jsonl")
report "$([[ $first == "$(last "$R/whole" val_loss)" ]]; echo $?)" "begins at the loss where the other ended" \
    "$first and $(last "$R/whole" val_loss)"
expect "weights of another variant and size: what is new is named" 0 "; new: h." "$BUILD/train-$OTHER" $SIZE \
    --steps 1 --mlp-width 48 --run other --init-from "$R/whole"
rm -rf "$R/tuned/checkpoints" "$R/tuned/saved"
expect "resumed before its first checkpoint: the same weights again" 0 "weights from" train --run tuned --steps 3 \
    --lr 1e-4 --seed 5 --init-from "$R/whole" --resume
one_line "weights from nowhere" 2 "--init-from $T/no: no such folder" train --run refused --init-from "$T/no"
"$BUILD/tokenizer" train --vocab-size 280 --out "$T/foreign.json" "$T/text.txt" >/dev/null &&
    "$BUILD/tokenizer" encode --tokenizer "$T/foreign.json" --out "$T/foreign" "$T/text.txt" >/dev/null || exit 1
one_line "weights of another tokenizer" 2 "it was trained with another tokenizer" train --run refused \
    --data "$T/foreign" --init-from "$R/whole"
report "$([[ ! -e $R/refused ]]; echo $?)" "weights that are refused leave no folder" "$(ls "$R")"

# Signals, on a run long enough to be hit. A second process must not touch it meanwhile.
LONG=(--steps 400 --save-every 50 --keep 100)
expect "400 steps" 0 "" train "${LONG[@]}" --run long
interrupt() {    # signal, run, lines of the log to wait for, options: sets `code`
    local signal=$1 run=$2 lines=$3
    shift 3
    "${TRAIN[@]}" "${LONG[@]}" --run "$run" "$@" >"$T/$run.log" 2>&1 </dev/null &
    background=$!
    wait_for_lines "$R/$run/metrics.jsonl" "$lines"
    kill -STOP $background
    [[ $signal != TERM ]] || one_line "a run that another process has is refused" 1 "in use by process" train \
        "${LONG[@]}" --run "$run" --resume
    kill -s "$signal" $background
    kill -CONT $background
    wait $background 2>/dev/null
    code=$? background=""
}
for signal in TERM INT USR1 KILL; do
    interrupt $signal $signal 60
    expected=75; [[ $signal == KILL ]] && expected=137
    report $((code != expected)) "SIG$signal: exit $expected" "exit code $code; $(tail -n 3 "$T/$signal.log")"
    expect "continued after SIG$signal" 0 "resumed from" train "${LONG[@]}" --run $signal --resume
    same_bits "after SIG$signal" "$R/long" "$R/$signal" step-00000400
    same_curve "after SIG$signal" "$R/long" "$R/$signal"
done
interrupt USR1 final 400                             # in the last step, its validation, or too late
[[ $code == 75 || $code == 0 ]]
report $? "SIGUSR1 at the end: exit 75 or 0" "exit code $code; $(tail -n 3 "$T/final.log")"
expect "continued after a signal at the end" 0 "best validation loss" train "${LONG[@]}" --run final --resume
same_bits "a signal at the end" "$R/long" "$R/final" step-00000400
same_curve "a signal at the end" "$R/long" "$R/final"
interrupt KILL early 5
expect "killed before the first checkpoint: starts over" 0 "" train "${LONG[@]}" --run early --resume
same_bits "killed before the first checkpoint" "$R/long" "$R/early" step-00000400
same_curve "killed before the first checkpoint" "$R/long" "$R/early"
# ---- what exists is not touched
before=$(snapshot "$R/whole")
one_line "an existing run" 2 "continue it with --resume, delete it with --overwrite" train --run whole
one_line "both at once" 2 "exclude each other" train --run whole --resume --overwrite
one_line "resumed with another rate" 2 "lr: " train --run whole --resume --lr 0.5
one_line "resumed with another seed" 2 "seed: 1 -> 2" train --run whole --resume --seed 2
one_line "resumed with another width" 2 "width: 32 -> 64" train --run whole --resume --width 64
# shellcheck disable=SC2086
one_line "resumed with another variant" 2 "was trained with attention \"$MAIN\"" "$BUILD/train-$OTHER" $SIZE --run whole --resume
cp -r "$DATA" "$T/changed"
"$BUILD/tokenizer" encode --tokenizer "$T/tokenizer.json" --out "$T/changed" --overwrite train.cu model/gpt.h Makefile >/dev/null
mv "$DATA" "$T/kept" && mv "$T/changed" "$DATA"
one_line "resumed with other data of the same name" 2 "train_fingerprint" train --run whole --resume
rm -r "$DATA" && mv "$T/kept" "$DATA"
report "$([[ $before == "$(snapshot "$R/whole")" ]]; echo $?)" "after all of these the run is as it was" \
    "$(diff <(echo "$before") <(snapshot "$R/whole"))"
expect "overwritten on demand" 0 "" train --run again --overwrite --steps 3
report "$(($(wc -l <"$R/again/metrics.jsonl") != 4))" "the old run is gone" "$(cat "$R/again/metrics.jsonl")"

# ---- dry run
expect "--dry-run prints the memory" 0 "AdamW first moment" train --run dry --runs-dir "$T/dry" --dry-run
report "$([[ ! -e $T/dry ]]; echo $?)" "and writes nothing" "$(ls -R "$T/dry" 2>&1)"
expect "--help fits a screen" 0 "" test "$(train --help | wc -lL | awk '{ print ($1 <= 60 && $2 <= 160) }')" = 1

# ---- wrong options: option and value | text in the message. None makes a folder.
while IFS='|' read -r options text; do
    # shellcheck disable=SC2086
    one_line "$options" 2 "$text" train --run wrong $options
done <<'TABLE'
--lr 3e-4x|--lr: '3e-4x' is not a number
--lr nan|--lr: 'nan' is not a number
--lr -1|--lr: -1 is out of range
--lr 1e999|--lr: '1e999' is out of range
--learning-rate 1|--learning-rate: unknown option
--sede 1|did you mean --seed?
--batch-token 256|did you mean --batch-tokens?
--steps -5|--steps: -5 is out of range
--steps 99999999999999999999|'99999999999999999999' is out of range
--steps 1.5|'1.5' is not a whole number
--steps|--steps: needs a value
--seed -1|--seed: '-1' is not a whole number, 0 or more
--layers 0|--layers: 0 is out of range
--batch-tokens 100|--batch-tokens: 100 is not a multiple of the context 32 x the micro-batch 4; the nearest: 128
--batch-tokens 300|the nearest: 256 or 384
--heads 5|--width: 32 is not a multiple of --heads 5
--kv-heads 3|--kv-heads: 3 does not divide --heads 2
--pos ropes|choose one of: learned, sinusoidal, rope, alibi, power, none
--schedule cos|choose one of: cosine, wsd, linear, constant
--run ../up|cannot name a run
--config /nonexistent.json|--config: /nonexistent.json
extra|'extra': unexpected argument
--micro-batch 99999999999|out of range
TABLE
printf '{"lrr": 1}' >"$T/typo.json"
one_line "a typo in a configuration file" 2 "did you mean 'lr'?" train --run wrong --config "$T/typo.json"
printf '{"lr": ' >"$T/cut.json"
one_line "a configuration file that is cut off" 2 "$T/cut.json" train --run wrong --config "$T/cut.json"
one_line "a context longer than the data" 1 "no whole sample" train --run wrong --context 65536 --batch-tokens 262144
one_line "a tokenizer that is not there" 1 "/nonexistent" train --run wrong --tokenizer /nonexistent

# ---- wrong data
one_line "no data folder" 1 "no such data folder" train --run wrong --data "$T/nowhere"
bad_data() {     # description, text, shell command that spoils $D
    rm -rf "$T/bad" && cp -r "$DATA" "$T/bad"
    (cd "$T/bad" && eval "$3")
    one_line "$1" 1 "$2" train --run wrong --data "$T/bad"
}
bad_data "no training shard" "no train*.bin" 'rm train*'
bad_data "no validation shard" "no val*.bin" 'rm val*'
bad_data "no tokenizer" "tokenizer.json: not found" 'rm tokenizer.json'
bad_data "a tokenizer that is cut off" "tokenizer.json" 'truncate -s -10 tokenizer.json'
bad_data "an empty shard" "$SHARD: 0 bytes, too short" ": >$SHARD"
bad_data "a text for a shard" "magic number" "cat $T/text.txt >$SHARD"
bad_data "a shard of another version" "version 9 at byte 4" "printf '\011' | dd of=$SHARD bs=1 seek=4 conv=notrunc status=none"
bad_data "a shard cut in the middle" "truncated?" "truncate -s -1000 $SHARD"
bad_data "a shard cut within a token" "truncated?" "truncate -s -1 $SHARD"
bad_data "a token outside the vocabulary" "$SHARD: token 65535 at position 1000 (byte 3024) is outside the vocabulary of 300" \
    "printf '\377\377' | dd of=$SHARD bs=1 seek=3024 conv=notrunc status=none"
report "$([[ ! -e $R/wrong ]]; echo $?)" "none of the refused runs left a folder" "$(ls -R "$R/wrong" 2>&1)"
printf x >"$R/file"
one_line "a file in the run's place" 1 "is not a folder" train --run file
rm "$R/file"

# ---- samples, and all variants
expect "samples" 0 "--- sample at step 10" train --run samples --sample-every 10 --sample-tokens 12 --prompt "static"
report "$(($(grep -c '^=== step' "$R/samples/samples.txt") != 2))" "two samples are written" "$(cat "$R/samples/samples.txt")"
same_bits "sampling does not change the run" "$R/whole" "$R/samples" $END
for variant in $VARIANTS; do
    # shellcheck disable=SC2086
    expect "3 steps of $variant" 0 "$variant-rope-1 done" "$BUILD/train-$variant" $SIZE --steps 3 --kv-heads 0
done
expect "60 steps" 0 "" train --run learn --steps 60 --lr 1e-2
fell=$(awk -v a="$(sed -n '1s/.*"val_loss":\([^,}]*\).*/\1/p' "$R/learn/metrics.jsonl")" \
    -v b="$(last "$R/learn" val_loss)" 'BEGIN { print (b < a - 1 ? 0 : 1) }')
report "$fell" "the validation loss falls by more than 1 nat in 60 steps" "$(grep -v 'val_loss":null' "$R/learn/metrics.jsonl")"

printf 'test_train: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
