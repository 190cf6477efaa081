#!/usr/bin/env bash
# What is to be done on a machine with an NVIDIA GPU, in slots of ten minutes; `make gpu-check` calls it. Writes one page,
# docs/gpu/DEVICE-DATE.md: device, driver, toolkit, commit, each command with its result, the measurements beside the targets;
# the logs lie beside it in DEVICE-DATE-logs/. The page is written anew after every step, so it says what was found when the
# machine is taken away. A step that fails is said in the page and in the exit code; the rest goes on. Pieces run at different
# times on one device, day and commit come together in one page. Not for speed claims by itself: it says what was measured,
# docs/gpu/README.md what it means.
#   SLOT=1                 build, each test case, whole models, benchmarks, 30 steps of 124M in qkv and qv, memcheck of attention
#   SLOT=2                 fp32, racecheck and synccheck of attention and layernorm, ncu, PyTorch, 30 steps in all variants
#   PARTS="build tests"    these parts instead: build tests models bench train memcheck fp32 sanitizers profile peer
#   VARIANTS="qkv qv"      of whole models and training           LIMIT=90  BUILD_LIMIT=300    seconds, at most, for a step
#   DATA=folder            token shards and tokenizer for `train`; default: synthetic, vocabulary 50257, made on the spot
#   STEPS=30  MICRO_BATCH=64 (halved while the GPU's memory is too small)     DEPS=folder: see scripts/deps.sh     JOBS=n  OUT=docs/gpu
#   BACKEND=emu SIZE=tiny  the same steps with emulated kernels and tiny sizes, to test this script; measures nothing
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
SLOT=${SLOT:-1} BACKEND=${BACKEND:-cuda} SIZE=${SIZE:-gpt2}
LIMIT=${LIMIT:-90} BUILD_LIMIT=${BUILD_LIMIT:-300} OUT=${OUT:-docs/gpu} BUILD=${BUILD:-build}
ALL_PARTS="build tests models bench train memcheck fp32 sanitizers profile peer"
JOBS=${JOBS:-$(nproc)} DEPS=${DEPS:-} DATA=${DATA:-} STEPS=${STEPS:-30} MICRO_BATCH=${MICRO_BATCH:-64}
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
usage() { printf 'error: %s\n' "$*" >&2; exit 2; }
case $SLOT in
    1) PARTS=${PARTS:-build tests models bench train memcheck} VARIANTS=${VARIANTS:-qkv qv} ;;
    2) PARTS=${PARTS:-fp32 sanitizers profile peer train} VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)} ;;
    *) usage "SLOT=$SLOT: 1 or 2" ;;
esac
for part in $PARTS; do [[ " $ALL_PARTS " == *" $part "* ]] || usage "PARTS: $part is none of ${ALL_PARTS// /, }"; done
case $BACKEND-$SIZE in cuda-gpt2 | cuda-tiny | emu-tiny) ;;
    *) usage "BACKEND=$BACKEND SIZE=$SIZE: cuda with gpt2 or tiny, emu with tiny" ;; esac

gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv,noheader 2>/dev/null | head -n 1)
[[ $gpu == *,*,* ]] || die "no NVIDIA GPU here (nvidia-smi lists none); without one: make test, and make cuda-check"
# With a folder of headers there is no package manager to ask, and perhaps no network to wait for.
DEPS=$DEPS NO_INSTALL=${DEPS:+1} scripts/setup.sh test || exit 1
IFS=, read -r device driver memory power clock <<<"$gpu"
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -cd 0-9)        # compiled for this GPU only
NVCC=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
toolkit=$("$NVCC" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
commit=${COMMIT:-$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)}
day=$(date +%Y-%m-%d)
slug=$(tr -cs 'A-Za-z0-9\n' '-' <<<"${device#NVIDIA }" | tr '[:upper:]' '[:lower:]')
page=$OUT/${slug%-}-$day.md
logs=${page%.md}-logs
work=$BUILD/gpu-check/${slug%-}-$day-$commit
mkdir -p "$work" "$OUT" "$logs" || die "$work: cannot be made"

