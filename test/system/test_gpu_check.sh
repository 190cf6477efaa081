#!/usr/bin/env bash
# Tests of scripts/gpu_check.sh with stand-ins for the GPU's tools, make and the programs: every path of it, also what happens when steps
# fail, hang or run out of memory. A few seconds, no GPU.    test/system/test_gpu_check.sh [build]
# apart: half a minute, for machines with a GPU; .ci/run calls it
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
. test/system/shell_common.sh
export BUILD=$T/build OUT=$T/out BACKEND=emu SIZE=tiny VARIANTS="qkv qv" JOBS=1 STEPS=3 NVCC=$T/bin/nvcc \
    PYTHON=$T/bin/python3 COMMIT=0123456789ab DEPS="" NO_INSTALL=1
unset PARTS SLOT LIMIT BUILD_LIMIT DATA MAKEFLAGS MAKELEVEL CUDA_ARCH
mkdir -p "$T/bin" "$BUILD"
stand_in() { printf '#!/usr/bin/env bash\n%s\n' "$2" >"$1"; chmod +x "$1"; }       # file, script
check() { PATH=$T/bin:$PATH scripts/gpu_check.sh; }
page=$T/out/test-9000-80gb-$(date +%Y-%m-%d).md
in_page() { grep -qF -- "$2" "$page"; report $? "$1" "  not in the page: $2"$'\n'"$(cat "$page")"; }
not_in_page() { ! grep -qF -- "$2" "$page"; report $? "$1" "  in the page: $2"; }

# ---- without a GPU, and wrong words
stand_in "$T/bin/nvidia-smi" 'echo "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."; exit 9'
one_line "no GPU: one line" 1 "no NVIDIA GPU here" check
report "$([[ ! -e $OUT ]]; echo $?)" "no GPU: no page"
PARTS="tests play" one_line "an unknown part" 2 "play is none of build, tests" check
SLOT=3 one_line "a third slot" 2 "SLOT=3: 1 or 2" check
SIZE=gpt2 one_line "emulation of 124M" 2 "emu with tiny" check

# ---- stand-ins for all that it calls
stand_in "$T/bin/nvidia-smi" '[[ $1 != *compute_cap* ]] || { echo 9.7; exit; }
echo "NVIDIA Test 9000 80GB, 999.10, 81559 MiB, 700.00 W, 1980 MHz"; echo "NVIDIA Second, 1, 2, 3, 4"'
stand_in "$T/bin/nvcc" 'echo "Cuda compilation tools, release 13.0, V13.0.1"'
stand_in "$T/bin/make" 'echo "$*" >>'"$T/make.log"
stand_in "$T/bin/apt-get" 'echo "apt-get $*" >>'"$T/apt.log"'; exit 100'
stand_in "$T/bin/ncu" 'echo "  sdpa_forward_kernel (72, 12, 64)x(128, 1, 1)"; echo "    Duration us 412.5"; echo "noise"'
stand_in "$T/bin/compute-sanitizer" 'echo "$*" >>'"$T/sanitizer.log"'
[[ $2 == racecheck ]] && echo "========= RACECHECK SUMMARY: 0 hazards displayed" || echo "========= ERROR SUMMARY: 0 errors"'
stand_in "$T/bin/python3" '[[ $1 == -c ]] || echo "| attention forward | shape | 1.0 | 99.9 TFLOP/s |"'
# The operation tests: three cases; each in a process of its own, counted in cases.log.
counts_line='[doctest] test cases: 1 | 1 passed | 0 failed | 2 skipped'
tests='[[ " $* " != *" -ltc "* ]] || {
    printf "%s\n" "[doctest] listing all test case names" "=====" "layernorm, alone" "sdpa: a | b" "rope" "====="
    echo "[doctest] unskipped test cases: 3"
    exit
}
for a; do case $a in -f=*) f=${a#-f=} ;; -l=*) l=${a#-l=} ;; esac; done
[[ -n ${f:-} && $f == "${l:-}" ]] || { echo "all at once: $*"; exit 9; }
echo "$f" >>'"$T/cases.log"'
'
for binary in test-emu-{fp32,bf16}; do stand_in "$BUILD/$binary" "$tests echo '$counts_line'"; done
for binary in test-emu-model-{qkv,qv} test-emu-model-bf16-{qkv,qv}; do
    stand_in "$BUILD/$binary" 'echo "[doctest] test cases: 45 | 44 passed | 0 failed | 1 skipped"'
done
stand_in "$BUILD/bench-kernels-emu-bf16" '[[ $1 == tiny ]] || exit 1
echo "| \`layernorm_forward\` | 124M: 65536 x 768 | 50.0 | 4000 |  | 93% of copy |"
echo "| \`residual_layernorm_forward\` | 124M: 65536 x 768 | 50.0 | 4000 |  | 92% of copy |"
echo "| \`adamw_update\` | 124M: 124475904 parameters | 900.0 | 4100 |  | 95% of copy |"'
stand_in "$BUILD/bench-sdpa-emu-bf16" 'echo "| \`sdpa_forward\` | d_qk 64 d_v 64 K==V, B 64 | 1.0 |  | 280.1 | 1% of mma.sync |"
echo "| \`sdpa_forward\` | d_qk 64 d_v 64, B 64 | 1.0 |  | 271.8 | 1% of mma.sync |"
echo "| \`sdpa_backward\` | d_qk 128 d_v 128, B 64 | 1.0 |  | 251.5 | 1% of mma.sync |"'
stand_in "$BUILD/synthetic-data" 'mkdir -p "$1" && echo "$*" >"$1/arguments"'
trainer='while (($#)); do case $1 in --run) run=$2 ;; --runs-dir) runs=$2 ;; --micro-batch) micro=$2 ;; --data) data=$2 ;;
    --steps) steps=$2 ;; --cuda-graphs) graphs=$2 ;; esac; shift; done
