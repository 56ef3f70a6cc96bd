"""A classical surrogate beside the model's: a Gaussian process on the unit cube.

Numbers are places on [0, 1], choices one-hot, inactive parameters sit in the middle, so that two candidates of one
branch differ only in what that branch has. Matern 5/2 with a relevance for each parameter, fitted by the most probable
hyperparameters (priors as in Optuna's GPSampler); expected improvement as in Jones, Schonlau and Welch (1998), its
logarithm as in Ament et al. (2023). Written here, since scikit-learn's has no priors, takes half a second where this
takes ten milliseconds, and Optuna's needs torch.

Notation: n trials, k points, d coordinates, p parameters that differ among the trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offline_tune.history import History
from offline_tune.space import SearchSpace, Values

Array = NDArray[np.float64]

LEAST = 4  # scored trials below which a surrogate knows nothing
_CUT = 4.0  # times as far from the best as the median is
_CHOICE = float(np.sqrt(0.5))  # of a one-hot coordinate: two choices are one apart
_ROUNDS = 60  # of the fit
_JITTER = 1e-9
_LEAST_NOISE = 1e-6
_BOUNDS = (-8.0, 6.0)  # of the logarithms of relevances, variance and noise
_FAR = -20.0  # standard deviations below the best, from where the improvement is known by its asymptote alone


def features(space: SearchSpace, candidates: Sequence[Values]) -> Array:
    """(k, d) coordinates: one for a number, one for each choice of a categorical."""
    return np.array([_coordinates(space, values) for values in candidates])


def owners(space: SearchSpace) -> NDArray[np.int64]:
    """(d,) the place of each coordinate's parameter among the free ones."""
    free = [p for p in space.parameters if not p.is_fixed]
    widths = [p.lattice.size if p.is_categorical else 1 for p in free]
    return np.repeat(np.arange(len(free)), widths)


class Surrogate:
    """A Gaussian process fitted to a history's scores.

    Args:
        history: at least `LEAST` scored trials.
    """

    def __init__(self, history: History) -> None:
        scored = history.scored
        self._x = features(history.space, [o.values for o in scored])
        self._y = _tamed(np.array([o.score for o in scored]))
        owner = owners(history.space)
        differs = np.ptp(self._x, axis=0) > 0
        free = np.unique(owner[differs])
        self._width = np.zeros(len(owner), bool)
        self._width[np.isin(owner, free)] = True
        self._owner = np.searchsorted(free, owner[self._width])
        self._relevance, self._variance, self._noise = self._fit(len(free))

    def pretend(self, point: Array) -> None:
        """Take a candidate (d,) as tried with its own prediction (kriging believer), so that the next differs."""
        mean, _ = self.predict(point[None])
        self._x, self._y = np.vstack([self._x, point[None]]), np.append(self._y, mean)
        self.__dict__.pop("_solved", None)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """(k, d) -> mean and standard deviation (k,), in standard deviations of the history's scores."""
        from scipy.linalg import solve_triangular

        root, weights = self._solved
        shared = self._variance * _matern(self._distances(points, self._x))
        explained = solve_triangular(root, shared.T, lower=True, check_finite=False)
        variance = self._variance - (explained**2).sum(axis=0)
        return shared @ weights, np.sqrt(np.maximum(variance, 1e-12))

    def log_improvement(self, points: Array) -> Array:
        """(k, d) -> (k,) logarithm of the expected improvement over the best score."""
        mean, deviation = self.predict(points)
        return log_expected_improvement((mean - self._y.max()) / deviation) + np.log(deviation)

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        """The lower Cholesky root of the covariance, and the weights of the trials."""
        from scipy.linalg import cho_solve, cholesky

        covariance = self._variance * _matern(self._distances(self._x, self._x))
        covariance[np.diag_indices_from(covariance)] += self._noise + _JITTER
        root = cholesky(covariance, lower=True, check_finite=False)
        return root, cho_solve((root, True), self._y, check_finite=False)

    def _distances(self, a: Array, b: Array) -> Array:
        """(k, n) squared distances, parameters weighed by their relevance."""
        weight = np.sqrt(self._relevance[self._owner])
        a, b = a[:, self._width] * weight, b[:, self._width] * weight
        return np.asarray(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0))

    def _fit(self, p: int) -> tuple[Array, float, float]:
        """The most probable relevances (p,), variance and noise."""
        from scipy.optimize import minimize

        # (p, n, n) squared distances by parameter
        gaps = (self._x[:, None, self._width] - self._x[None, :, self._width]) ** 2
        apart = np.zeros((p, len(self._y), len(self._y)))
        for coordinate, parameter in enumerate(self._owner):
            apart[parameter] += gaps[:, :, coordinate]
        starts = [np.r_[np.full(p, start), 0.0, np.log(1e-2)] for start in (0.0, 1.5)]
        fits = [
            minimize(
                _loss,
                s,
                (apart, self._y),
                "L-BFGS-B",
                jac=True,
                bounds=[_BOUNDS] * (p + 2),
                options={"maxiter": _ROUNDS},
            )
            for s in starts
        ]
        best = min(fits, key=lambda fit: fit.fun).x
        return np.exp(best[:p]), float(np.exp(best[p])), float(np.exp(best[p + 1]) + _LEAST_NOISE)


