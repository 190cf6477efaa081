#!/usr/bin/env bash
# --cuda-graphs on against off, whole runs of the trainer with emulated kernels (runtime/device/replay.cu): the same bits,
# log and samples, with gradients of several micro-batches, a rate and a rounding that change with each step, validation
# and samples between steps, a gradient that is scaled or NaN in one step, and a run that is stopped and resumed. With
# QV_BAKE_IN=arguments recorded values stay as they were: that must show.    test/system/test_graphs.sh [build]
# On a machine with a GPU: TRAIN=build/train-qkv-cuda-bf16 test/system/test_graphs.sh
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
T=$(mktemp -d -p "${SCRATCH:-/dev/shm}" 2>/dev/null || mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
. test/system/shell_common.sh
TRAIN=${TRAIN:-$BUILD/train-${VARIANTS%% *}-emu-bf16}
if [[ ! -x $TRAIN ]]; then
    echo "skipped: $TRAIN was not built"
    echo "test_graphs: 1 checks, 0 failed"
    exit 0
fi
make_data
run() {          # name, options...
    expect "$1" "${CODE:-0}" "" "$TRAIN" --layers 1 --width 64 --heads 2 --context 16 --batch-tokens 96 --micro-batch 2 --steps 6 \
        --warmup 2 --lr 2e-3 --stochastic-rounding --val-tokens 64 --val-every 2 --sample-every 4 --sample-tokens 3 \
        --data "$DATA" --threads 1 --runs-dir "$R" --run "$@"
}
differ() {       # description, run, run
    ! cmp -s "$R/$2/checkpoints/step-00000006/model.safetensors" "$R/$3/checkpoints/step-00000006/model.safetensors"
    report $? "$1"
}
same() { same_run "$1" "$R/$2" "$R/$3" step-00000006; }

run off --cuda-graphs off
run on --cuda-graphs on
same "with graphs" off on
CODE=75 run stopped --cuda-graphs on --stop-at 3
run stopped --resume
same "stopped and resumed with graphs" off stopped
QV_BAKE_IN=arguments run baked --cuda-graphs on
differ "values that stay as they were recorded change the weights" off baked
export QV_SCALE_GRADIENT=4:0.1
run scaled-off --cuda-graphs off
run scaled-on --cuda-graphs on
same "a gradient scaled in one step" scaled-off scaled-on
differ "which matters" off scaled-on
export QV_SCALE_GRADIENT=4:nan
run nan-off --spike-zscore 50 --cuda-graphs off
run nan-on --spike-zscore 50 --cuda-graphs on
unset QV_SCALE_GRADIENT
same "a gradient that is NaN in one step, and the norm looked at before the update" nan-off nan-on

echo "test_graphs: $checks checks, $failures failed"
((failures == 0))
