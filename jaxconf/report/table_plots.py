"""The figures of a neuron table by name, as methods: what `NeuronTable.plot` returns."""

from dataclasses import dataclass
from typing import Any

from jaxconf.report.figures import FIGURES
from jaxconf.report.plot_style import HOVER
from jaxconf.report.plots import PLOTS, hover_texts
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind

BOXES: dict[Kind, str] = {"entropy": "figure_2c", "frequency": "figure_3c"}


@dataclass(frozen=True)
class TablePlots:
    """The figures of a neuron table.

    Each method returns a matplotlib Figure, which a notebook shows and `savefig` saves, or with `interactive=True` a
    Plotly one, which has the numbers of a neuron on hover. Losses and entropies are in nats. The figures are those of
    the report; the numbers in brackets are the paper's (Stolfo et al. 2024).
    """

    table: NeuronTable

    def entropy_and_prediction(self, interactive: bool = False) -> Any:
        """Mean |change of entropy| by ablation against how often the most likely token changes [Figure 1]."""
        return self._drawn("figure_1", interactive)

    def norm_and_logit_var(self, interactive: bool = False) -> Any:
        """LogitVar against the norm of the output weights [Figure 2a]."""
        return self._drawn("figure_2a", interactive)

    def loss_changes(self, kind: Kind = "entropy", interactive: bool = False) -> Any:
        """|Change of loss| at single positions, total and with the norm frozen [Figure 2c].

        With `kind="frequency"`, total and with the frequency direction frozen [Figure 3c].
        """
        return self._drawn(BOXES[kind], interactive)

    def null_space(self, interactive: bool = False) -> Any:
        """Singular values of the unembedding, its null space, and the neurons that write into it [Figure 2d]."""
        return self._drawn("figure_2d", interactive)

    def mediation(self, interactive: bool = False) -> Any:
        """Share of the effect through the norm's scale against the weights' share in the null space [Figure 2e]."""
        return self._drawn("figure_2e", interactive)

    def entropy_and_frequency(self, interactive: bool = False) -> Any:
        """Divergence of the output from the token frequencies against its entropy, by position [Figure 3a]."""
        return self._drawn("figure_3a", interactive)

    def token_frequency(self, interactive: bool = False) -> Any:
        """Share of the effect along the frequency direction against the change of the divergence [Figure 3b]."""
        return self._drawn("figure_3b", interactive)

    def nulls(self, interactive: bool = False) -> Any:
        """How many neurons, and how many random directions, reach a mediated share."""
        return self._drawn("figure_nulls", interactive)

    def _drawn(self, name: str, interactive: bool) -> Any:
        if not interactive:
            return FIGURES[name](self.table)
        figure, texts = PLOTS[name](self.table), hover_texts(self.table)
        # On the page of the report, the points of all figures share one list of texts. Here a figure stands alone.
        for trace in figure.data:
            if trace.hovertemplate == HOVER and trace.customdata is not None:
                trace.text = [texts[row] for row in trace.customdata]
        return figure
