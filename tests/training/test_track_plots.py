"""The figures of a track by name."""

import pytest
from planted_track import planted_rows, write_in_world

from jaxconf.training.figures import FIGURES
from jaxconf.training.optimum_figures import OF_OPTIMUM
from jaxconf.training.track_plots import TrackPlots


@pytest.mark.usefixtures("drawn_quickly")
def test_every_figure_of_a_track_is_a_method(tmp_path):
    track = write_in_world(tmp_path, planted_rows())
    methods = [name for name in vars(TrackPlots) if not name.startswith("_")]
    drawn = [getattr(track.plot, name)().get_suptitle() for name in methods]
    assert sorted(drawn) == sorted(draw(track).get_suptitle() for draw in (FIGURES | OF_OPTIMUM).values())
