#!/usr/bin/env bash
# Tests jaxconf on a GPU and measures how fast it is, within 8 minutes and without a network. The results go to
# OUT/gpu_check.json.
#
#     scripts/gpu_check.sh [--tiny] [--out OUT] [--wheels FOLDER] [STEP ...]
#
# The machine needs Linux, Python 3.12, JAX 0.11 with CUDA, flax, chex, optax, orbax-checkpoint, pandas, pyarrow,
# matplotlib, rich, tokenizers, safetensors and pytest. If it lacks other packages that jaxconf needs, these are taken
# from FOLDER for this run (.wheels by default, which scripts/gpu_wheels.sh fills). OUT is runs/gpu_check by default.
# --tiny runs the same steps with small shapes, on a CPU. If STEPs are named, only those are run, and the results of the
# others in OUT are kept.
#
# Each step is a process with a time limit. Its results are added to OUT/gpu_check.json when it ends, even if it failed
# or ran out of time. The exit status is 1 if any step did not finish. Environment variables: LIMIT replaces the time
# limit of each step (in seconds); PYTHON is the interpreter; JAX_PLATFORMS are the backends ("cuda,cpu" by default,
# "cpu" with --tiny); DRY_RUN=1 prints the steps' commands and runs nothing.
set -euo pipefail

steps=(facts effects-gpt2-small effects-llama-2-7b seeds load tests)
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3} out=runs/gpu_check wheels=$root/.wheels
small=() chosen=()
while [ "$#" -gt 0 ]; do
    if [ "$1" = --tiny ]; then
        small=(--tiny)
    elif [ "$1" = --out ] && [ "$#" -ge 2 ]; then
        out=$2 && shift
    elif [ "$1" = --wheels ] && [ "$#" -ge 2 ]; then
        wheels=$2 && shift
    elif [[ " ${steps[*]} " = *" $1 "* ]]; then
        chosen+=("$1")
    else
        echo "usage: $0 [--tiny] [--out OUT] [--wheels FOLDER] [STEP ...], each STEP one of: ${steps[*]}" >&2
        exit 2
    fi
    shift
done

failed=0
step() { # NAME SECONDS
    local limit=$2 begun status=0
    if [ "${#chosen[@]}" -gt 0 ] && [[ " ${chosen[*]} " != *" $1 "* ]]; then
        return
    fi
    if [ "${#small[@]}" -gt 0 ]; then
        limit=600 # a CPU may be slow, or busy with other processes
    fi
    limit=${LIMIT:-$limit}
    local command=("$python" "$root/scripts/gpu_check.py" "$1" --out "$out" ${small[@]+"${small[@]}"})
    command=(timeout --kill-after=5 "$limit" "${command[@]}")
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "${command[@]}"
        echo
        return
    fi
    echo "== $1, at most $limit s"
    rm -f "$out/$1.json"
    begun=$(date +%s.%N)
    "${command[@]}" 2>&1 | tee "$scratch/log" || status=$?
    "$python" "$root/scripts/gpu_join.py" "$out" "$1" "$limit" "$begun" "$status" "$scratch/log" || status=$?
    if [ "$status" -ne 0 ]; then
        failed=1
    fi
}

installed() { # PACKAGE
    "$python" -c 'import sys, importlib.metadata as about; about.version(sys.argv[1])' "$1" 2>/dev/null
}

install_missing() { # packages that the machine has are not replaced
    local wheel name missing=()
    for wheel in "$wheels"/*.whl; do
        name=$(basename "$wheel")
        if [ -f "$wheel" ] && ! installed "${name%%-*}"; then
            missing+=("$wheel")
        fi
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
            --target "$scratch/site" "${missing[@]}" || echo "these could not be installed: ${missing[*]}" >&2
    fi
}

if [ -z "${DRY_RUN:-}" ]; then
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    if [ "${#chosen[@]}" -eq 0 ]; then
        rm -f "$out/gpu_check.json"
    fi
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 143' INT TERM
    install_missing
    cd "$root"
    export TMPDIR=$scratch PYTHONPATH=$root:$scratch/site${PYTHONPATH:+:$PYTHONPATH}
    export XLA_PYTHON_CLIENT_PREALLOCATE=false # an earlier step that is being killed may still hold memory
    if [ "${#small[@]}" -gt 0 ]; then
        export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} JAX_DISABLE_MOST_OPTIMIZATIONS=1
        export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$scratch/programs} # both effects steps have one shape
    else
        export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
    fi
fi

full=highest # float32 matrices are multiplied in float32
step facts 35
JAX_DEFAULT_MATMUL_PRECISION=$full step effects-gpt2-small 85
JAX_DEFAULT_MATMUL_PRECISION=$full step effects-llama-2-7b 85
step seeds 60
step load 65
JAX_DEFAULT_MATMUL_PRECISION=$full step tests $((470 - SECONDS)) # the rest of 470 s, at least 140 s by the limits above
exit "$failed"
