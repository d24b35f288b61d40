"""Runs the scripts of a page outside it, with node, or in it, with Chromium."""

import json
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--window-size=500,900")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not here, so the page's scripts are not run outside it")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here, so the page is not opened")


def in_node(script: str, given: Any, folder: Path) -> Any:
    """The value of the expression at the script's end, JSON-able, with `given` in its constant `given`."""
    assert NODE is not None
    body, _, last = script.rstrip().rpartition("\n")
    file = folder / "script.js"
    file.write_text(f"const given = {json.dumps(given)};\n{body}\nconsole.log(JSON.stringify({last}));\n", "utf-8")
    return json.loads(subprocess.run([NODE, file], check=True, capture_output=True, text=True).stdout)


def in_chromium(page: str, script: str, given: Any, folder: Path) -> Any:
    """As `in_node`, but in a page, at the end of its body."""
    body, _, last = script.rstrip().rpartition("\n")
    harness = (
        f"<script>{{ const given = {json.dumps(given)};\n{body}\n"
        "Object.assign(document.body.appendChild(document.createElement('pre')), "
        f"{{ id: 'found', textContent: JSON.stringify({last}) }}); }}</script>"
    )
    head, end, tail = page.rpartition("</body>")
    file = folder / "page.html"
    file.write_text(head + harness + end + tail, "utf-8")
    return found_in_chromium(file, folder)


def found_in_chromium(page: Path, folder: Path) -> Any:
    """The JSON that the scripts of a page leave in its element `found`. `folder`: a place for Chromium's profile."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    _, begun, rest = shown.partition('<pre id="found">')
    assert begun, "the script ended with an error"
    return json.loads(unescape(rest.partition("</pre>")[0]))
