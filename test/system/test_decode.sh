#!/usr/bin/env bash
# generate and evaluate on runs of a tiny model: the same text for every way to ask for it, the trainer's own validation loss, questions
# whose answers are known, one line for everything that is wrong.    test/system/test_decode.sh [build]
# Not for numbers of the decoder itself: test/model/test_decode.cpp, test/ops/test_sdpa_decode.cpp.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
MAIN=${VARIANTS%% *} OTHER=${VARIANTS##* }
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
. test/system/shell_common.sh
export BUILD
make_data
"$BUILD/tokenizer" train --vocab-size 280 --out "$T/two.json" "$T/text.txt" >/dev/null
SIZE="--layers 2 --width 32 --heads 2 --context 32 --batch-tokens 512 --micro-batch 4 --warmup 5"
SIZE+=" --lr 1e-2 --val-tokens 2048 --val-every 0 --data $DATA --runs-dir $R --quiet"
# shellcheck disable=SC2086
"$BUILD/train-$MAIN" $SIZE --steps 40 --run rope && "$BUILD/train-$MAIN" $SIZE --steps 3 --run learned \
    --pos learned && "$BUILD/train-$OTHER" $SIZE --steps 1 --run other || exit 1
RUN=$R/rope
generate() { "$BUILD/generate-$MAIN" "$@"; }
evaluate() { "$BUILD/evaluate-$MAIN" "$@"; }
same() { [[ $2 == "$3" && -n $2 ]]; report $? "$1" "one: $2"$'\n'"other: $3"; }
snapshot() { (cd "$R" && find . -type f ! -name lock -print0 | sort -z | xargs -0 md5sum); }
before=$(snapshot)

# ---- generate
text() { generate "$RUN" --quiet --tokens 60 "$@" 2>&1; }
printf 'inline int' >"$T/prompt"
one=$(text --prompt "inline int")
same "the same text again" "$one" "$(text --prompt "inline int")"
same "a prompt from a file" "$one" "$(text --prompt-file "$T/prompt")"
same "from standard input" "$one" "$(text <"$T/prompt")"
same "with one thread" "$one" "$(text --prompt "inline int" --threads 1)"
same "with three threads" "$one" "$(text --prompt "inline int" --threads 3)"
same "one checkpoint's folder" "$one" "$(generate "$RUN"/checkpoints/step-00000040 --quiet --tokens 60 --prompt "inline int")"
same "the first of three samples" "--- sample 1"$'\n'"$one" "$(text --prompt "inline int" --samples 3 | sed '/^--- sample 2$/,$d')"
same "only what is new, behind the prompt" "inline int$(text --prompt "inline int" --only-new)" "$one"
[[ $one != "$(text --prompt "inline int" --seed 2)" ]]; report $? "another seed, another text" "$one"
same "temperature 0: the seed does not matter" "$(text --prompt x --temperature 0)" "$(text --prompt x --temperature 0 --seed 5)"
same "top-k 1 is temperature 0" "$(text --prompt x --temperature 0)" "$(text --prompt x --top-k 1)"
same "top-p 0 is temperature 0" "$(text --prompt x --temperature 0)" "$(text --prompt x --top-p 0)"
same "min-p 1 is temperature 0" "$(text --prompt x --temperature 0)" "$(text --prompt x --min-p 1)"
expect "memory and what is cached" 0 "bytes per token" generate "$RUN" --dry-run
expect "a full context is said" 0 "the context of 32 tokens was full" generate "$RUN" --prompt a --tokens 60
expect "a longer one" 0 "128 tokens: " generate "$RUN" --prompt a --tokens 60 --context 128
output=$(generate "$RUN" --prompt a --tokens 100000 --quiet 2>"$T/error" | head -c 20; exit "${PIPESTATUS[0]}")
report $(($? + $(wc -c <"$T/error"))) "a reader that goes away ends it quietly" "$output, $(cat "$T/error")"
"$BUILD/generate-$MAIN" "$RUN" --prompt a --tokens 100000000 --quiet >"$T/cut" 2>"$T/error" &
writer=$!
for ((i = 0; i < 600; i++)); do (($(wc -c <"$T/cut") > 20)) && break; sleep 0.1; done          # it writes: past its start-up
kill -INT $writer
wait $writer
code=$?
report $((code == 130 ? $(wc -c <"$T/error") : 1)) "Ctrl-C ends it quietly" "exit code $code, $(cat "$T/error")"
if command -v script >/dev/null; then        # a terminal
    output=$(printf 'hello\n/new\nint\n\004' | timeout 60 script -qec "'$BUILD/generate-$MAIN' '$RUN' --tokens 5" /dev/null 2>&1)
    [[ $(grep -c '^> ' <<<"$output") -ge 3 ]]; report $? "talking on a terminal" "$output"
fi

# ---- evaluate
number() { awk -v c="$1" 'NR == 2 { print $c }' <<<"$2"; }
close() { awk -v a="$2" -v b="$3" -v by="$4" 'BEGIN { d = a - b; exit !(a > 0 && d < by && d > -by) }'; report $? "$1" "$2 and $3"; }
table=$(evaluate "$RUN" --sequences "$T/sequences.f32" 2>&1)
trained=$(sed -n '$s/.*"val_loss":\([0-9.]*\).*/\1/p' "$RUN/metrics.jsonl")
close "the trainer's validation loss" "$(number 8 "$table")" "$trained" 1e-4
close "its bits per byte" "$(number 9 "$table")" "$(sed -n '$s/.*"bits_per_byte":\([0-9.]*\).*/\1/p' "$RUN/metrics.jsonl")" 1e-4
same "64 windows in the file" 64 "$(($(wc -c <"$T/sequences.f32") / 4))"
close "whose mean is the loss" "$(od -An -tf4 -v "$T/sequences.f32" |
    awk '{ for (i = 1; i <= NF; i++) s += $i; n += NF } END { print s / n }')" "$trained" 1e-4
