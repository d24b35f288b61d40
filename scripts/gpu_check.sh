#!/usr/bin/env bash
# Whether jaxconf is right on a GPU, and how fast, within 8 minutes and without a network. What is found goes to
# OUT/gpu_check.json.
#
#     scripts/gpu_check.sh [--tiny] [--out OUT] [--wheels FOLDER] [STEP ...]
#
# The machine has Linux, Python 3.12, JAX 0.11 with CUDA, flax, chex, optax, orbax-checkpoint, pandas, pyarrow,
# matplotlib, rich, tokenizers, safetensors and pytest. What it lacks of the rest is taken from FOLDER for this run
# (.wheels by default, which scripts/gpu_wheels.sh fills). OUT is runs/gpu_check by default. --tiny runs the same with
# small shapes, on a CPU. Where STEPs are named only those are run, and what OUT says of the others stays.
#
# Each step is a process with a time limit in seconds. Its part joins OUT/gpu_check.json when it ends, however it ends.
# The exit status is 1 if any step did not finish. LIMIT is what each gets instead, PYTHON the interpreter,
# JAX_PLATFORMS the backends ("cuda,cpu" by default, "cpu" with --tiny). DRY_RUN=1 prints the steps' commands and runs
# nothing.
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
        limit=600 # a CPU may be busy with other things
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

install_missing() { # what the machine has stays as it is
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
    export XLA_PYTHON_CLIENT_PREALLOCATE=false # a step that is being killed may still hold memory
    if [ "${#small[@]}" -gt 0 ]; then
        export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} JAX_DISABLE_MOST_OPTIMIZATIONS=1
        export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$scratch/programs} # both shapes are the same
    else
        export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
    fi
fi

full=highest # products of float32 numbers in float32
step facts 35
JAX_DEFAULT_MATMUL_PRECISION=$full step effects-gpt2-small 85
JAX_DEFAULT_MATMUL_PRECISION=$full step effects-llama-2-7b 85
step seeds 60
step load 65
JAX_DEFAULT_MATMUL_PRECISION=$full step tests $((470 - SECONDS)) # what is left, of which the others' limits leave 140
exit "$failed"