mkdir -p "$runs/$run/checkpoints/$(printf step-%08d "$steps")" && cd "$runs/$run" || exit 1
echo "weights${BAKED:+ $graphs}" >"$(echo checkpoints/step-*)/model.safetensors"
echo "{\"model\": {\"flops_per_token\": 1000.0, \"flops_per_token_causal\": 900.0}}" >config.json
{
    echo "step,tokens,seconds,loss,val_loss,bits_per_byte,lr,grad_norm,tokens_per_second,mfu"
    printf "1,2,3,5.7,,,1,1,1000,0.01\n2,4,6,5.5,,,1,1,500000,0.40\n3,6,9,%s,4,4,1,1,500020,0.42\n" "${LAST:-5.25}"
} >metrics.csv'
for v in qkv qv; do stand_in "$BUILD/train-$v-emu-bf16" "$trainer"; done

# ---- everything goes well: the first slot
expect "the first slot" 0 "$page" check
in_page "the device" "# NVIDIA Test 9000 80GB, "
in_page "driver and toolkit" "| driver | 999.10 |"
in_page "toolkit" "| CUDA toolkit | 13.0 |"
in_page "commit" "| commit | 0123456789ab |"
in_page "emulation is said" "measures nothing"
in_page "the cases' sum" "| test-emu-bf16 | ok; 3 of 3 test cases passed, each in a process of its own |"
report "$([[ $(xargs <"$T/cases.log") == "1 2 3" ]]; echo $?)" "one process a case" "  $(xargs <"$T/cases.log")"
for binary in test-emu-model-bf16-{qkv,qv}; do in_page "result of $binary" "| $binary | ok; 44 test cases passed, 0 failed |"; done
in_page "memcheck" "| memcheck-bf16 | ok; ERROR SUMMARY: 0 errors |"
expect "memcheck watches attention and layernorm" 0 "-tc=sdpa*,*layernorm*" grep -e "--tool memcheck" "$T/sanitizer.log"
report "$(! grep -qE 'racecheck|fp32' "$T/sanitizer.log" "$T/make.log"; echo $?)" "nothing of the second slot in the first"
in_page "products, tuned" "### Matrix products with MATMUL_TUNE=1"
report "$([[ -s ${page%.md}-logs/memcheck-bf16.log && -s ${page%.md}-logs/test-emu-bf16-3.log ]]; echo $?)" "the logs lie beside the page"
order=$(grep -oE '^\| (build-tests|test-emu-bf16|test-emu-model-bf16-qkv|bench-sdpa|train-qkv|memcheck-bf16) ' "$page" | tr -d '|' | xargs)
expected="build-tests test-emu-bf16 test-emu-model-bf16-qkv bench-sdpa train-qkv memcheck-bf16"
report "$([[ $order == "$expected" ]]; echo $?)" "the order of a first slot" "  $order"
expect "compiled for the GPU at hand, warnings let through" 0 "WERROR= CUDA_ARCH=97" cat "$T/make.log"

