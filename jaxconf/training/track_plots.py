"""The figures of a track by name, as methods: what `Emergence.plot` returns."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from jaxconf.training.emergence import Emergence
from jaxconf.training.events_figure import emergence_events
from jaxconf.training.figures import emergence_first, emergence_rho, emergence_series, emergence_spectrum
from jaxconf.training.optimum_figures import emergence_optimum, emergence_optimum_sets


@dataclass(frozen=True)
class TrackPlots:
    """The figures of a track, each over the steps of the training.

    Each method returns a matplotlib Figure, which a notebook shows and `savefig` saves. Losses and entropies are in
    nats.
    """

    track: Emergence

    def rho(self) -> Figure:
        """The share of every neuron's output weights in the null space, and its chance level."""
        return emergence_rho(self.track)

    def spectrum(self) -> Figure:
        """The singular values of the unembedding; those of the null space are red."""
        return emergence_spectrum(self.track)

    def first(self) -> Figure:
        """Whether neurons first have rho above chance or first have a large ln_mediated."""
        return emergence_first(self.track)

    def series(self) -> Figure:
        """Losses, entropy, calibration, norms, effects and counts."""
        return emergence_series(self.track)

    def events(self) -> Figure:
        """What happens, in its order."""
        return emergence_events(self.track)

    def levels(self) -> Figure:
        """The entropy at each level of noise, and the best possible one."""
        return emergence_optimum(self.track)

    def level_sets(self) -> Figure:
        """The entropy against the best one at each level at the last step, with and without the named neurons."""
        return emergence_optimum_sets(self.track)
