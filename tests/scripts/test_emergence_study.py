"""The tables of the study of emergence."""

import numpy as np
import pandas as pd
from emergence_study import rows

from jaxconf.training.grid_table import OUTCOMES


def test_a_cell_has_the_value_of_every_seed():
    values = {name: [2.5, 3.0625, np.nan, 1e-3 * place] for place, name in enumerate(OUTCOMES)}
    table = pd.DataFrame({"weight_decay": [0.0, 0.0, 1.0, 1.0], **values})
    first, second = rows(table, ["weight_decay"])
    assert first == "| weight_decay = 0.0 |" + " 2.5, 3.062 |" * len(OUTCOMES)
    assert second.startswith("| weight_decay = 1.0 | –, 0 | –, 0.001 |")