# ---- the second
SLOT=2 expect "the second slot" 0 "" check
in_page "fp32" "| test-emu-fp32 | ok; 3 of 3 test cases passed"
in_page "whole models in fp32" "| test-emu-model-qv | ok; 44 test cases passed, 0 failed |"
for tool in racecheck synccheck; do in_page "result of $tool" "| $tool-bf16 | ok; "; done
in_page "the sanitizer's summary" "racecheck-bf16 | ok; RACECHECK SUMMARY: 0 hazards displayed"
in_page "Nsight Compute" "Duration us 412.5"
not_in_page "only what was asked of it" "noise"
in_page "what the first slot found is still there" "| memcheck-bf16 | ok"
in_page "benchmarks" "| 93% of copy |"
in_page "the peer" "| 99.9 TFLOP/s |"
in_page "training: median of the last steps, both MFUs" '| `qv` | 500010 | 41.0% | 36.9% | 2 | 5.700 | 5.250 |'
in_page "graphs: the time of both" '| `qkv` | on | 500020 |'
in_page "graphs: the same bits" "| graphs-bits | ok |"
in_page "target beside measurement: tokens/s" "| 124M, tokens/s | tokens/s | 468000 | 580000 | 620000 | 500010 |"
in_page "target: attention, and not K==V's" "| attention forward, head size 64 | TFLOP/s | 229 | 270 | 310 | 271.8 |"
in_page "target: head size 128" "| attention backward, head size 128 | TFLOP/s | 208 | 250 | 300 | 251.5 |"
in_page "target: share of copy" "| layernorm forward | share of copy | - | 80% | - | 93% |"
in_page "target without measurement" "| 1.5B, tokens/s | tokens/s | 48500 | 56000 | 59000 | - |"
not_in_page "nothing failed" "FAILED"
report "$([[ ! -e $BUILD/gpu-check/runs/gpu-check-qv/checkpoints ]]; echo $?)" "checkpoints are removed"
expect "make was told the backend and the targets" 0 \
    "$BUILD/train-qkv-emu-bf16 $BUILD/train-qv-emu-bf16 $BUILD/synthetic-data" grep "BACKEND=emu PRECISION=bf16 .*train" "$T/make.log"
unset NO_INSTALL
DEPS=$T/deps PARTS=train expect "make is told DEPS" 0 "" check
export NO_INSTALL=1
report "$([[ ! -e $T/apt.log ]]; echo $?)" "with DEPS no package manager is called"
expect "(it was)" 0 "DEPS=$T/deps" grep DEPS "$T/make.log"
mkdir "$T/mydata"
DATA=$T/mydata PARTS=train expect "own data" 0 "" check
in_page "(it was used)" "--data $T/mydata"

# ---- pieces come together in one page; another commit starts anew
rm -rf "$OUT" "$BUILD/gpu-check"
PARTS=tests expect "a piece" 0 "" check
not_in_page "only that piece" "## Train"
PARTS=train expect "another piece" 0 "" check
in_page "the first piece is still there" "## Tests"
in_page "and the second" "## Train"
COMMIT=ffff PARTS=bench expect "another commit" 0 "" check
not_in_page "does not carry the old one's results" "## Tests"

# ---- a kill in the middle leaves the page as it was after the last step
rm -rf "$OUT" "$BUILD/gpu-check"
stand_in "$BUILD/test-emu-model-bf16-qv" 'kill -KILL $(ps -o ppid= -p $PPID); sleep 5'
PARTS="tests models train" check >/dev/null 2>&1
in_page "killed: what was found before" "| test-emu-model-bf16-qkv | ok; 44 test cases passed, 0 failed |"
not_in_page "and nothing after it" "| train-qkv |"
stand_in "$BUILD/test-emu-model-bf16-qv" 'echo "[doctest] test cases: 45 | 44 passed | 0 failed | 1 skipped"'

