#!/usr/bin/env bash
# What communication costs: bytes per step and rank, and the efficiency to be expected on many GPUs; docs/SCALING.md explains the model.
#   scripts/scaling.sh              8, 64 and 1024 H200 with 124M and 1.5B parameters
#   scripts/scaling.sh cpu          this machine: predicts a step with 2 and 4 processes from one process and
#                                   bench-comm, and measures it (make train build/bench-comm first;
#                                   DATA=folder; ARGS="--layers 6 ..." another model)
# Environment: GPUS="8 64"  MODELS="124M 1.5B"  TOKENS=65536 per GPU and micro-batch (124M; a quarter for 1.5B)
# ACCUMULATION=1  ZERO="0 1 2"  or BATCH_TOKENS=N: tokens of all GPUs together, instead of TOKENS.
# cpu: ROWS=4 sequences of LENGTH=128 tokens per process and step.
# Not a measurement (no GPU has run this program): every assumption is one of the variables below.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# ------------------------------------------------------------------------------------------------ assumptions
SPEED_124M=${SPEED_124M:-580000}        # tokens/s of one H200 in training: our target (docs/gpu), not measured
SPEED_1500M=${SPEED_1500M:-56000}       # the same
# Ring bandwidth per GPU: reduce-scatter on nodes of 8 H100 with 400 Gb/s InfiniBand per GPU: 360 measured with 4
# nodes [NVIDIA/nccl issue 1229]; nominal: NVLink 450, eight links of 50 together 400. Also taken within one node.
BUS_GBS=${BUS_GBS:-360}
# Latency of NCCL's ring per step, microseconds: first, within a node, between nodes [NVIDIA/nccl, src/graph/tuning.cc: baseLat, hwLat].
SIMPLE_US=${SIMPLE_US:-"8.4 3.4 9.6"}   # protocol Simple, whole bandwidth
LL128_US=${LL128_US:-"10.0 1.9 4.0"}    # protocol LL128, 92% of the bandwidth
UPDATE_BYTES=${UPDATE_BYTES:-30}        # moved per parameter by AdamW
MEMORY_GBS=${MEMORY_GBS:-4300}          # of an H200, reached
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
VOCABULARY=50304 CONTEXT=1024 NORM_BLOCK=1024     # gradients per partial sum of the norm, 8 bytes each (layers/adamw.h)

# ------------------------------------------------------------------------------------------------ GPUs
# Plays one step: the compute stream and NCCL's, in the order of model/gpt.h. Buckets: 0 the embeddings, 1 ..
# L the blocks. Gradients travel as fp32, weights as bf16. The embeddings' gradient is complete last and their
# weights are needed first: nothing hides these two.
model() {        # name layers width speed gpus tokens accumulation zero
    awk -v name="$1" -v L="$2" -v C="$3" -v speed="$4" -v N="$5" -v tokens="$6" -v A="$7" -v zero="$8" -v V=$VOCABULARY -v T=$CONTEXT \
        -v bus="$BUS_GBS" -v simple="$SIMPLE_US" -v ll128="$LL128_US" -v update_bytes="$UPDATE_BYTES" \
        -v memory="$MEMORY_GBS" -v per_node="$GPUS_PER_NODE" -v norm_block="$NORM_BLOCK" '
    function max(a, b) { return a > b ? a : b }
    function ring(bytes, us, share,    p, nodes) {               # seconds of a reduce-scatter or all-gather
        split(us, p, " ")
        nodes = int((N + per_node - 1) / per_node)
        return (p[1] + (N - nodes) * p[2] + (nodes - 1) * p[3]) * 1e-6 + bytes * (N - 1) / N / (bus * 1e9 * share)
    }
    function exchange(bytes,    a, b) {
        a = ring(bytes, simple, 1); b = ring(bytes, ll128, 0.92)
        return a < b ? a : b
    }
    BEGIN {
        block = 12 * C * C + 13 * C; embeddings = (V + T) * C; P = embeddings + L * block
        micro = tokens / speed; forward = micro / 3
        head = 2 * V * C / (2 * V * C + L * (24 * C * C + 2 * T * C))          # its share of the FLOPs
        block_forward = forward * (1 - head) / L
        now = 0; network = 0                                                   # when each stream is free
        for (a = 1; a <= A; a++) {
            for (k = 0; k <= L; k++) {                                         # forward: bucket k has arrived?
                if (a == 1 && zero > 0) { network += exchange(2 * (k ? block : embeddings)); now = max(now, network) }
                if (k) now += block_forward
            }
            now += 3 * head * forward                                          # head, forward and backward
            for (l = L; l >= 0; l--) {
                if (zero == 2 && l >= 1 && l + 3 <= L) now = max(now, reduced[l + 3])
                if (l) now += 2 * block_forward
                if (zero == 2 || a == A) { network = max(network, now) + exchange(4 * (l ? block : embeddings)); reduced[l] = network }
            }
            if (zero == 2 || a == A) now = max(now, network)
        }
        if (zero == 0) for (k = 0; k <= L; k++) { network = now + exchange(4 * (k ? block : embeddings)); now = network }
        update = P * update_bytes / (memory * 1e9)
        if (zero) now += 2 * exchange(8 * P / norm_block) + update / N; else now += update
        alone = A * micro + update
        sent = (zero == 0 ? 8 : zero == 1 ? 6 : 4 * A + 2) * P * (N - 1) / N
        printf "%-6s %5d %5d %9d %3d %10.0f %9.1f %9.1f %8.1f%% %12.0f\n", name, N, zero, tokens, A, sent / 1e6, \
            alone * 1e3, now * 1e3, 100 * alone / now, N * A * tokens / now
    }'
}
gpus() {
    local gpus tokens of_model zero
    printf '%-6s %5s %5s %9s %3s %10s %9s %9s %9s %12s\n' model GPUs zero tokens/GPU acc 'MB/step' 'alone ms' 'step ms' efficiency tokens/s
    for of_model in ${MODELS:-124M 1.5B}; do
        for gpus in ${GPUS:-8 64 1024}; do
            for zero in ${ZERO:-0 1 2}; do
                tokens=${TOKENS:-65536}
                [[ -n ${TOKENS:-} || $of_model != 1.5B ]] || tokens=$((tokens / 4))
                [[ -z ${BATCH_TOKENS:-} ]] || tokens=$((BATCH_TOKENS / gpus / ${ACCUMULATION:-1}))
                case $of_model in
                    124M) model 124M 12 768 "$SPEED_124M" "$gpus" "$tokens" "${ACCUMULATION:-1}" "$zero" ;;
                    1.5B) model 1.5B 48 1600 "$SPEED_1500M" "$gpus" "$tokens" "${ACCUMULATION:-1}" "$zero" ;;
                    *) printf 'scaling.sh: unknown model %s; known: 124M 1.5B\n' "$of_model" >&2; exit 2 ;;
                esac
            done
        done
    done
}

