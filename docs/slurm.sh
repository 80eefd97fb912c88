#!/bin/bash
# Four nodes of eight GPUs. One task a node: torchrun starts a process a GPU.
#
#   sbatch docs/slurm.sh --config openflamingo_9b --data /data/mmc4 --pairs '/data/laion/*.tar' --output /runs/of9b
#
# Slurm's warning before the time limit, and before a pre-emption, reaches every process: the run finishes its update,
# saves, and ends. After a pre-emption --requeue submits the same command again, which goes on from there; after a time
# limit submit it again yourself. torchrun allows 30 seconds between the warning and the end.
#SBATCH --job-name=mmc4-train
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:29500" \
    --no-python mmc4-train --workers 6 "$@"
