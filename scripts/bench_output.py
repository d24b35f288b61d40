"""What the benchmarks do with their results: print them, write them to a file, and put sections into a page."""

import json
from pathlib import Path
from typing import Any

from jaxconf.models.files import replacing


def write(file: Path, text: str) -> None:
    with replacing(file) as path:
        path.write_text(text)


def report(result: dict[str, Any], file: Path | None) -> None:
    """Print a benchmark's results, and write them to a JSON file if one is given."""
    for name, value in result.items():
        print(f"{name:28s} {value:.4g}" if isinstance(value, float) else f"{name:28s} {value}")
    if file:
        write(file, json.dumps(result, indent=1) + "\n")
