#!/usr/bin/env bash
# Fuzzes the four parsers with libFuzzer under the address and undefined-behaviour sanitizers, one after the other, at low priority.
#   test/fuzz/run.sh [seconds per target [target...]]          default: 600, all
# Needs clang with its run-time libraries (apt install clang). What it finds lands in build/fuzz/NAME-crash-*: fix it, then add the
# file to test/fuzz/corpus/NAME, which `make test` replays. Inputs that reach new code stay in build/fuzz/NAME.corpus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-600}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(safetensors tokenizer shard config)
out=${FUZZ_OUT:-build/fuzz}
mkdir -p "$out"
declare -A function=([safetensors]=safetensors [tokenizer]=tokenizer_json [shard]=shard [config]=config)
sources=(runtime/run/{safetensors,files,options,option_table,options_check,nearest_name,schedule,config}.cpp dataloader/dataloader.cpp
    tokenizer/bpe_encode.cpp tokenizer/bpe_index.cpp tokenizer/bpe_train.cpp tokenizer/pretokenize.cpp tokenizer/tokenizer_json.cpp)
flags=(-std=gnu++20 -O1 -g -I. -Wno-unknown-pragmas -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined)
if [[ ! -e $out/objects.done || -n $(find runtime dataloader tokenizer -newer "$out/objects.done" -name '*.[ch]*' | head -1) ]]; then
    for s in "${sources[@]}"; do clang++ "${flags[@]}" -c "$s" -o "$out/$(basename "$s" .cpp).o"; done
    touch "$out/objects.done"
fi
failures=0
for t in "${targets[@]}"; do
    clang++ "${flags[@]}" -fsanitize=fuzzer -DFUZZ_TARGET="${function[$t]}" test/fuzz/fuzz_main.cpp \
        $(for s in "${sources[@]}"; do echo "$out/$(basename "$s" .cpp).o"; done) -lxxhash -o "$out/$t"
    mkdir -p "$out/$t.corpus"
    # Inputs are at most 64 KiB, so an allocation of 64 MB is never in proportion (JSON takes up to 100 bytes per byte).
    if ! nice -n 15 "$out/$t" -max_total_time="$seconds" -max_len=65536 -malloc_limit_mb=64 -rss_limit_mb=2048 \
        -timeout=20 -print_final_stats=1 \
        -verbosity=1 -artifact_prefix="$out/$t-" "$out/$t.corpus" "test/fuzz/corpus/$t" >"$out/$t.log" 2>&1; then
        failures=$((failures + 1))
        echo "$t: found something, see $out/$t.log"
        tail -30 "$out/$t.log"
    fi
    echo "$t: $(grep -c . < <(ls "$out/$t.corpus")) inputs kept; $(sed \
        -n 's/stat::number_of_executed_units: */executions /p; s/^Done .* in \([0-9]* second.*\)/in \1/p' "$out/$t.log" | paste -sd' ')"
done
exit $((failures > 0))
