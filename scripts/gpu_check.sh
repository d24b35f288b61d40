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
# Each step is a process with a time limit: its share of the time that the steps before it have left, so the first
# steps are those that matter most. Its results are added to OUT/gpu_check.json when it ends, even if it failed or ran
# out of time. Compiled programs are kept in .jax_cache, so a step that is run again gets further. The exit status is 1
# if any step did not finish. Environment variables: LIMIT replaces the time limit of each step (in seconds); PYTHON is
# the interpreter; JAX_COMPILATION_CACHE_DIR is another folder for compiled programs; JAX_PLATFORMS are the backends
# ("cuda,cpu" by default, "cpu" with --tiny); DRY_RUN=1 prints the steps' commands and runs nothing.
set -euo pipefail

whole=470 # seconds
steps=(facts effects-gpt2-small real-logits sets effects-gemma-2b load seeds effects-llama-2-7b tests)
declare -A shares=(
    [facts]=5 [effects-gpt2-small]=15 [real-logits]=9 [sets]=9 [effects-gemma-2b]=15
    [load]=11 [seeds]=9 [effects-llama-2-7b]=9 [tests]=18
)
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
    else
        export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
    fi
    export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$root/.jax_cache}
    export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0.2}
fi

if [ "${#chosen[@]}" -gt 0 ]; then
    kept=()
    for name in "${steps[@]}"; do
        if [[ " ${chosen[*]} " = *" $name "* ]]; then
            kept+=("$name")
        fi
    done
    steps=("${kept[@]}")
fi
rest=0 used=0
for name in "${steps[@]}"; do
    rest=$((rest + shares[$name]))
done
for name in "${steps[@]}"; do
    limit=$(((whole - used) * shares[$name] / rest))
    rest=$((rest - shares[$name]))
    case $name in
    facts | seeds | load) step "$name" "$limit" ;;
    *) JAX_DEFAULT_MATMUL_PRECISION=highest step "$name" "$limit" ;; # float32 matrices are multiplied in float32
    esac
    if [ -n "${DRY_RUN:-}" ]; then
        used=$((used + limit))
    else
        used=$SECONDS
    fi
done
exit "$failed"
