"""Changes and ratios of sets, and their intervals, are those of plain resampling. Letters: b sequence, c set."""

import numpy as np

from jaxconf.measure.named_sets import NamedSet, table_of_sets

SETS = [NamedSet("a", "set", [(0, 1), (0, 2)]), NamedSet("b", "random", [(1, 3)])]


def test_changes_and_ratios_with_their_intervals_by_definition() -> None:
    rng = np.random.default_rng(0)
    before, change = 1 + rng.random((30, 1)), rng.standard_normal((30, 2))
    table = table_of_sets(SETS, {"loss": change}, {"loss": before}, count=5, draws=4000, seed=0).set_index("set")
    drawn = rng.integers(0, 30, (4000, 30))
    for c, name in enumerate("ab"):
        after = before[:, 0] + change[:, c]
        plain = {
            "loss": (change[:, c].mean() / 5, change[drawn, c].mean(1) / 5),
            "loss_ratio": (after.sum() / before.sum(), after[drawn].sum(1) / before[drawn, 0].sum(1)),
        }
        for column, (estimate, resampled) in plain.items():
            np.testing.assert_allclose(table.loc[name, column], estimate, atol=1e-6)
            ends = table.loc[name, [f"{column}_lo", f"{column}_hi"]].astype(float)
            np.testing.assert_allclose(ends, np.quantile(resampled, [0.025, 0.975]), atol=0.1 * resampled.std())
    assert table.columns.tolist()[:3] == ["kind", "members", "size"]
    assert table["members"].tolist() == ["0.1,0.2", "1.3"]


def test_there_is_no_ratio_to_nothing() -> None:
    table = table_of_sets(SETS, {"loss": np.ones((4, 2))}, {"loss": np.zeros((4, 1))}, count=1, draws=9, seed=0)
    assert table["loss"].eq(1).all()
    assert table[["loss_ratio", "loss_ratio_lo", "loss_ratio_hi"]].isna().all(axis=None)