# ---- steps: a command with a time limit, a log, and a line in the part's table
failed=0
run_step() {         # name, command...; sets log, status and seconds
    local name=$1 started
    shift
    log=$work/$name.log
    started=$(date +%s%N)
    printf '%-44s ' "$name" >&2
    timeout -k 10 "${limit:-$LIMIT}" "$@" >"$log" 2>&1 </dev/null
    code=$?
    tail -c 200000 "$log" >"$logs/$name.log"
    seconds=$((($(date +%s%N) - started) / 100000000))
    seconds=$((seconds / 10)).$((seconds % 10))
    status="ok"
    ((code == 0)) || status="**FAILED**, exit code $code"
    ((code != 124 && code != 137)) || status="**FAILED**, time limit of ${limit:-$LIMIT} s"
    printf '%s  (%s s)\n' "${status//\*/}" "$seconds" >&2
    ((code == 0))
}
step() {             # name, what it found ("" or a function that prints it from $log), command...
    local name=$1 finding=$2 text=""
    shift 2
    run_step "$name" "$@" || failed=$((failed + 1))
    [[ -z $finding ]] || text=$("$finding")
    row "$name" "$status${text:+; $text}" "$seconds" "$*"
    [[ $status == ok ]] || excerpt "$name"
    [[ $status == ok ]]
}
row() {              # name, result, seconds, command; the page has it at once
    printf '| %s | %s | %s | `%s` |\n' "$1" "$2" "$3" "${4//|/\\|}" >>"$rows"
    write_page
}
excerpt() {
    printf '\n<details><summary>%s: the end of its log</summary>\n\n```\n%s\n```\n\n</details>\n' "$1" \
        "$(tail -n 15 "$log" | cut -c 1-300)" >>"$excerpts"
}
skip() { printf '%-44s %s\n' "$1" "skipped: $2" >&2; row "$1" "skipped: $2" "" ""; }
begin_part() { rows=$work/$1.rows excerpts=$work/$1.excerpts tables=$work/$1.tables; : >"$rows"; : >"$excerpts"; : >"$tables"; }
test_counts() {
    sed -n 's/^\[doctest\] test cases: *\([0-9]*\) *| *\([0-9]*\) passed *| *\([0-9]*\) failed.*/\2 test cases passed, \3 failed/p' "$log"
}
sanitizer_counts() { sed -n 's/^=* *\(ERROR SUMMARY: .*\|RACECHECK SUMMARY: .*\)/\1/p' "$log" | tail -n 1; }
build() {            # name, precision, targets...: with what is given to us; new compilers' new warnings stop nothing here
    local name=$1 precision=$2 limit=$BUILD_LIMIT
    shift 2
    step "$name" "" make --no-print-directory BACKEND="$BACKEND" PRECISION="$precision" WERROR= \
        ${arch:+CUDA_ARCH="$arch"} ${DEPS:+DEPS="$DEPS"} -j"$JOBS" "$@"
}
each() { local v; for v in $VARIANTS; do printf '%s%s ' "$1" "$v"; done; }

# ---- build: all of the first slot, with the programs that are wanted first first
part_build() {
    local bf16=$BACKEND-bf16
    build build-tests bf16 "$BUILD/test-$bf16"
    # shellcheck disable=SC2046    # one word a variant
    build build-programs bf16 $(each "$BUILD/test-$BACKEND-model-bf16-") "$BUILD/bench-kernels-$bf16" "$BUILD/bench-sdpa-$bf16" \
        $(each "$BUILD/train-" | sed "s/ /-$bf16 /g") "$BUILD/synthetic-data"
}

