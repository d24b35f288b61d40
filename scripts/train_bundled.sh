#!/usr/bin/env bash
# Trains the bundled model: one layer, on a world in which both confidence and frequency have to be decided anew at every stretch. It takes minutes on two
# cores. The weights differ between versions of JAX and kinds of device. The model in the repository was trained with Python 3.11 and JAX 0.10.2 on two CPU
# cores. docs/emergence.md says what other seeds have. Afterwards, run describe_bundled.py and then play_page.py.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/bundled}
jaxconf train --data noise:zipf=1,chain=cycle,backgrounds=two --layers 1 --width 96 --neurons 64 --steps 4000 --seed 1 --out "$out" "${@:2}"
cp "$out"/{config.json,model.safetensors,tokenizer.json,tokenizer_config.json} models/bundled/
