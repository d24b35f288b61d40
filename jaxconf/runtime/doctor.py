"""What jaxconf finds on this machine, for `jaxconf doctor`: versions, devices, memory, the hub and the caches."""

import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import jax
from huggingface_hub import constants
from packaging.requirements import Requirement

from jaxconf.models.errors import first_line
from jaxconf.runtime.placement import memory_of_a_device
from jaxconf.runtime.program_cache import SWITCH, can_be_written, chosen
from jaxconf.runtime.version import __version__

SHOWN = ("jax", "jaxlib", "flax", "numpy", "huggingface_hub")
TIMEOUT = 5.0  # seconds for the hub to answer, and for adding up the files of a cache


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str  # such as "devices"
    found: str  # in words
    problem: str = ""  # what is wrong and what to do, or "" if nothing is


def doctor(timeout: float = TIMEOUT) -> list[Finding]:
    """Looks at what jaxconf needs and uses on this machine.

    `timeout`: seconds for the hub to answer, and for each cache. A hub that is not reached is no problem, since what is
    in the caches works without it.
    """
    return [*_versions(), *_requirements(), _devices(), _memory(), _hub(timeout), *_caches(timeout)]


def _versions() -> Iterator[Finding]:
    yield Finding("jaxconf", __version__)
    yield Finding("python", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")
    for name in SHOWN:
        yield Finding(name, _version(name) or "not installed")


def _requirements() -> Iterator[Finding]:
    """The packages that jaxconf requires, and for each of its extras, whether all are there."""
    lacking: dict[str, list[str]] = defaultdict(list)
    extras = importlib.metadata.metadata("jaxconf").get_all("Provides-Extra") or []
    requirements = list(map(Requirement, importlib.metadata.requires("jaxconf") or []))
    for extra in ["", *extras]:
        for needed in requirements:
            if not (needed.marker is None or needed.marker.evaluate({"extra": extra})):
                continue
            if extra and needed.marker is None:
                continue
            version = _version(needed.name)
            if version is None or not needed.specifier.contains(version, prereleases=True):
                lacking[extra].append(f"{needed.name}{needed.specifier} (found: {version or 'nothing'})")
    if lacking[""]:
        missing = ", ".join(lacking[""])
        yield Finding(
            "requirements", f"missing: {missing}", "install jaxconf again, with pip install --upgrade jaxconf"
        )
    else:
        yield Finding("requirements", "all installed")
    told = [f"{extra} ({'needs ' + ', '.join(lacking[extra]) if lacking[extra] else 'installed'})" for extra in extras]
    yield Finding("extras", "; ".join(told) or "none")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Finding:
    try:
        devices = jax.devices()
    except RuntimeError as error:
        return Finding(
            "devices",
            f"none: {first_line(error)}",
            "set JAX_PLATFORMS to a platform that this machine has, such as cpu",
        )
    kinds = [f"{device.platform} ({device.device_kind})" for device in devices]
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    if devices[0].platform == "cpu" and Path("/dev/nvidia0").exists():
        found += "; there is an NVIDIA GPU that JAX does not use: its installation page says which jax to install"
    return Finding("devices", found)


def _memory() -> Finding:
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(f"{_size(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))} of this machine")
    try:
        if limit := memory_of_a_device():
            found.append(f"{_size(limit)} of each device")
    except RuntimeError:  # there is no device, which _devices says
        pass
    return Finding("memory", ", ".join(found) or "not known")


def _hub(timeout: float) -> Finding:
    """Whether the hub answers, within `timeout` seconds, which looking up its name does not keep to by itself."""
    where = f"{constants.ENDPOINT}, {'with' if huggingface_hub.get_token() else 'without'} a token"
    if huggingface_hub.is_offline_mode():
        return Finding("hub", f"{where}: HF_HUB_OFFLINE is set, so only what is in the cache is used")
    said = [f"no answer in {timeout:g} seconds"]

    def ask() -> None:
        begun = time.monotonic()
        try:
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=timeout)
            said.append(f"answers in {time.monotonic() - begun:.2f} s")
        except Exception as error:  # a wrong address or proxy raises errors of many kinds, and none may end the command
            said.append(f"cannot be reached ({first_line(error)}); what is in the cache works")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return Finding("hub", f"{where}: {said[-1]}")


def _caches(timeout: float) -> Iterator[Finding]:
    programs = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folders = {
        "models and data": Path(constants.HF_HUB_CACHE),
        "programs": Path(programs) if programs else None if os.environ.get(SWITCH) == "off" else chosen(os.environ),
    }
    for name, folder in folders.items():
        what = f"cache of {name}"
        if folder is None:
            yield Finding(what, f"off, as {SWITCH} says")
            continue
        if not can_be_written(folder):
            variable = "HF_HUB_CACHE" if name != "programs" else SWITCH
            yield Finding(what, str(folder), f"it cannot be written; set {variable} to a folder that can")
            continue
        size, whole = _held(folder, timeout)
        yield Finding(what, f"{folder}, {'' if whole else 'more than '}{_size(size)}")


def _held(folder: Path, timeout: float) -> tuple[int, bool]:
    """The bytes of the files in a folder, without those that links lead to, and whether there was time for all."""
    until, total = time.monotonic() + timeout, 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{path}/{name}").st_size
            except OSError:  # another process deleted it
                continue
        if time.monotonic() > until:
            return total, False
    return total, True


def _size(number: int) -> str:
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"
