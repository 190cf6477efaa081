#!/usr/bin/env bash
# Executes what nvcc makes of the kernels, on the CPU: `make ptx-check`. Needs nvcc, no GPU; says so in one
# line without it.
#   test/ptx/ptx_check.sh [build folder]       NVCC=path PTX_ARCH=90
# Every kernel file is compiled to PTX; the operation tests that prove the kernels in emulation
# (test/ops/test_ops_*.cpp, test_sdpa*.cpp) run on the PTX, in fp32 and bf16, the warps in order and then in
# reverse, the second time (but for the norms) with approximate instructions off by up to 2 ulp. Then it lists
# which kernels ran,
# and fails where one never did. Last, that this can fail: mistakes are planted in a copy of layers/ptx.cuh,
# compiled for head size 64, and each must be found; the copy without a mistake must pass. The last line
# counts test cases, kernels and plants.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
BUILD=${1:-build}
NVCC=${NVCC:-$(command -v /usr/local/cuda/bin/nvcc || command -v nvcc)}
[[ -n $NVCC ]] || { echo "ptx-check: skipped: no nvcc"; exit 0; }
OUT=$BUILD/ptx ARCH=${PTX_ARCH:-90}
JOBS=${JOBS:-$(nproc)}
mkdir -p "$OUT" || exit 1
passed=0 failed=0
count() { # good bad
    passed=$((passed + $1)) failed=$((failed + $2))
}
finish() {
    printf '%d passed, %d failed\n' "$passed" "$failed"
    exit $((failed > 0 || passed == 0))
}

for precision in bf16 fp32; do
    make --no-print-directory -j"$JOBS" BACKEND=emu PRECISION=$precision COMM=none NVCC="$NVCC" PTX_ARCH=$ARCH \
        ptx-files "build/test-ptx-$precision" || { echo "the kernels or the tests do not compile"; count 0 1; finish; }
done

# ---- the operation tests
# Runs the tests on the PTX in PTX_DIRS. Prints "passed failed" of doctest's test cases; a crash is 0 1.
run_tests() { # precision log [doctest's options]
    local precision=$1 log=$2
    shift 2
    "$BUILD/test-ptx-$precision" --no-colors "$@" >"$log" 2>&1
    local code=$?
    local line
    line=$(sed -n 's/^\[doctest\] test cases: *[0-9]* *| *\([0-9]*\) passed *| *\([0-9]*\) failed.*/\1 \2/p' "$log")
    [[ $code == 0 || ${line#* } -gt 0 ]] || line="0 1"
    echo "${line:-0 1}"
}
operation_tests() { # precision order ulp [doctest's options]
    local precision=$1 order=$2 ulp=$3 log=$OUT/$1-$2-$3.log began=$SECONDS good bad
    shift 3
    read -r good bad < <(PTX_DIRS=$OUT/sm_$ARCH-$precision PTX_ULP=$ulp EMU_ORDER=$order \
        PTX_REPORT=${log%.log}.report run_tests "$precision" "$log" "$@")
    printf 'operation tests on the PTX, %s, warps %s, up to %d ulp off: %d passed, %d failed, %d s\n' \
        "$precision" "$order" "$ulp" "$good" "$bad" $((SECONDS - began))
    ((bad == 0)) || tail -n 60 "$log"
    count "$good" "$bad"
}
norms="layernorm*,rmsnorm*" # their tests allow rstd 1 ulp: less than rsqrtf's documented 2
for precision in bf16 fp32; do
    operation_tests $precision forward 0
    operation_tests $precision reverse 2 -tce="$norms"
    operation_tests $precision reverse 0 -tc="$norms"
done

# ---- which kernels ran
for precision in bf16 fp32; do
    report=$OUT/$precision-forward-0.report
    [[ -s $report ]] || { echo "no report of the kernels in $precision"; count 0 1; continue; }
    echo "kernels in $precision, launches and instructions of warps:"
    c++filt <"$report" | sed 's/(anonymous namespace):://g; s/(.*//; s/ void / /' | sort -k 3 |
        awk '{ printf "  %6d %10d  %s%s\n", $1, $2, substr($0, index($0, $3)), $1 ? "" : "   NEVER RUN" }'
    good=$(grep -vc '^0 ' "$report") bad=$(grep -c '^0 ' "$report")
    count "$good" "$bad"
done

# ---- planted mistakes
# name|what stands in ptx.cuh|what is planted (basic regular expressions of sed)
plants='
none||
B operands of mma swapped|{%8, %9}|{%9, %8}
A operands of mma swapped|{%4, %5, %6, %7}|{%4, %6, %5, %7}
two results of ldmatrix swapped|x4.shared.b16 {%0, %1, %2, %3}|x4.shared.b16 {%0, %2, %1, %3}
two results of ldmatrix.trans swapped|trans.shared.b16 {%0, %1, %2, %3}|trans.shared.b16 {%2, %1, %0, %3}
cp.async waits for one group too few|"n"(N) : "memory"|"n"(N + 1) : "memory"
cp.async reads where it must not|valid ? 16 : 0|16
'
compile_plant() { # number pattern replacement
    local folder=$OUT/plant-$1
    mkdir -p "$folder/layers" && rm -f "$folder"/*.ptx && sed "${2:+s/$2/$3/}" layers/ptx.cuh >"$folder/layers/ptx.cuh" || return
    if [[ -n $2 ]] && cmp -s layers/ptx.cuh "$folder/layers/ptx.cuh"; then
        echo "ptx.cuh has no '$2' to plant a mistake in"
        return
    fi
    "$NVCC" -ptx -std=c++20 -O3 -ftz=true -arch=sm_$ARCH "-I$folder" -I. -DPRECISION_bf16 test/ops/sass_kernels.cu \
        -o "$folder/attention.ptx" || rm -f "$folder/attention.ptx"
}
export -f compile_plant
export OUT ARCH NVCC
number=0
while IFS='|' read -r name from to; do
    [[ -z $name ]] || printf '%d\0%s\0%s\0' $((number++)) "$from" "$to"
done <<<"$plants" | xargs -0 -P "$JOBS" -n 3 bash -c 'compile_plant "$@"' _
number=0
while IFS='|' read -r name _ _; do
    [[ -n $name ]] || continue
    folder=$OUT/plant-$((number++))
    [[ -s $folder/attention.ptx ]] || { echo "planted: $name: does not compile"; count 0 1; continue; }
    # (Awkward lengths: head size 64, with K and V apart and as one.)
    read -r good bad < <(PTX_DIRS=$folder:$OUT/sm_$ARCH-bf16 run_tests bf16 "$folder/log" \
        -tc="sdpa at every awkward length")
    if [[ $name == none ]]; then verdict=$((good == 1 && bad == 0)) what="no mistake planted: $good passed"
    else verdict=$((good == 0 && bad == 1)) what="planted: $name: $( ((bad)) && echo found || echo "NOT FOUND")"; fi
    why=$(grep -o -m 1 'ptx: .*\|.*max error.*' "$folder/log" | sed 's/^ *logged: *//; s/^ *//' | cut -c 1-200)
    printf '%s%s\n' "$what" "${why:+ ($why)}"
    ((verdict)) && count 1 0 || count 0 1
done <<<"$plants"
finish