# ---- tests: every operation against long double. Each case in a process of its own: after an illegal address nothing else
# works in that one.
# The page has a line for each case that fails and one for all.
test_cases() {       # name, binary
    local name=$1 binary=$2 names count=0 good=0 started case_name
    started=$(date +%s)
    run_step "$name-list" "$binary" --no-colors -ltc
    # Names stand between two lines of ===.
    names=$(awk '/^===/ { inside = !inside; next } inside && NF' "$log")
    if [[ $status != ok || -z $names ]]; then
        failed=$((failed + 1))
        row "$name" "**FAILED**, its test cases cannot be listed; ${status#\*\*FAILED\*\*, }" "$seconds" "$binary -ltc"
        excerpt "$name"
        return 1
    fi
    while IFS= read -r case_name; do
        count=$((count + 1))
        if run_step "$name-$count" "$binary" --no-colors -f="$count" -l="$count" &&
            [[ $(test_counts) == "1 test cases passed, 0 failed" ]]; then
            good=$((good + 1))
        else
            failed=$((failed + 1))
            [[ $status != ok ]] || status="**FAILED**, $(test_counts)"
            row "$name, $case_name" "$status" "$seconds" "$binary -f=$count -l=$count"
            excerpt "$name-$count"
        fi
    done <<<"$names"
    row "$name" "$([[ $good == "$count" ]] && echo ok ||
        echo "**FAILED**"); $good of $count test cases passed, each in a process of its own" \
        "$(($(date +%s) - started))" "$binary"
}
part_tests() { test_cases "test-$BACKEND-bf16" "$BUILD/test-$BACKEND-bf16"; }

# ---- models: whole models against PyTorch's values
part_models() {
    local binary
    for binary in $(each "$BUILD/test-$BACKEND-model-bf16-"); do step "${binary##*/}" test_counts "$binary" --no-colors; done
}
part_fp32() {
    local binary
    # shellcheck disable=SC2046
    build build-fp32 fp32 "$BUILD/test-$BACKEND-fp32" $(each "$BUILD/test-$BACKEND-model-")
    test_cases "test-$BACKEND-fp32" "$BUILD/test-$BACKEND-fp32"
    for binary in $(each "$BUILD/test-$BACKEND-model-"); do step "${binary##*/}" test_counts "$binary" --no-colors; done
}

# ---- NVIDIA's sanitizers, over the tests of the kernels in which threads meet. Copies that wait for the device are left to
# the other tests.
sanitizer() { command -v compute-sanitizer || ls "${NVCC%/*}/compute-sanitizer" 2>/dev/null; }
sanitize() {         # tools...
    local program tool
    program=$(sanitizer)
    if [[ -z $program ]]; then
        skip "$1" "no compute-sanitizer on this machine (it is part of the CUDA toolkit: cuda-sanitizer)"
        return
    fi
    build "build-for-$1" bf16 "$BUILD/test-$BACKEND-bf16"
    for tool in "$@"; do
        step "$tool-bf16" sanitizer_counts "$program" --tool "$tool" --error-exitcode 86 --print-limit 20 \
            "$BUILD/test-$BACKEND-bf16" --no-colors \
            -tc='sdpa*,*layernorm*' -tce='*more rows*,*many rows*,*refuse*'
    done
}
part_memcheck() { sanitize memcheck; }
part_sanitizers() { sanitize racecheck synccheck; }
part_profile() {
    if ! command -v ncu >/dev/null; then
        skip ncu "no ncu on this machine (Nsight Compute)"
        return
    fi
    build build-for-ncu bf16 "$BUILD/bench-sdpa-$BACKEND-bf16"
    step ncu "" ncu --launch-count 12 --section SpeedOfLight --section WarpStateStats --section Occupancy \
        "$BUILD/bench-sdpa-$BACKEND-bf16" 1024 && {
        printf '\n### Nsight Compute\n\n```\n'
        grep -E '^ *(sdpa|Duration|Compute|Memory Throughput|Achieved|Warp Cycles)' "$log" | head -n 100
        printf '```\n'
    } >>"$tables"
    write_page
}

