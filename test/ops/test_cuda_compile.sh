#!/usr/bin/env bash
# Compiles the CUDA kernels with nvcc, warnings as errors, and reads ptxas's report. Needs no GPU; without nvcc it is skipped.
#   test/ops/test_cuda_compile.sh [build folder]        NVCC=path
# Every file in both precisions, for sm_80, sm_90 and sm_120. So that it takes minutes only, attention in
# bf16, where registers decide, is compiled for each GPU from the source, and every kernel there checked for
# spills; the others are compiled once, for the instructions of sm_80, and assembled for all three.
# `make cuda-check` compiles everything for each GPU from the source.
# apart: minutes of compilation; .ci/run calls `scripts/run_tests.sh cuda_compile`, and so may you
# Checks: one for each compilation, one for each attention kernel on each GPU.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
OUT=${1:-build}/cuda-compile
NVCC=${NVCC:-$(command -v /usr/local/cuda/bin/nvcc || command -v nvcc)}
[[ -n $NVCC ]] || { echo "test_cuda_compile: skipped: no nvcc"; exit 0; }
mkdir -p "$OUT" && rm -f "$OUT"/*.log "$OUT"/*.code

# The longest first: then two at a time end together.
jobs=()
for arch in 80 90 120; do jobs+=("attention/sdpa.cu bf16 $arch"); done
jobs+=("attention/sdpa.cu fp32 80-90-120")
for file in layers/*.cu runtime/device/backend_cuda.cu; do jobs+=("$file bf16 80-90-120" "$file fp32 80-90-120"); done

# The Makefile's flags, for one GPU or several; with -Xptxas -v the report of each kernel's registers and spills.
compile() {
    local file=$1 precision=$2 arch=$3 ptxas=-v log
    local target="arch=compute_${arch%%-*},code=[sm_${arch//-/,sm_}]"
    [[ $file == attention/* ]] && ptxas=-v,-warn-spills
    log="$OUT/$(basename "$file" .cu)-$precision-sm_$arch"
    "$NVCC" -std=c++20 -O3 -ftz=true -Xptxas "$ptxas" -Werror all-warnings -gencode "$target" -I. "-DPRECISION_$precision" \
        -Xcompiler -Wall,-Wextra -c "$file" -o "$log.o" >"$log.log" 2>&1
    echo $? >"$log.code"
    rm -f "$log.o"
}
export -f compile
export NVCC OUT
printf '%s\n' "${jobs[@]}" | xargs -P "${JOBS:-$(nproc)}" -L 1 bash -c 'compile "$@"' _

checks=0 failed=0
fails() { failed=$((failed + 1)); printf 'failed: %s\n' "$1"; }
for job in "${jobs[@]}"; do
    read -r file precision arch <<<"$job"
    log="$OUT/$(basename "$file" .cu)-$precision-sm_$arch"
    checks=$((checks + 1))
    [[ $(cat "$log.code" 2>/dev/null) == 0 ]] || { fails "$job does not compile without warnings"; cat "$log.log"; }
done
# "Compiling entry function 'NAME' for 'sm_90'", then "0 bytes stack frame, 0 bytes spill stores, 0 bytes
# spill loads", "Used 254 registers".
kernels=0
for log in "$OUT"/sdpa-*.log; do
    while read -r kernel stores loads registers; do
        checks=$((checks + 1)) kernels=$((kernels + 1))
        [[ $stores == 0 && $loads == 0 && $registers -le 255 ]] ||
            fails "${log##*/}: $kernel spills: $stores bytes stored, $loads loaded, $registers registers"
    done < <(awk '/Compiling entry function/ { name = $7 } /bytes spill stores/ { stores = $5; loads = $9 }
                  / Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used") print name, stores, loads, $(i + 1) }' "$log")
done
# Head sizes (32,32) (64,64) (96,96) (128,128), each with K = V too, and MLA's three: 11 of each of forward and the two backward kernels.
checks=$((checks + 1))
((kernels >= 3 * 33)) || fails "only $kernels attention kernels in ptxas's reports"
printf 'test_cuda_compile: %d checks, %d failed\n' "$checks" "$failed"
((failed == 0))
