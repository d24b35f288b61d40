#!/usr/bin/env bash
# Runs one worker of a sweep on each GPU of this node, and ends when all workers have ended.
#
#     scripts/gpu_node.sh SWEEP.toml FOLDER [GPUS]
#
# GPUS is the number of GPUs; by default all that nvidia-smi lists. For a model that does not fit onto one GPU, run a single worker with all of
# them instead: `jaxconf sweep SWEEP.toml --out FOLDER` splits the weights over as many as they need. DRY_RUN=1 prints the commands and runs
# nothing.
set -euo pipefail

if [ "$#" -lt 2 ] || [ "$#" -gt 3 ]; then
    echo "usage: $0 SWEEP.toml FOLDER [GPUS]" >&2
    exit 2
fi
if [ ! -f "$1" ]; then
    echo "there is no file $1; give the TOML file that defines the sweep" >&2
    exit 2
fi
if [ "$#" -eq 3 ]; then
    gpus=$3
else
    gpus=$(nvidia-smi --list-gpus | wc -l)
fi
if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then
    echo "GPUS is '$gpus'; give how many GPUS to use" >&2
    exit 2
fi

workers=()
trap 'kill ${workers[@]+"${workers[@]}"} 2>/dev/null || true' INT TERM EXIT
for ((gpu = 0; gpu < gpus; gpu++)); do
    if [ -n "${DRY_RUN:-}" ]; then
        printf 'CUDA_VISIBLE_DEVICES=%s %q %q %q %q %q\n' "$gpu" jaxconf sweep "$1" --out "$2"
    else
        CUDA_VISIBLE_DEVICES=$gpu jaxconf sweep "$1" --out "$2" &
        workers+=($!)
    fi
done
failed=0
for worker in ${workers[@]+"${workers[@]}"}; do
    wait "$worker" || failed=$?
done
exit "$failed"
