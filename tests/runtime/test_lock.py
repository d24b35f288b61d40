"""A file that one process holds at a time."""

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

from jaxconf.runtime.lock import contents, held, locked, this_process


def test_a_file_is_held_until_its_process_ends_however_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    code = (
        "import time; from pathlib import Path; from jaxconf.runtime.lock import locked\n"
        f"with locked(Path({str(file)!r})): print('has it', flush=True); time.sleep(60)"
    )
    assert not held(file)
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout
    assert other.stdout.readline() == "has it\n"
    assert held(file)
    assert contents(file)["process"].endswith(f":{other.pid}")
    with locked(file) as tell:
        assert tell is None
    other.kill()
    other.communicate()
    assert not held(file)
    with locked(file) as tell:
        assert tell
        assert held(file)
        tell(dashboard="somewhere")
        said = contents(file)
        assert (said["process"], said["dashboard"]) == (this_process(), "somewhere")
        assert said["since"] <= file.stat().st_mtime
    assert not held(file)


def test_who_looks_at_a_file_for_a_moment_lets_nobody_else_have_it(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    looking = file.open("a+")
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, looking.close).start()
    with locked(file) as tell:
        assert tell
        assert held(file)
        with locked(file) as other:
            assert other is None
