#!/usr/bin/env bash
# Tests of scripts/gpu_check.sh with stand-ins for the GPU's tools, make and the programs: every path of it, also what happens when steps
# fail, hang or run out of memory. A few seconds, no GPU.    test/system/test_gpu_check.sh [build]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
. test/system/shell_common.sh
export BUILD=$T/build OUT=$T/out BACKEND=emu SIZE=tiny VARIANTS="qkv qv" JOBS=1 STEPS=3 NVCC=$T/bin/nvcc \
    PYTHON=$T/bin/python3 COMMIT=0123456789ab DEPS="" NO_INSTALL=1
unset PARTS LIMIT DATA MAKEFLAGS MAKELEVEL
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
PARTS="tests play" one_line "an unknown part" 2 "play is none of tests" check
SIZE=gpt2 one_line "emulation of 124M" 2 "emu with tiny" check

# ---- stand-ins for all that it calls
stand_in "$T/bin/nvidia-smi" 'echo "NVIDIA Test 9000 80GB, 999.10, 81559 MiB, 700.00 W, 1980 MHz"; echo "NVIDIA Second, 1, 2, 3, 4"'
stand_in "$T/bin/nvcc" 'echo "Cuda compilation tools, release 13.0, V13.0.1"'
stand_in "$T/bin/make" 'echo "$*" >>'"$T/make.log"
stand_in "$T/bin/compute-sanitizer" 'echo "$*" >>'"$T/sanitizer.log"'
[[ $2 == racecheck ]] && echo "========= RACECHECK SUMMARY: 0 hazards displayed" || echo "========= ERROR SUMMARY: 0 errors"'
stand_in "$T/bin/python3" '[[ $1 == -c ]] || echo "| attention forward | shape | 1.0 | 99.9 TFLOP/s |"'
for binary in test-emu-{fp32,bf16} test-emu-model-{qkv,qv} test-emu-model-bf16-{qkv,qv}; do
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
trainer='while (($#)); do case $1 in --run) run=$2 ;; --runs-dir) runs=$2 ;; --micro-batch) micro=$2 ;; --data) data=$2 ;; esac; shift; done
mkdir -p "$runs/$run/checkpoints/step-3" && cd "$runs/$run" || exit 1
echo "{\"model\": {\"flops_per_token\": 1000.0, \"flops_per_token_causal\": 900.0}}" >config.json
{
    echo "step,tokens,seconds,loss,val_loss,bits_per_byte,lr,grad_norm,tokens_per_second,mfu"
    printf "1,2,3,5.7,,,1,1,1000,0.01\n2,4,6,5.5,,,1,1,500000,0.40\n3,6,9,%s,4,4,1,1,500020,0.42\n" "${LAST:-5.25}"
} >metrics.csv'
for v in qkv qv; do stand_in "$BUILD/train-$v-emu-bf16" "$trainer"; done

# ---- everything goes well
expect "everything" 0 "$page" check
in_page "the device" "# NVIDIA Test 9000 80GB, "
in_page "driver and toolkit" "| driver | 999.10 |"
in_page "toolkit" "| CUDA toolkit | 13.0 |"
in_page "commit" "| commit | 0123456789ab |"
in_page "emulation is said" "measures nothing"
for binary in test-emu-fp32 test-emu-model-qv test-emu-model-bf16-qkv; do
    in_page "result of $binary" "| $binary | ok; 44 test cases passed, 0 failed |"; done
for tool in memcheck racecheck initcheck synccheck; do
    in_page "result of $tool" "| $tool-bf16 | ok; "
    expect "$tool ran over both precisions" 0 "test-emu-fp32" grep -e "--tool $tool" "$T/sanitizer.log"
