"""The table of the script that trains a larger model of plain text."""

import numpy as np
import pandas as pd
from text_alone import lines

from jaxconf.training.emergence import Emergence


def test_the_table_has_the_steps_at_which_effects_were_measured():
    steps = pd.DataFrame({"step": [0, 4, 9], "loss": [9.0, 8.0, 7.0], "rho_chance": 0.5})
    neurons = pd.DataFrame(
        {
            "step": [0, 0, 4, 4, 9, 9],
            "rho": [0.1, 0.2, 0.6, 0.7, 0.4, 0.6],
            "ln_mediated": [0.1, 0.2, np.nan, np.nan, 0.5, 0.3],
            "is_entropy_neuron": [False, False, False, False, False, True],
            "is_frequency_neuron": [False, False, False, False, True, True],
        }
    )
    said = lines(Emergence(steps, neurons, None, {}), 1.25, 1000)
    assert "1,000 steps, 1.0 million tokens, 1.2 hours" in said[0]
    assert said[4:] == ["| 0 | 9.00 | 0 | 0 | 0 | – | 0.20 |", "| 9 | 7.00 | 1 | 2 | 1 | 0.30 | 0.50 |"]
