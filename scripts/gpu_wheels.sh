#!/usr/bin/env bash
# Downloads the packages that scripts/gpu_check.sh installs on a machine without a network: wheels for Python 3.12 on Linux.
#
#     scripts/gpu_wheels.sh [FOLDER]
#
# FOLDER is .wheels by default, which git ignores. scripts/gpu_check.sh says what else the machine needs. Environment
# variables: PYTHON is the interpreter whose pip is used; DRY_RUN=1 prints the command and runs nothing.
set -euo pipefail

if [ "$#" -gt 1 ]; then
    echo "usage: $0 [FOLDER]" >&2
    exit 2
fi

wheels=(
    docstring_parser==0.18.0
    einops==0.8.2
    hypothesis==6.170.17
    narwhals==2.29.0
    plotly==7.1.0
    sortedcontainers==2.4.0
    typeguard==4.6.1
    tyro==1.0.17
)
command=(
    "${PYTHON:-python3}" -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64
    --dest "${1:-$(dirname "$0")/../.wheels}" "${wheels[@]}"
)
if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
exec "${command[@]}"