done
in_page "the sanitizer's summary" "racecheck-fp32 | ok; RACECHECK SUMMARY: 0 hazards displayed"
in_page "benchmarks" "| 93% of copy |"
in_page "the peer" "| 99.9 TFLOP/s |"
in_page "training: median of the last steps, both MFUs" '| `qv` | 500010 | 41.0% | 36.9% | 2 | 5.700 | 5.250 |'
in_page "target beside measurement: tokens/s" "| 124M, tokens/s | tokens/s | 468000 | 580000 | 620000 | 500010 |"
in_page "target: attention, and not K==V's" "| attention forward, head size 64 | TFLOP/s | 229 | 270 | 310 | 271.8 |"
in_page "target: head size 128" "| attention backward, head size 128 | TFLOP/s | 208 | 250 | 300 | 251.5 |"
in_page "target: share of copy" "| layernorm forward | share of copy | - | 80% | - | 93% |"
in_page "target without measurement" "| 1.5B, tokens/s | tokens/s | 48500 | 56000 | 59000 | - |"
not_in_page "nothing failed" "FAILED"
report "$([[ ! -e $BUILD/gpu-check/runs/gpu-check-qv/checkpoints ]]; echo $?)" "checkpoints are removed"
expect "make was told the backend and the targets" 0 \
    "BACKEND=emu PRECISION=bf16 -j1 $BUILD/train-qkv-emu-bf16 $BUILD/train-qv-emu-bf16 $BUILD/synthetic-data" grep train "$T/make.log"
DEPS=$T/deps PARTS=train expect "make is told DEPS" 0 "" check
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

# ---- failures are said, and the rest goes on
stand_in "$BUILD/test-emu-model-qkv" \
    'echo "[doctest] test cases: 9 | 7 passed | 2 failed | 0 skipped"; echo "h.0.attn.q.weight[3]: 1, PyTorch has 2"; exit 1'
expect "a failing test" 1 "1 steps failed" check
in_page "its exit code and counts" "| test-emu-model-qkv | **FAILED**, exit code 1; 7 test cases passed, 2 failed |"
in_page "the end of its log" "h.0.attn.q.weight[3]: 1, PyTorch has 2"
in_page "the tests after it ran" "| test-emu-model-bf16-qv | ok"
in_page "training ran" '| `qkv` | 500010 |'
stand_in "$BUILD/test-emu-model-qkv" 'sleep 20'
LIMIT=1 PARTS=tests expect "a hanging test" 1 "1 steps failed" check
in_page "the limit is said" "**FAILED**, time limit of 1 s"
stand_in "$BUILD/test-emu-model-qkv" 'kill -SEGV $$'
PARTS=tests expect "a crashing test" 1 "1 steps failed" check
in_page "the crash is said" "**FAILED**, exit code 139"
stand_in "$T/bin/make" '[[ $* != *train* ]] || { echo "train.cu:1: error: expected"; exit 2; }'
PARTS=train expect "a build that fails" 1 "1 steps failed" check
in_page "its message" "train.cu:1: error: expected"
stand_in "$T/bin/make" ':'
stand_in "$T/bin/compute-sanitizer" 'echo "========= ERROR SUMMARY: 2 errors"; exit 86'
PARTS=sanitizers expect "a sanitizer that finds something" 1 "8 steps failed" check
in_page "what it found" "| memcheck-fp32 | **FAILED**, exit code 86; ERROR SUMMARY: 2 errors |"
rm "$T/bin/compute-sanitizer"
if ! command -v compute-sanitizer >/dev/null; then
    PARTS=sanitizers expect "no sanitizer is no failure" 0 "skipped: no compute-sanitizer" check
    in_page "but said" "skipped: no compute-sanitizer"
fi
stand_in "$T/bin/python3" 'exit 1'
ln -s "$T/bin/python3" "$T/bin/python" && PARTS=bench expect "the benchmarks without PyTorch under that name" 0 "" check
LAST=5.9 PARTS=train expect "a loss that rises" 1 "2 steps failed" check
in_page "is said" "**FAILED**, the loss does not fall"
LAST=nan PARTS=train expect "a loss that is no number" 1 "2 steps failed" check
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

printf 'test_gpu_check: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
