#!/usr/bin/env bash
# Slurm: a small model on CPU nodes, one rank per socket (its cores share a cache and a memory controller), MPI.
#   sbatch [--nodes=4] scripts/slurm_cpu.sh [options]
#
# What it costs: 30 M parameters (L6 C384, vocabulary 50304), 1e9 tokens: 6 * 30e6 + 6 * 6 * 256 * 384
# (attention) = 1.8e8 FLOPs a token, 1.8e17 in all.
#   2 nodes * 2 sockets * 32 cores at an assumed 20 GFLOP/s a core in the whole step (make bench says what yours
#   gives) = 2.6e12 FLOP/s = 14,000 tokens/s -> 20 hours, 40 node hours.
#   Communication: 2 * 4 bytes * 30e6 * 3/4 = 180 MB per rank and step, 0.15 s at 1.2 GB/s (10 Gb/s Ethernet)
#   beside 4.6 s of computing for a step of 65,536 tokens: 97%. `scripts/scaling.sh cpu` measures it on your machine.
#   A single H200 does this in minutes: CPU nodes are for those who have them idle.
#SBATCH --job-name=qv-cpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --ntasks-per-socket=1
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=USR1@600
#SBATCH --requeue
set -u
cd "${SLURM_SUBMIT_DIR:-.}"
RUN=${RUN:-slurm-cpu}
# Started again before the first checkpoint was there: from the beginning.
if compgen -G "runs/$RUN/checkpoints/step-*" >/dev/null; then
    GO_ON=--resume
elif ((${SLURM_RESTART_COUNT:-0})); then
    GO_ON=--overwrite
else
    GO_ON=
fi

# A rank takes as many threads as it has cores of its own (--threads 0); since Slurm 22.05 srun has to be told --cpus-per-task again.
srun --mpi="${MPI_TYPE:-pmix}" --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --cpu-bind=cores \
    build/train-qv --run "$RUN" $GO_ON --data "${DATA:-data/mine}" \
    --layers 6 --width 384 --heads 6 --context 256 --batch-tokens 65536 --micro-batch 16 --steps 15259 --zero 1 --save-every 500 "$@"
code=$?
# 75: stopped and saved; 143: the same, on a rank that was slower to leave than srun to send SIGTERM.
((code != 75 && code != 143)) || scontrol requeue "$SLURM_JOB_ID"
exit $code
