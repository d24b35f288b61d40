#!/usr/bin/env bash
# The recipe of the bundled model: Python's own standard library, 33 million tokens. The text, and so the weights, differ with the Python
# version; the model in the repository was trained with Python 3.11.7 on two CPU cores.
set -euo pipefail
cd "$(dirname "$0")/.."
jaxconf train --out "${1:-jaxconf/bundled}" --data stdlib --force