# ------------------------------------------------------------------------------------------------ this machine
# One thread per process; a process alone takes t seconds per micro-batch. With N processes on M cores each of
# the N micro-batches of a step takes t * max(1, N / M), and nothing of the communication is hidden (MPI moves
# data only while a process waits):
#   zero 0 and 1: step = that + bytes * (N-1)/N * (1 / reduce-scatter's rate + 1 / all-gather's rate), 4 bytes per parameter each
cpu() {
    source test/system/mpi_common.sh
    local steps=12 rows=${ROWS:-4} context=${LENGTH:-128} cores parameters tensor_mb n alone predicted measured rs ag folder reason
    local model=${ARGS:---layers 6 --width 384 --heads 6}
    cores=$(nproc)
    [[ -x build/train-qkv && -x build/bench-comm ]] || { echo "scaling.sh: make train build/bench-comm first" >&2; exit 1; }
    reason=$(mpi_setup build/train-qkv) || { echo "$reason"; exit 1; }
    mpi_setup build/train-qkv
    folder=$(mktemp -d)
    trap "rm -rf '$folder'" EXIT
    # Milliseconds per step: the median, without the first three steps.
    step_ms() {
        ranks "$1" build/train-qkv --data "${DATA:-data/kjv}" $model --context $context --micro-batch $rows \
            --batch-tokens $((rows * context * $1)) --threads 1 \
            --steps $steps --warmup 1 --zero 1 --val-every 0 --val-tokens 512 --runs-dir "$folder" --run "n$1" \
            --quiet >"$folder/n$1.log" 2>&1 ||
            { cat "$folder/n$1.log" >&2; exit 1; }
        sed -n 's/.*"tokens_per_second":\([0-9.e+]*\).*/\1/p' "$folder/n$1/metrics.jsonl" | tail -n +4 | sort -g |
            awk -v tokens=$((rows * context * $1)) '{ v[NR] = $1 } END { printf "%.2f", 1e3 * tokens / v[int((NR + 1) / 2)] }'
    }
    alone=$(step_ms 1)
    parameters=$(sed -n 's/.*"parameters": *\([0-9]*\).*/\1/p' "$folder/n1/config.json" | head -1)
    tensor_mb=$(awk "BEGIN { print $parameters * 4e-6 }")
    printf '%s, %s cores, %s parameters (%.1f MB), %d tokens per process and step; alone %s ms; load %s\n' \
        "$(uname -m)" "$cores" "$parameters" "$tensor_mb" $((rows * context)) "$alone" \
        "$(cut -d' ' -f1 /proc/loadavg)"
    printf '%9s %20s %16s %14s %13s %7s\n' processes 'reduce-scatter GB/s' 'all-gather GB/s' 'predicted ms' 'measured ms' ratio
    for n in 2 4; do
        ranks $n build/bench-comm "$tensor_mb" 12 >"$folder/bench"
        rs=$(awk '$1 == "comm_reduce_scatter" { print $4 }' "$folder/bench") \
            ag=$(awk '$1 == "comm_all_gather" { print $4 }' "$folder/bench")
        predicted=$(awk "BEGIN {
            load = $n > $cores ? $n / $cores : 1
            printf \"%.2f\", $alone * load + $tensor_mb * ($n - 1) / $n * (1 / $rs + 1 / $ag) }")
        measured=$(step_ms $n)
        printf '%9d %20s %16s %14s %13s %7s\n' $n "$rs" "$ag" "$predicted" "$measured" \
            "$(awk "BEGIN { printf \"%.2f\", $measured / $predicted }")"
    done
}

case ${1:-gpus} in
    gpus) gpus ;;
    cpu) cpu ;;
    *) printf 'usage: scripts/scaling.sh [gpus|cpu]\n' >&2; exit 2 ;;
esac
