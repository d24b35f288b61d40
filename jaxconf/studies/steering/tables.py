"""The tables of steering: every dose on both parts of the text, and each treatment at the dose chosen on one of them.

Letters: u unit, r resample.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxconf.analysis.calibration import calibration, calibration_change
from jaxconf.analysis.intervals import resamples
from jaxconf.studies.steering.doses import Found
from jaxconf.studies.steering.treatments import TEMPERATURE, Treatment

PARTS = ("chosen on", "held out")
MEASURES = ("ece", "loss", "entropy", "accuracy", "brier")


def table_of_doses(found: Found, treatments: Sequence[Treatment], held: np.ndarray) -> pd.DataFrame:
    """The table `Steering.doses`. `held`: bool [u]."""
    rows = []
    for one in treatments:
        for dose in one.doses:
            sums = _at(found, one, dose)
            of_parts = calibration(sums, np.stack([~held, held]).astype(float))
            for number, part in enumerate(PARTS):
                place = {"treatment": one.name, "kind": one.kind, "beside": one.beside, "dose": dose, "part": part}
                place |= {"component": one.component}
                rows.append({**place, **{name: float(of_parts[name][number]) for name in MEASURES}})
    return pd.DataFrame(rows)


def table_of_best(
    found: Found, treatments: Sequence[Treatment], doses: pd.DataFrame, held: np.ndarray, draws: int, seed: int
) -> pd.DataFrame:
    """The table `Steering.best`. `doses`: from `table_of_doses`."""
    unsteered = _of(found[TEMPERATURE, 1.0], held)
    resampled = resamples(unsteered["bin_count"].sum(1), draws, seed)
    rows = []
    for one in treatments:
        own = doses[(doses["treatment"] == one.name) & (doses["part"] == PARTS[0])]
        # Of doses that are equally good, the one that changes least is taken.
        order = own.assign(far=(own["dose"] - one.neutral).abs()).sort_values(["ece", "far"])
        dose = float(order["dose"].iloc[0])
        row = {"treatment": one.name, "kind": one.kind, "beside": one.beside, "dose": dose, "component": one.component}
        changes = calibration_change(_of(_at(found, one, dose), held), unsteered, resampled)
        for name in MEASURES:
            of = changes[name]._asdict()
            row |= {f"{name}{key.removeprefix('value')}": x for key, x in of.items() if key.startswith("value")}
            row |= {f"{name}_{key}": x for key, x in of.items() if key.startswith("change")}
        rows.append(row)
    return pd.DataFrame(rows)


def _at(found: Found, one: Treatment, dose: float) -> Mapping[str, np.ndarray]:
    return found[(TEMPERATURE, 1.0) if dose == one.neutral else (one.name, dose)]


def _of(sums: Mapping[str, np.ndarray], held: np.ndarray) -> dict[str, np.ndarray]:
    return {name: x[held] for name, x in sums.items()}
