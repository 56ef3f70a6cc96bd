"""A classical surrogate beside the model's: a Gaussian process on the unit cube.

Numbers are places on [0, 1], choices one-hot, inactive parameters sit in the middle, so that two candidates of one
branch differ only in what that branch has. Expected improvement as in Jones, Schonlau and Welch (1998).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offline_tune.history import History
from offline_tune.space import SearchSpace, Values

_CUT = 4.0  # times as far from the best as the median is
LEAST = 4  # scored trials below which a surrogate knows nothing


def features(space: SearchSpace, candidates: Sequence[Values]) -> NDArray[np.float64]:
    """(k, d) coordinates: one for a number, one for each choice of a categorical."""
    return np.array([_coordinates(space, values) for values in candidates])


class Surrogate:
    """A Gaussian process fitted to a history's scores.

    Args:
        history: at least `LEAST` scored trials.
        seed: for the restarts of the fit.
    """

    def __init__(self, history: History, seed: int) -> None:
        # Imported here: the command line's --help must not wait for scikit-learn.
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        self._x = features(history.space, [o.values for o in history.scored])
        self._y = _tamed(np.array([o.score for o in history.scored]))
        kernel = ConstantKernel(1.0, (0.1, 10.0)) * Matern(0.5, (0.1, 5.0), nu=2.5) + WhiteKernel(1e-2, (1e-5, 0.5))
        self._process = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a length scale at its bound is a fine answer here
            self._process.fit(self._x, self._y)

    def pretend(self, point: NDArray[np.float64]) -> None:
        """Take a candidate (d,) as tried with its own prediction (kriging believer), so that the next differs."""
        x = point[None]
        self._x, self._y = np.vstack([self._x, x]), np.append(self._y, self._process.predict(x))
        self._process.set_params(kernel=self._process.kernel_, optimizer=None)
        self._process.fit(self._x, self._y)

    def expected_improvement(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(k, d) -> (k,) expected improvement over the best score, in standard deviations of the history's scores."""
        from scipy.stats import norm

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tiny negative variances are cut to zero by the library, with a warning
            mean, deviation = self._process.predict(points, return_std=True)
        deviation = np.maximum(deviation, 1e-9)
        z = (mean - self._y.max()) / deviation
        return np.asarray(deviation * (z * norm.cdf(z) + norm.pdf(z)))


def _tamed(scores: NDArray[np.float64]) -> NDArray[np.float64]:
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
            point += [float(index == chosen) for index in range(parameter.lattice.size)]
        else:
            point.append(parameter.to_unit(values[parameter.name]) if is_active else 0.5)
    return point
