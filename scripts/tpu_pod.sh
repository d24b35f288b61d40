#!/usr/bin/env bash
# Runs one jaxconf command as one job on all hosts of a TPU pod slice. The hosts join by themselves, each reads its part of the weights and of
# the text, and the first one writes the results.
#
#     scripts/tpu_pod.sh NAME ZONE -- jaxconf analyze MODEL --data TEXT --out FOLDER
#
# NAME and ZONE are those of the slice in gcloud. jaxconf must be installed on every host, and the files and folders that the command names must
# have the same path on each. The script adds `--coordinator auto` to the command. DRY_RUN=1 prints what it would run and runs nothing.
set -euo pipefail

if [ "$#" -lt 4 ] || [ "$3" != -- ]; then
    echo "usage: $0 NAME ZONE -- jaxconf COMMAND ..." >&2
    exit 2
fi

printf -v remote '%q ' "${@:4}" --coordinator auto
command=(gcloud compute tpus tpu-vm ssh "$1" --zone "$2" --worker=all --command "${remote% }")
if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
exec "${command[@]}"