# 40 marks, each a token, with a stride of 8: the 31 losses of the first 32, and the last 8 of the window that begins at the ninth. The
# same from three texts of a window or less: what its 32 have in sum, less what its first 24 have.
marks='^@~`^`@@~~^@`~^^~@``~^@^~`@~^`@^@~`@^~`^'
window() { printf '%s' "$1" >"$T/marks"; evaluate "$RUN" --text "$T/marks" --stride 8; }
sliding=$(window "$marks")
first=$(window "${marks:0:32}") second=$(window "${marks:8}") seen=$(window "${marks:8:24}")
same "overlapping windows score every token once" "39 31 31 23" \
    "$(for t in "$sliding" "$first" "$second" "$seen"; do number 7 "$t"; done | xargs)"
expected=$(awk -v a="$(number 8 "$first")" -v b="$(number 8 "$second")" -v c="$(number 8 "$seen")" 'BEGIN {
    print (31 * (a + b) - 23 * c) / 39 }')
close "overlapping windows: each token with the context before it" "$(number 8 "$sliding")" "$expected" 3e-4
expect "two and four times the context" 0 " 128 " evaluate "$RUN" --times "1 2 4" --max-tokens 1024
expect "loss by position" 0 "" evaluate "$RUN" --by-position "$T/position.csv"
same "in bins that double" "1 2 3 5 9 17" "$(cut -d, -f1 "$T/position.csv" | tail -n +2 | tr '\n' ' ' | sed 's/ $//')"
head -c 3000 attention/qv.h >"$T/book.txt"
expect "a text" 0 "rope" evaluate "$RUN" --text "$T/book.txt"
# one more token ends the document
same "every byte of it is counted" "$(evaluate "$RUN" --text "$T/book.txt" --stride 31 |
    awk 'NR == 2 { print $7 }')" "$(($("$BUILD/tokenizer" encode --tokenizer "$DATA/tokenizer.json" --val-fraction 0 \
    --out "$T/one" "$T/book.txt" | sed -n 's/.* \([0-9]*\) tokens (.*/\1/p') - 2))"
