#!/usr/bin/env bash
# Workers of one sweep as a Slurm array, each with a GPU: they share the sweep's folder, and any of them may end early or be preempted.
#
#     sbatch --array=1-8 scripts/slurm_sweep.sh SWEEP.toml SHARED_FOLDER
#
# DRY_RUN=1 prints the command and runs nothing. Set partition, account and time on sbatch's own command line.
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