# ---- bench: each kernel beside limits measured in the same run, and PyTorch where it is
part_bench() {
    build bench-build bf16 "$BUILD/bench-kernels-$BACKEND-bf16" "$BUILD/bench-sdpa-$BACKEND-bf16"
    local small="" small_sdpa=""
    [[ $SIZE == gpt2 ]] || small=tiny small_sdpa="64 64"
    # shellcheck disable=SC2086    # no word, or several
    step bench-sdpa "" "$BUILD/bench-sdpa-$BACKEND-bf16" $small_sdpa &&
        { printf '\n### Attention at every head size\n\n'; cat "$log"; } >>"$tables"
    # shellcheck disable=SC2086
    step bench-kernels "" "$BUILD/bench-kernels-$BACKEND-bf16" $small && { printf '\n### Kernels\n\n'; cat "$log"; } >>"$tables"
    # shellcheck disable=SC2086
    step bench-kernels-tuned "" env MATMUL_TUNE=1 "$BUILD/bench-kernels-$BACKEND-bf16" $small &&
        { printf '\n### Matrix products with MATMUL_TUNE=1\n\n'; grep -E '^\| *(kernel|---|`?(linear|matmul))' "$log"; } >>"$tables"
    write_page
}
part_peer() {
    local small="" python="" p
    [[ $SIZE == gpt2 ]] || small=tiny
    for p in "${PYTHON:-}" python3 /usr/bin/python3; do
        [[ -z $p ]] || ! "$p" -c 'import torch' 2>/dev/null || { python=$p; break; }
    done
    if [[ -z $python ]]; then
        skip peer-torch "no python3 here can import torch: measured without the peer"
    else
        # shellcheck disable=SC2086
        step peer-torch "" "$python" test/bench/peer_torch_gpu.py $small &&
            { printf '\n### PyTorch at the same shapes\n\n'; grep -v Warning "$log"; } >>"$tables"
    fi
    write_page
}