# The right ending is in the model's text, the others are noise: a model that learned anything knows.
for i in 1 2 3 4 5 6; do
    printf '{"ctx": "linear_forward(q, x, l.w[WQ], l.w[BQ],", "label": %d, "endings": [%s]}\n' $((i % 3)) "$(
        for k in 0 1 2; do ((k == i % 3)) && printf '"linear_shape(l.rows(), c.C,"' ||
            printf '"\\u00fe%s~zq|^ Q7\\u00e9j"' "$k$i"; ((k == 2)) || printf ', '; done)"
done >"$T/questions.jsonl"
questions=$(evaluate "$RUN" --questions "$T/questions.jsonl")
same "questions whose answers are known" "6 1.0000 1.0000 1.0000" "$(awk 'NR == 2 { print $5, $6, $7, $8 }' <<<"$questions")"
expect "attention maps" 0 "2 layers of 2 heads" evaluate "$RUN" --map "$T/map.svg" --prompt "inline int"
same "with a square for each head of each layer" 4 "$(grep -c 'fill="none"' "$T/map.svg")"
! command -v xmllint >/dev/null || expect "well formed" 0 "" xmllint --noout "$T/map.svg"
expect "several runs, one table" 0 "learned" scripts/evaluate.sh "$R/rope" "$R/learned" -- --max-tokens 256
same "with one header" 1 "$(BUILD=$BUILD scripts/evaluate.sh "$R/rope" "$R/learned" -- --max-tokens 256 | grep -c perplexity)"

# ---- what is wrong is one line
for program in generate evaluate; do
    one_line "$program: no run" 2 "which run?" $program
    one_line "$program: no such folder" 2 "no such folder" $program "$R/nowhere"
    one_line "$program: a folder that is no run" 2 "not a run's folder" $program "$T"
    one_line "$program: another variant's run" 2 \
        "trained with attention $OTHER, this program has $MAIN; use build/$program-$OTHER" $program "$R/other"
    one_line "$program: another tokenizer" 2 "is not the tokenizer" $program "$RUN" --tokenizer "$T/two.json"
    one_line "$program: a tokenizer that is gone" 2 "no longer there" $program "$RUN" --tokenizer "$T/none.json"
    one_line "$program: an unknown option" 2 "did you mean --threads?" $program "$RUN" --threds 1
    one_line "$program: a value that is none" 2 "is not a whole number" $program "$RUN" --threads many
    one_line "$program: learned positions end" 2 "learned positions for 32" $program "$R/learned" --context 64
done 2>/dev/null
mkdir -p "$R/empty" && cp "$RUN/config.json" "$R/empty" && one_line "no checkpoint yet" 2 "no checkpoint yet" \
    generate "$R/empty" && rm -r "$R/empty"
one_line "a prompt longer than the context" 2 "is longer than the context of 32" generate "$RUN" --prompt "$(head -c 400 attention/qv.h)"
one_line "both prompts" 2 "exclude each other" generate "$RUN" --prompt a --prompt-file "$T/prompt"
one_line "a temperature that is none" 2 "--temperature" generate "$RUN" --prompt a --temperature -1
one_line "a stride beyond the window" 2 "tokens would be left out" evaluate "$RUN" --stride 33
one_line "two contexts, one file" 2 "give one context" evaluate "$RUN" --times "1 2" --sequences "$T/x"
echo '{"ctx": "a", "endings": ["b"], "label": 1}' >"$T/wrong.jsonl"
one_line "a label that is none" 2 "line 1: the label is none of the 1 endings" evaluate "$RUN" --questions "$T/wrong.jsonl"
same "nothing in the runs has changed" "$before" "$(snapshot)"
printf 'test_decode: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
