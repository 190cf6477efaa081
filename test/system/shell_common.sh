# For the shell suites about faults (sourced): checks that count, a tiny data set, runs that can be compared.
# Expects BUILD and T (a scratch folder), sets DATA and R (runs).
failures=0 checks=0
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

report() {       # passed?, description, what to show when it did not
    checks=$((checks + 1))
    [[ $1 == 0 ]] && return
    failures=$((failures + 1))
    printf 'FAILED: %s\n%s\n' "$2" "${3:-}" | head -n 40
}
expect() {       # description, exit code, text that must appear ("" for none), command...
    local what=$1 code=$2 text=$3 got
    shift 3
    output=$("$@" 2>&1 </dev/null)
    got=$?
    [[ $got == "$code" && $output == *"$text"* ]]
    report $? "$what" "  command: $*"$'\n'"  exit code $got, expected $code; expected text: $text"$'\n'"$output"
}
one_line() {     # like expect; stderr must be one line, "error: ...text..."
    local what=$1 code=$2 text=$3 got
    shift 3
    output=$("$@" 2>&1 >/dev/null </dev/null)
    got=$?
    [[ $got == "$code" && $output == "error: "*"$text"* && $output != *$'\n'* ]]
    report $? "$what" "  command: $*"$'\n'"  exit code $got, expected $code; expected one line: error: ...$text..."$'\n'"stderr: $output"
}
# All that the log says besides the clock: step, tokens, loss, val_loss, bits_per_byte, lr, grad_norm.
curve() { sed -E 's/"(seconds|tokens_per_second|mfu)":[^,}]*[,}]//g' "$1/metrics.jsonl"; }
# The same weights, moments, log (one line a step) and samples; name of the last checkpoint.
same_run() {     # description, run, run, checkpoint
    cmp -s "$2/checkpoints/$4/model.safetensors" "$3/checkpoints/$4/model.safetensors" &&
        cmp -s "$2/checkpoints/$4/optimizer.safetensors" "$3/checkpoints/$4/optimizer.safetensors"
    report $? "$1: the same bits" "$(ls "$2/checkpoints" "$3/checkpoints" 2>&1)"
    {
        diff <(curve "$2") <(curve "$3") && { [[ ! -e $2/samples.txt && ! -e $3/samples.txt ]] || diff "$2/samples.txt" "$3/samples.txt"; }
    } >"$T/diff" 2>&1
    report $? "$1: the same log and samples" "$(cat "$T/diff")"
}
whole() { cp -r "$1" "$2" && rm -f "$2/lock"; }                # a copy of a run
make_data() {
    DATA=$T/data R=$T/runs
    cat train.cu model/gpt.h attention/*.h >"$T/text.txt"
    "$BUILD/tokenizer" train --vocab-size 300 --out "$T/tokenizer.json" "$T/text.txt" >/dev/null &&
        "$BUILD/tokenizer" encode --tokenizer "$T/tokenizer.json" --out "$DATA" "$T/text.txt" >/dev/null || exit 1
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }
