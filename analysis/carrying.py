"""How well features of positions predict values there: ridge regression of many feature sets, from sums over positions.

Letters: p position, g part of the positions, f feature, c set of features, k feature of a set, y value that is
predicted, u unit, such as a document.

Everything follows from sums of each part of the positions, so the text is read once however many sets, splits and
penalties there are. A set has some of the features; sets that are smaller than others are filled up with features that
do not count. Features are standardised by their mean and standard deviation over the training part. The penalty is on
the coefficients of the standardised features, beside the mean squared error: with P training positions, λ beside the
sum of squared errors is λ/P here. The predictions are compared with the mean of the training part, so that R² is
exactly 0 where nothing is predicted. Sums are float64 on the host.

Source: Zahrivyi, *Causal but Not Carrier* (2026).
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from jaxconf.analysis.moments import CONSTANT

PENALTIES = 10.0 ** np.arange(-6, 2)  # those of which one is chosen for each set and value
RANK = 1e-10  # principal directions whose variance is a smaller share of the largest are left out


class Sums(NamedTuple):
    """Sums over the positions of each part, float64."""

    number: np.ndarray  # g
    features: np.ndarray  # g f
    products: np.ndarray  # g f f
    values: np.ndarray  # g y
    squares: np.ndarray  # g y: of the values
    crossed: np.ndarray  # g f y: of the products of features and values


class Moments(NamedTuple):
    """Means and covariances over some parts; for sets, the features have the axes c k in place of f."""

    number: float  # of positions
    mean: np.ndarray  # f
    covariance: np.ndarray  # f f
    value_mean: np.ndarray  # y
    variance: np.ndarray  # y: of the values
    crossed: np.ndarray  # f y: covariances of features and values


class Fit(NamedTuple):
    """Predictions of values: a constant plus the features times their weights."""

    weights: np.ndarray  # c k y
    constant: np.ndarray  # c y
    penalty: np.ndarray  # c y: the chosen one


def no_sums(parts: int, features: int, values: int) -> Sums:
    """Sums of 0 for `add` to begin with."""
    shapes = (), (features,), (features, features), (values,), (values,), (features, values)
    return Sums(*(np.zeros((parts, *shape)) for shape in shapes))


def add(sums: Sums, features: np.ndarray, values: np.ndarray, part: np.ndarray) -> None:
    """Add positions to the sums in place. `features` [p f], `values` [p y]; `part`: that of each position, int [p]."""
    for g in np.unique(part):
        x, y = (of[part == g].astype(np.float64) for of in (features, values))
        more = (len(x), x.sum(0), x.T @ x, y.sum(0), np.square(y).sum(0), x.T @ y)
        for total, own in zip(sums, more, strict=True):
            total[g] += own


def moments(sums: Sums, parts: Collection[int]) -> Moments:
    """The moments over these parts, which must have a position."""
    number, features, products, values, squares, crossed = (total[list(parts)].sum(0) for total in sums)
    mean, value_mean = features / number, values / number
    return Moments(
        float(number),
        mean,
        products / number - np.outer(mean, mean),
        value_mean,
        squares / number - value_mean**2,
        crossed / number - np.outer(mean, value_mean),
    )


def of_sets(found: Moments, indices: np.ndarray, counts: np.ndarray) -> Moments:
    """The moments of sets of features. `indices`: int [c k]. `counts`: bool [c k], false for those that do not count.

    Of features that do not count, all moments are 0.
    """
    both = counts[:, :, None] & counts[:, None, :]
    return found._replace(
        mean=np.where(counts, found.mean[indices], 0),
        covariance=np.where(both, found.covariance[indices[:, :, None], indices[:, None, :]], 0),
        crossed=np.where(counts[..., None], found.crossed[indices], 0),
    )


def ridge(train: Moments, penalty: float) -> np.ndarray:
    """The weights of ridge regression, [c k y], for the features as they are; `train`: the moments of sets.

    `penalty`: above 0. Features that are constant, up to rounding, have the weight 0.
    """
    variance = np.diagonal(train.covariance, axis1=1, axis2=2)
    varies = variance > (CONSTANT * train.mean) ** 2
    inverse = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)[..., None]  # c k 1
    standardised = train.covariance * inverse * np.swapaxes(inverse, 1, 2)
    penalised = standardised + penalty * np.eye(standardised.shape[-1])
    return np.linalg.solve(penalised, train.crossed * inverse) * inverse


def mean_errors(weights: np.ndarray, train: Moments, test: Moments) -> np.ndarray:
    """The mean squared errors over the test positions of predictions fitted on the training positions, [c y].

    `weights` [c k y], from `ridge`. Both moments are those of sets.
    """
    moved = test.value_mean - train.value_mean - np.einsum("cky,ck->cy", weights, test.mean - train.mean)
    shared = (weights * test.crossed).sum(1)
    own = (weights * (test.covariance @ weights)).sum(1)
    return test.variance + moved**2 - 2 * shared + own


def fit(sums: Sums, parts: Collection[int], indices: np.ndarray, counts: np.ndarray) -> Fit:
    """Ridge regression of every set on the training parts. `indices`, `counts`: as for `of_sets`.

    The penalty of each set and value is the one of PENALTIES with the smallest squared errors, if each training part is
    left out in turn and predicted from the others. Where several are equal, the smallest one is taken.
    """
    errors = np.zeros((len(PENALTIES), len(indices), sums.values.shape[1]))
    for out in parts:
        others, own = [part for part in parts if part != out], moments(sums, [out])
        train, test = (of_sets(found, indices, counts) for found in (moments(sums, others), own))
        for row, penalty in enumerate(PENALTIES):
            errors[row] += own.number * mean_errors(ridge(train, penalty), train, test)
    best = errors.argmin(0)
    train = of_sets(moments(sums, parts), indices, counts)
    weights = np.zeros((*indices.shape, errors.shape[-1]))
    for row, penalty in enumerate(PENALTIES):
        if (best == row).any():
            weights += np.where((best == row)[:, None], ridge(train, penalty), 0)
    return Fit(weights, constants(weights, train), PENALTIES[best])


def constants(weights: np.ndarray, train: Moments) -> np.ndarray:
    """The constants of predictions whose mean over the training part is that of the values, [c y]."""
    return train.value_mean - np.einsum("cky,ck->cy", weights, train.mean)


class Components(NamedTuple):
    """Principal directions of the training part, and the regression of the values on the components along them.

    The components are uncorrelated in the training part, so the coefficients of the first few are the same however many
    more there are.
    """

    directions: np.ndarray  # f k, k = f, in descending order of the variance along them
    coefficients: np.ndarray  # k y

    def first(self, number: int) -> np.ndarray:
        """The weights of the features, [f y], if the values are predicted from the first components alone."""
        return self.directions[:, :number] @ self.coefficients[:number]


def components(train: Moments) -> Components:
    """Principal component regression, by least squares. `train`: moments of features, not of sets."""
    variance, directions = (x[..., ::-1] for x in np.linalg.eigh(train.covariance))
    varies = variance > RANK * variance[0]
    inverse = np.where(varies, 1 / np.where(varies, variance, 1), 0)
    return Components(directions, (directions.T @ train.crossed) * inverse[:, None])


def r2_of_components(found: Components, train: Moments, test: Moments) -> np.ndarray:
    """R² on the test positions from the first component, the first two and so on up to all, [k y]."""
    b = found.coefficients
    moved = (test.value_mean - train.value_mean) - np.cumsum(
        b * (found.directions.T @ (test.mean - train.mean))[:, None], 0
    )
    shared = np.cumsum(b * (found.directions.T @ test.crossed), 0)
    covariance = found.directions.T @ test.covariance @ found.directions
    own = np.stack([_leading(covariance * np.outer(of, of)) for of in b.T], 1)
    without = test.variance + (test.value_mean - train.value_mean) ** 2
    return 1 - (test.variance + moved**2 - 2 * shared + own) / np.where(without > 0, without, np.nan)


def _leading(matrix: np.ndarray) -> np.ndarray:
    """The sum of the leading square of each size, [k]."""
    return np.cumsum(np.cumsum(matrix, 0), 1).diagonal()


def errors_by_unit(errors: np.ndarray, values: np.ndarray, predicted: np.ndarray, unit: np.ndarray) -> None:
    """Add the squared errors of predictions to those of each unit, `errors` [u c y], in place.

    `values` [p y], `predicted` [p c y]. `unit`: that of each position, int [p].
    """
    squared = np.square(predicted - values[:, None])
    for u in np.unique(unit):
        errors[u] += squared[unit == u].sum(0)


def r2(errors: np.ndarray, without: np.ndarray) -> np.ndarray:
    """1 − the squared errors [… c y] over those of the training mean [… y]; NaN where a value does not vary."""
    return 1 - errors / np.where(without > 0, without, np.nan)[..., None, :]


def filled_up(sets: Iterable[Collection[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The `indices` and `counts` of sets of features, as `of_sets` takes them."""
    members = [list(own) for own in sets]
    most = max(map(len, members))
    indices = np.array([own + [0] * (most - len(own)) for own in members])
    return indices, np.array([[True] * len(own) + [False] * (most - len(own)) for own in members])
