#!/usr/bin/env bash
# Slurm: GPT-2 124M on GPU nodes with 8 H200 each, one rank per GPU, NCCL started by MPI.
#   sbatch [--nodes=8] scripts/slurm_h200.sh [options of train-qv]
#
# What it costs: 10e9 tokens, 6 * 124e6 + 6 * 12 * 1024 * 768 (attention) = 8.0e8 FLOPs a token, 8.0e18 in all.
#   1 node:  8 GPUs * 580,000 tokens/s (target, not measured) * 0.999 (scripts/scaling.sh)  = 4.6e6 tokens/s  ->  36 minutes, 4.8 GPU hours
#   8 nodes: 64 GPUs * 580,000 * 0.95 with 524,288 tokens per step (8,192 per GPU)          = 3.3e7 tokens/s  ->   5 minutes, 5.4 GPU hours
#   At 3.50 USD a GPU hour (put in yours): 17 and 19 USD, start-up and validation not counted. More nodes cost
#   little here until a GPU has fewer than some 8,192 tokens per step.
#
# Before: make train ATTN=qv BACKEND=cuda PRECISION=bf16 on a node (it says so when MPI or NCCL was not
# found); data on a file system that all nodes see.
#SBATCH --job-name=qv
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
# 5 minutes before the time is up the ranks get SIGUSR1: they save and end with code 75, and the job starts again with --resume.
#SBATCH --signal=USR1@300
#SBATCH --requeue
set -u
cd "${SLURM_SUBMIT_DIR:-.}"

# Which PMI srun speaks with our MPI: pmix for Open MPI, pmi2 for MPICH and Intel MPI; `srun --mpi=list` shows
# what there is. The program notices a wrong one.
MPI_TYPE=${MPI_TYPE:-pmix}
RUN=${RUN:-slurm-124m}
# Started again before the first checkpoint was there: from the beginning.
if compgen -G "runs/$RUN/checkpoints/step-*" >/dev/null; then
    GO_ON=--resume
elif ((${SLURM_RESTART_COUNT:-0})); then
    GO_ON=--overwrite
else
    GO_ON=
fi

# --kill-on-bad-exit: a rank that dies ends the job at once. --gpus-per-task is left out on purpose: a rank
# picks the GPU of its local number.
# --cpu-bind=cores: a rank's threads stay on its own cores.
srun --mpi="$MPI_TYPE" --kill-on-bad-exit=1 --cpu-bind=cores \
    build/train-qv-cuda-bf16 --run "$RUN" $GO_ON --data "${DATA:-data/fineweb}" \
    --layers 12 --width 768 --heads 12 --context 1024 --batch-tokens 524288 --micro-batch "${MICRO_BATCH:-8}" \
    --steps 19073 --lr 6e-4 --warmup 700 --zero 1 --save-every 1000 --comm-timeout 300 "$@"
code=$?
# 143 too: the first rank that leaves with 75 makes srun send SIGTERM to those a moment slower; all have saved by then.
if ((code == 75 || code == 143)); then
    echo "saved before the time was up: requeued"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