# ---- train: 124M, every variant. tokens/s: the median of the steps after the first fifth.
column() {      # csv, name
    awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; next } c && $c != "" { print $c }' "$1"
}
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
number_in() {   # json, key
    sed -n "s/.*\"$2\": *\([0-9.e+]*\).*/\1/p" "$1" | head -n 1
}
train_variant() {    # variant
    local v=$1 program=$BUILD/train-$1-$BACKEND-bf16 runs=$BUILD/gpu-check/runs micro=$MICRO_BATCH size csv rate mfu ratio first last
    size="--layers 12 --width 768 --heads 12 --context 1024 --batch-tokens 65536 --val-tokens 65536 --warmup 10 --lr 6e-4"
    [[ $SIZE == gpt2 ]] || {
        size="--layers 2 --width 64 --heads 2 --context 64 --batch-tokens 256 --val-tokens 64 --warmup 1 --lr 3e-3"
        micro=2
    }
    while :; do
        # shellcheck disable=SC2086
        run_step "train-$v" "$program" --data "$data" $size --micro-batch "$micro" --steps "$STEPS" --val-every 0 --run "gpu-check-$v" \
            --runs-dir "$runs" --overwrite && break
        # Too large for this GPU: half the sequences at once, the same batch.
        ((micro > 1)) && grep -qE 'out of GPU memory|needs .* and the (machine|GPU) has' "$log" || break
        micro=$((micro / 2))
    done
    csv=$runs/gpu-check-$v/metrics.csv
    rm -rf "$runs/gpu-check-$v/checkpoints"          # 1.5 GB each
    first=$(column "$csv" loss 2>/dev/null | head -n 1) last=$(column "$csv" loss 2>/dev/null | tail -n 1)
    if [[ $status == ok ]] && ! awk -v a="$first" -v b="$last" 'BEGIN { exit !(a + 0 > b + 0 && b + 0 > 0) }'; then
        status="**FAILED**, the loss does not fall"
    fi
    row "train-$v" "$status" "$seconds" "$program --data $data $size --micro-batch $micro --steps $STEPS"
    if [[ $status != ok ]]; then
        failed=$((failed + 1))
        excerpt "train-$v"
        return
    fi
    rate=$(column "$csv" tokens_per_second | tail -n +$((STEPS / 5 + 2)) | median)
    mfu=$(column "$csv" mfu | tail -n +$((STEPS / 5 + 2)) | median)
    ratio=$(awk -v a="$(number_in "$runs/gpu-check-$v/config.json" flops_per_token_causal)" \
        -v b="$(number_in "$runs/gpu-check-$v/config.json" flops_per_token)" 'BEGIN { if (b > 0) print a / b }')
    awk -v v="$v" -v r="$rate" -v m="${mfu:-0}" -v q="${ratio:-0}" -v a="$first" -v b="$last" -v k="$micro" 'BEGIN {
        if (m > 0) { full = sprintf("%.1f%%", 100 * m); half = sprintf("%.1f%%", 100 * m * q) } else full = half = "-"
        printf "| `%s` | %.0f | %s | %s | %d | %.3f | %.3f |\n", v, r, full, half, k, a, b }' >>"$tables"
}
# A small model, whose step is mostly launches: kernel by kernel, and replayed as CUDA graphs. The time, and the same bits.
train_graphs() {
    local v=${VARIANTS%% *} runs=$BUILD/gpu-check/runs n=200 mode
    local size="--layers 4 --width 128 --heads 4 --context 128 --batch-tokens 4096 --micro-batch 16 --val-tokens 4096 --warmup 10"
    [[ $SIZE == gpt2 ]] || {
        size="--layers 1 --width 64 --heads 2 --context 16 --batch-tokens 64 --micro-batch 2 --val-tokens 64 --warmup 1"
        n=6
    }
    for mode in off on; do
        # shellcheck disable=SC2086
        step "graphs-$mode" "" "$BUILD/train-$v-$BACKEND-bf16" --data "$data" $size --steps $n --val-every 0 --cuda-graphs $mode \
            --run "graphs-$mode" --runs-dir "$runs" --overwrite || return
        printf '| `%s` | %s | %.0f |\n' "$v" "$mode" \
            "$(column "$runs/graphs-$mode/metrics.csv" tokens_per_second | tail -n +$((n / 5 + 2)) | median)" >>"$work/graphs.rows"
    done
    step graphs-bits "" cmp "$runs/graphs-off/checkpoints/$(printf 'step-%08d' $n)/model.safetensors" \
        "$runs/graphs-on/checkpoints/$(printf 'step-%08d' $n)/model.safetensors"
    rm -rf "$runs"/graphs-{off,on}/checkpoints
    {
        printf '\n### A small model (%s)\n\n| variant | --cuda-graphs | tokens/s |\n|---|---|---:|\n' "$size"
        cat "$work/graphs.rows"
    } >>"$tables"
}
part_train() {
    # shellcheck disable=SC2046
    build train-build bf16 $(each "$BUILD/train-" | sed "s/ /-$BACKEND-bf16 /g") "$BUILD/synthetic-data"
    data=$DATA
    if [[ -z $data ]]; then
        data=$BUILD/gpu-check/data-$SIZE
        local numbers="50257 4000000"
        [[ $SIZE == gpt2 ]] || numbers="300 20000"
        # shellcheck disable=SC2086
        step synthetic-data "" "$BUILD/synthetic-data" "$data" $numbers || return
    fi
    printf '\n### Training, %s\n\n| variant | tokens/s | MFU (6N + 12 L C T) | MFU (6N + 6 L C T) | micro-batch |'\
' first loss | last loss |\n'\
'|---|---:|---:|---:|---:|---:|---:|\n' \
        "$([[ $SIZE == gpt2 ]] && echo "L12 C768 NH12 T1024, $STEPS steps of 65536 tokens" || echo "tiny sizes, $STEPS steps")" >>"$tables"
    local v
    for v in $VARIANTS; do
        train_variant "$v"
        write_page
    done
    rm -f "$work/graphs.rows"
    train_graphs
    write_page
}

