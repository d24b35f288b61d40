#!/usr/bin/env bash
# Runs the workers of one sweep as a Slurm array, each with one GPU. They share the folder of the sweep. Any worker may end early or be
# preempted.
#
#     sbatch --array=1-8 scripts/slurm_sweep.sh SWEEP.toml SHARED_FOLDER
#
# DRY_RUN=1 prints the command and runs nothing. Give partition, account and time as options of sbatch.
#SBATCH --job-name=jaxconf
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --requeue
set -euo pipefail

if [ "$#" -ne 2 ]; then
    echo "usage: sbatch --array=1-N $0 SWEEP.toml SHARED_FOLDER" >&2
    exit 2
fi
if [ ! -f "$1" ]; then
    echo "there is no file $1; give the TOML file that defines the sweep" >&2
    exit 2
fi

command=(jaxconf sweep "$1" --out "$2")
if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
exec "${command[@]}"
