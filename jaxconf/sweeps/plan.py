"""The plan of a sweep: the memory and time that its cells will need, estimated before any cell is run."""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from jaxconf.measure.inputs import config_of
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.measure.run import Parsed, check, parse
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.runtime.memory import read_size
from jaxconf.runtime.placement import memory_of_a_device, read_mesh
from jaxconf.sweeps.definition import Cells, narrowed, options_of, read_sweep
from jaxconf.sweeps.estimate import Devices, Plan, estimate, sets_again
from jaxconf.sweeps.rates import measured_rates
from jaxconf.sweeps.words import Needs


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """The devices of a worker, and what the cells of a sweep need of them."""

    devices: Devices
    needs: Needs


def plan(
    definition: str | Path,
    *,
    devices: int | None = None,
    device_memory: str | None = None,
    flops: float | None = None,
    exponentials: float | None = None,
) -> SweepPlan:
    """Estimate what memory and time the cells of a sweep need.

    No weights are loaded, and only one config.json of each model is read. `definition`: a TOML file, as for
    `jaxconf.sweep`. `devices`: how many devices a worker has. `device_memory`: the memory of each, such as "80GB".
    `flops`, `exponentials`: the operations of float32 matrix products, and the exponentials of logits, that each device
    does in a second; give both or neither. What is not given is taken from the devices of this process; measuring both
    rates takes some seconds. Raises InputError for a definition that no worker could run, and for numbers out of range.
    """
    cells = [options_of(cell, Path()) for cell in narrowed(read_sweep(Path(definition))).values()]
    parsed = [parse(cell) for cell in cells]
    configs: dict[str, DecoderConfig] = {}
    for cell in cells:
        if cell.model not in configs:  # the first revision's config.json is used for all revisions
            configs[cell.model] = config_of(cell.model, cell.revision, cell.accept)
    found = _devices(devices, device_memory, flops, exponentials)
    needs: collections.Counter[tuple[str, str, Plan]] = collections.Counter()
    for cell, texts in zip(cells, parsed, strict=True):
        needs[Path(cell.model).name, str(cell.layer), _plan_of(configs[cell.model], found, cell, texts)] += 1
    return SweepPlan(found, needs)


class Need(NamedTuple):
    """What a cell needs of a worker."""

    memory: float  # bytes, if one device had to hold all
    devices: int  # at least so many
    seconds: float  # on one device of the rates TYPICAL; only good for comparing cells


TYPICAL = (1e13, 5e10)  # operations and exponentials in a second


def needs(cells: Cells) -> dict[str, Need]:
    """What each cell needs, by its name. No device is touched, and one config.json of each model is read.

    A cell that no estimate can be made for, such as one whose model is missing, needs no memory, and counts as the
    longest: it will fail soon, or else nobody knows.
    """
    found, configs, asked = dict[str, Need](), dict[str, DecoderConfig](), set[tuple[str, str | None]]()
    for name, cell in cells.items():
        options = options_of(cell, Path())
        of, found[name] = (options.model, options.revision), Need(0, 1, math.inf)
        with contextlib.suppress(InputError):
            count = math.prod(read_mesh(options.mesh, 1)) if options.mesh else 1
            found[name] = Need(0, count, math.inf)
            if options.model not in configs and of not in asked:
                asked.add(of)
                configs[options.model] = config_of(*of, options.accept)
            if config := configs.get(options.model):
                one = _plan_of(config, Devices(count, math.inf, *TYPICAL), options, parse(options))
                found[name] = Need(one.peak * count, count, one.seconds)
    return found


def _devices(count: int | None, memory: str | None, flops: float | None, exponentials: float | None) -> Devices:
    """The devices that the arguments describe; what they leave open is taken from the devices of this process."""
    count = jax.device_count() if count is None else count
    rates: Sequence[float] = [rate for rate in (flops, exponentials) if rate is not None]
    if count < 1:
        raise InputError(f"--devices is {count}; give at least 1")
    if len(rates) == 1 or not all(0 < rate < math.inf for rate in rates):
        given = " and ".join(
            f"--{name} is {'not given' if rate is None else f'{rate:g}'}"
            for name, rate in (("flops", flops), ("exponentials", exponentials))
        )
        raise InputError(f"{given}; give both, each above 0, or neither")
    of_each = memory_of_a_device() or math.inf if memory is None else read_size(memory, "--device-memory")
    return Devices(count, of_each, *(rates or measured_rates()))


def _plan_of(config: DecoderConfig, devices: Devices, cell: AnalyzeOptions, parsed: Parsed) -> Plan:
    try:
        layers, tolerance = check(config, cell, parsed)
    except InputError as error:
        raise InputError(f"{cell.model}: {error}") from error
    return estimate(
        config,
        devices,
        tokens=cell.tokens,
        layers=layers,
        adaptive=tolerance is not None,
        frozen=cell.frozen,
        memory=parsed.memory,
        nulls=cell.nulls,
        again=sets_again(parsed.sets, cell.controls, parsed.single),
        sizes=read_mesh(cell.mesh, devices.count) if cell.mesh else None,
    )