# ---- the page: what this and earlier invocations of the same device, day and commit left in $work
measured() {         # the first column of a row of the README's targets -> what was measured, or nothing
    local bench=$work/bench.tables train=$work/train.tables
    # file, words, words, column: of the first line that has both
    cell() { [[ ! -r $1 ]] || awk -F '|' -v a="$2" -v b="$3" -v c="$4" '
        index($0, a) && index($0, b) { v = $c; sub(/ of copy/, "", v); gsub(/ /, "", v); print v; exit }' "$1"; }
    case $1 in
        "124M, tokens/s") cell "$train" '`qkv`' '' 3 ;;
        "124M, MFU (12 LCT)") cell "$train" '`qkv`' '' 4 ;;
        "124M, MFU (6 LCT)") cell "$train" '`qkv`' '' 5 ;;
        "attention forward, head size 64") cell "$bench" '`sdpa_forward`' 'd_qk 64 d_v 64, ' 6 ;;
        "attention backward, head size 64") cell "$bench" '`sdpa_backward`' 'd_qk 64 d_v 64, ' 6 ;;
        "attention forward, head size 128") cell "$bench" '`sdpa_forward`' 'd_qk 128 d_v 128, ' 6 ;;
        "attention backward, head size 128") cell "$bench" '`sdpa_backward`' 'd_qk 128 d_v 128, ' 6 ;;
        "layernorm forward") cell "$bench" '`layernorm_forward`' 124M 7 ;;
        "residual + layernorm forward") cell "$bench" '`residual_layernorm_forward`' 124M 7 ;;
        "layernorm backward") cell "$bench" '`layernorm_backward`' 124M 7 ;;
        "cross-entropy, forward and backward") cell "$bench" '`crossentropy_forward_backward`' 124M 7 ;;
        "AdamW") cell "$bench" '`adamw_update`' 124M 7 ;;
    esac
}
write_page() {
    {
        printf '# %s, %s\n\n' "$device" "$day"
        [[ $BACKEND == cuda ]] || printf '**Emulated kernels on a CPU: this page tests the script and measures nothing.**\n\n'
        printf '| | |\n|---|---|\n| device | %s,%s, power limit%s, SM clock at most%s |\n'\
'| driver | %s |\n| CUDA toolkit | %s |\n| commit | %s |\n| sizes | %s |\n| backend | %s |\n' \
            "$device" "$memory" "${power:- ?}" "${clock:- ?}" "${driver# }" "${toolkit:-none found}" "$commit" "$SIZE" "$BACKEND"
        printf '\nMade by `make gpu-check`, logs in `%s/`; timings of steps include building.\n\n'\
'## Targets beside what was measured\n\n' "${logs##*/}"
        printf '| what | unit | floor | target | extreme | measured here |\n|---|---|---:|---:|---:|---:|\n'
        sed -n '/<!-- targets -->/,/<!-- end of targets -->/p' docs/gpu/README.md | grep '^| ' | tail -n +2 |
            while IFS='|' read -r _ what unit floor target extreme _; do
            what=${what# } what=${what% }
            value=$(measured "$what")
            printf '| %s |%s|%s|%s|%s| %s |\n' "$what" "$unit" "$floor" "$target" "$extreme" "${value:--}"
        done
        local p
        for p in $ALL_PARTS; do
            [[ -r $work/$p.rows ]] || continue
            printf '\n## %s\n\n| step | result | seconds | command |\n|---|---|---:|---|\n' "${p^}"
            cat "$work/$p.rows" "$work/$p.excerpts" "$work/$p.tables"
        done
    } >"$page.new"
    mv "$page.new" "$page"               # whole, whenever the machine is taken away
}

for part in $PARTS; do
    begin_part "$part"
    "part_$part"
    write_page
done
printf '%s\n' "$page"
((failed == 0)) || die "$failed steps failed; $page says which, $work holds their logs"
