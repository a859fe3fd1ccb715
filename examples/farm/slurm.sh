#!/bin/sh
# One job on many machines, as an array of Slurm: as many parts as the array has tasks.
#
#   sbatch --array=1-40 examples/farm/slurm.sh /shared/archive -o /shared/exr --recursive
#
# Every argument goes to `ldr2hdr convert`. The same sbatch again does only what is missing.
#SBATCH --job-name=ldr2hdr
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --requeue
#SBATCH --output=ldr2hdr-%A_%a.log
set -eu

part=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))
# exec: SIGTERM, at the time limit or when the task is pre-empted, reaches the program itself, which finishes its frame.
exec ldr2hdr convert "$@" --shard "$part/$SLURM_ARRAY_TASK_COUNT"
