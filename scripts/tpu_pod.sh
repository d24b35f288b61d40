#!/usr/bin/env bash
# One jaxconf command on all hosts of a TPU pod slice, as one job: they find each other, each reads its part, and one writes.
#
#     scripts/tpu_pod.sh NAME ZONE -- jaxconf analyze MODEL --data TEXT --out FOLDER
#
# NAME and ZONE are the slice's, as gcloud knows them. jaxconf must be installed on every host, and what the command names must be found on each
# under the same path; `--coordinator auto` is added to it. DRY_RUN=1 prints what would be run and runs nothing.
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