# ---- failures are said, and the rest goes on
stand_in "$BUILD/test-emu-bf16" "$tests"'[[ $f != 2 ]] || { echo "sdpa.cu:7: an illegal memory access"; kill -SEGV $$; }
echo "'"$counts_line"'"'
expect "a crashing test case" 1 "1 steps failed" check
in_page "by its name" "| test-emu-bf16, sdpa: a | b | **FAILED**, exit code 139 |"
in_page "the end of its log" "an illegal memory access"
in_page "the cases after it ran" "| test-emu-bf16 | **FAILED**; 2 of 3 test cases passed"
in_page "training ran" '| `qkv` | 500010 |'
stand_in "$BUILD/test-emu-bf16" "$tests"'[[ $f != 3 ]] || sleep 60; echo "'"$counts_line"'"'
LIMIT=8 PARTS=tests expect "a hanging test case" 1 "1 steps failed" check
in_page "the limit is said" "| test-emu-bf16, rope | **FAILED**, time limit of 8 s |"
stand_in "$BUILD/test-emu-bf16" "$tests"'echo "[doctest] test cases: 0 | 0 passed | 0 failed | 3 skipped"'
PARTS=tests expect "cases that do not run" 1 "3 steps failed" check
in_page "are failures" "0 test cases passed, 0 failed"
stand_in "$BUILD/test-emu-bf16" 'echo "no such device"; exit 3'
PARTS=tests expect "a program that does not start" 1 "1 steps failed" check
in_page "is said" "its test cases cannot be listed; exit code 3"
stand_in "$BUILD/test-emu-model-bf16-qkv" 'echo "[doctest] test cases: 9 | 7 passed | 2 failed | 0 skipped"
echo "h.0.attn.q.weight[3]: 1, PyTorch has 2"; exit 1'
PARTS=models expect "a failing model" 1 "1 steps failed" check
in_page "its exit code and counts" "| test-emu-model-bf16-qkv | **FAILED**, exit code 1; 7 test cases passed, 2 failed |"
in_page "the end of its log" "h.0.attn.q.weight[3]: 1, PyTorch has 2"
in_page "the tests after it ran" "| test-emu-model-bf16-qv | ok"
stand_in "$T/bin/make" '[[ $* != *train* ]] || { echo "train.cu:1: error: expected"; exit 2; }'
PARTS=train expect "a build that fails" 1 "1 steps failed" check
in_page "its message" "train.cu:1: error: expected"
stand_in "$T/bin/make" ':'
stand_in "$T/bin/compute-sanitizer" 'echo "========= ERROR SUMMARY: 2 errors"; exit 86'
PARTS="memcheck sanitizers" expect "a sanitizer that finds something" 1 "3 steps failed" check
in_page "what it found" "| memcheck-bf16 | **FAILED**, exit code 86; ERROR SUMMARY: 2 errors |"
rm "$T/bin/compute-sanitizer"
if ! command -v compute-sanitizer >/dev/null; then
    PARTS=sanitizers expect "no sanitizer is no failure" 0 "skipped: no compute-sanitizer" check
    in_page "but said" "skipped: no compute-sanitizer"
fi
stand_in "$T/bin/python3" 'exit 1'
ln -s "$T/bin/python3" "$T/bin/python" && PARTS=peer expect "the benchmarks without PyTorch under that name" 0 "" check
LAST=5.9 PARTS=train expect "a loss that rises" 1 "2 steps failed" check
in_page "is said" "**FAILED**, the loss does not fall"
LAST=nan PARTS=train expect "a loss that is no number" 1 "2 steps failed" check
BAKED=1 PARTS=train expect "other weights with graphs" 1 "1 steps failed" check
in_page "are a failure" "| graphs-bits | **FAILED**"
stand_in "$BUILD/synthetic-data" 'echo "error: no space"; exit 1'
PARTS=train expect "no data" 1 "1 steps failed" check
not_in_page "no training without it" "| train-qv |"
stand_in "$BUILD/synthetic-data" 'mkdir -p "$1"'

# ---- a GPU with too little memory: half the sequences at once
stand_in "$BUILD/train-qv-emu-bf16" '[[ $* == *"--micro-batch 1 "* ]] || { echo "error: out of GPU memory: 3.00 GiB asked for"; exit 1; }
'"$trainer"
PARTS=train expect "out of memory" 0 "" check
in_page "a smaller micro-batch" '| `qv` | 500010 | 41.0% | 36.9% | 1 |'
stand_in "$BUILD/train-qv-emu-bf16" 'echo "error: out of GPU memory: 3.00 GiB asked for"; exit 1'
PARTS=train expect "out of memory at any size" 1 "1 steps failed" check
in_page "is a failure" "| train-qv | **FAILED**, exit code 1 |"

# ---- a toolkit made of Python packages: lib/ without libNAME.so (the real make, which only prints)
mkdir -p "$T/toolkit/bin" "$T/toolkit/lib"
stand_in "$T/toolkit/bin/nvcc" ':'
touch "$T/toolkit/lib/libcudart.so.13" "$T/toolkit/lib/libcublasLt.so.13"
expect "libraries with a number" 0 "$T/toolkit/lib/libcudart.so.13 $T/toolkit/lib/libcublasLt.so.13" \
    env -u BACKEND make -n V=1 BACKEND=cuda NVCC="$T/toolkit/bin/nvcc" COMM=none CUDA_ARCH=90 build/test-cuda-bf16

printf 'test_gpu_check: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
