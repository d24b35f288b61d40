#!/usr/bin/env bash
# Trains the bundled model. The recipe is one of those in docs/emergence_study.md; the text is 4 million tokens of Python's standard library. It
# differs between versions of Python, and so do the weights. The model in the repository was trained with Python 3.11.7 on one CPU core.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/bundled}
jaxconf train tiny --width 128 --heads 4 --neurons 512 --vocab-size 260 --batch 8 --steps 20000 --learning-rate 3e-3 --out "$out" "${@:2}"
cp "$out"/{config.json,model.safetensors,tokenizer.json,tokenizer_config.json} models/bundled/
