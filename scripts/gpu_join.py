"""Adds to OUT/gpu_check.json how a step of scripts/gpu_check.sh ended, and the results in its file OUT/STEP.json.

    python scripts/gpu_join.py OUT STEP LIMIT BEGUN STATUS LOG

OUT/STEP.json is then deleted. This script is a process of its own and needs no other packages, so that a step that
crashes, hangs or lacks a package is recorded like any other. LIMIT is in seconds, BEGUN in seconds since 1970, and
STATUS is the exit status of the step. LOG is a file with the output of the step; its end is kept if the step did not
finish.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from jaxconf.models.files import replacing

OUT_OF_TIME = (124, 137)  # exit statuses of `timeout`: the step ended when it was told to, or had to be killed
KEPT = 4000  # characters of a log


def ended(status: int, limit: float, seconds: float, part: Any, log: str) -> dict[str, Any]:
    """The entry of a step in gpu_check.json."""
    said = {0: "finished"} | dict.fromkeys(OUT_OF_TIME, "out of time")
    how = said.get(status, f"failed with status {status}")
    entry = {"ok": status == 0, "ended": how, "seconds": seconds, "limit": limit, "result": part}
    return entry if status == 0 else entry | {"log": log[-KEPT:]}


def main(out: Path, step: str, limit: str, begun: str, status: str, log: Path) -> None:
    part, whole = out / f"{step}.json", out / "gpu_check.json"
    joined = json.loads(whole.read_text()) if whole.is_file() else {"steps": {}}
    result = json.loads(part.read_text()) if part.is_file() else None
    text = log.read_text(errors="replace") if log.is_file() else ""
    entry = ended(int(status), float(limit), round(time.time() - float(begun), 1), result, text)
    joined["steps"][step] = entry
    with replacing(whole) as path:
        path.write_text(json.dumps(joined, indent=1) + "\n")
    part.unlink(missing_ok=True)
    print(f"== {step} {entry['ended']} after {entry['seconds']} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:6], Path(sys.argv[6]))