def log_expected_improvement(z: Array) -> Array:
    """Logarithm of the mean of max(z + e, 0) for a standard normal e, stable far below zero; same shape."""
    from scipy.special import log_ndtr, ndtr

    density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.log(np.exp(density) + z * ndtr(z))
        middle = density + np.log1p(z * np.exp(log_ndtr(z) - density))
        far = density - 2 * np.log(np.abs(z))
    return np.asarray(np.where(z > -1.0, near, np.where(z > _FAR, middle, far)))


def _loss(theta: Array, apart: Array, y: Array) -> tuple[float, Array]:
    """Negative log posterior of the logarithms of relevances, variance and noise, and its gradient."""
    from scipy.linalg import cho_solve, cholesky

    p, n = len(apart), len(y)
    relevance, variance, noise = np.exp(theta[:p]), np.exp(theta[p]), np.exp(theta[p + 1])
    squared = np.tensordot(relevance, apart, 1)
    distance = np.sqrt(5 * squared)
    decay = np.exp(-distance)
    correlation = (1 + distance + 5 / 3 * squared) * decay
    covariance = variance * correlation
    covariance[np.diag_indices(n)] += noise + _LEAST_NOISE + _JITTER
    root = cholesky(covariance, lower=True, check_finite=False)
    inverse = cho_solve((root, True), np.eye(n), check_finite=False)
    weights = inverse @ y
    loss = 0.5 * y @ weights + np.log(np.diag(root)).sum()
    pull = 0.5 * (inverse - np.outer(weights, weights))
    slope = pull * (-5 / 6 * variance * (1 + distance) * decay)
    gradient = np.empty(p + 2)
    gradient[:p] = relevance * np.tensordot(apart, slope, 2)
    gradient[p] = variance * (pull * correlation).sum()
    gradient[p + 1] = noise * np.trace(pull)
    # priors: relevances near 1 or both ends shunned, variance Gamma(2, 1), noise Gamma(1.1, 30)
    loss += (0.1 / relevance + 0.1 * relevance).sum() + variance - np.log(variance) + 30 * noise - 0.1 * np.log(noise)
    gradient[:p] += -0.1 / relevance + 0.1 * relevance
    gradient[p] += variance - 1
    gradient[p + 1] += 30 * noise - 0.1
    return float(loss), gradient


def _matern(squared: Array) -> Array:
    distance = np.sqrt(5 * squared)
    return np.asarray((1 + distance + 5 / 3 * squared) * np.exp(-distance))


def _tamed(scores: Array) -> Array:
    """(n,) of mean 0 and deviation 1, cut below, so that the few terrible trials do not set the scale."""
    scores = scores / (np.abs(scores).max() or 1.0)
    gap = scores.max() - scores
    unlike = gap[gap > 0] if gap.any() else np.ones(1)
    y = -np.minimum(gap / (np.median(gap) or np.median(unlike)), _CUT)
    return np.asarray((y - y.mean()) / (y.std() or 1.0))


def _coordinates(space: SearchSpace, values: Values) -> list[float]:
    active = {p.name for p in space.active(values)}
    point: list[float] = []
    for parameter in space.parameters:
        if parameter.is_fixed:
            continue
        is_active = parameter.name in active
        if parameter.is_categorical:
            chosen = parameter.lattice.index(values[parameter.name]) if is_active else -1
            point += [_CHOICE * (index == chosen) for index in range(parameter.lattice.size)]
        else:
            point.append(parameter.to_unit(values[parameter.name]) if is_active else 0.5)
    return point
