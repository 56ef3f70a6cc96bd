"""Drawing tokens from logits, among those that a grammar allows.

Notation: r rows of logits (r, n_vocab) float32; n draws, each from one row; allowed (m,) int32 ids; x (n, m) the logits
of the allowed tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DecodingError
from offline_tune.llm.contract import Sampling

_BLOCK = 1 << 16  # logits that are summed up at once: a quarter of a megabyte, which a processor keeps close by
_PLAIN = Sampling()


class Draw(NamedTuple):
    """One drawn token, with what the model thought of it (see `Completion`).

    Attributes:
        token: its id.
        logprob: among the allowed tokens.
        raw_logprob: among all tokens.
        rejected: probability of the tokens that were not allowed.
    """

    token: int
    logprob: float
    raw_logprob: float
    rejected: float


class Totals:
    """The log of the sum of exponentials of all logits of a row, in memory that is used again and again."""

    def __init__(self, n_vocab: int) -> None:
        self._scratch = np.empty((max(1, _BLOCK // n_vocab), n_vocab), np.float32)

    def of(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """(r,) natural logs; NaN or infinite where a row has no finite answer."""
        found = np.empty(len(logits))
        at_once = len(self._scratch)
        for start in range(0, len(logits), at_once):
            block = logits[start : start + at_once]
            scratch = self._scratch[: len(block)]
            highest = block.max(axis=1)
            with np.errstate(over="ignore", invalid="ignore"):  # too far apart for float32, or no numbers at all
                np.subtract(block, highest[:, None], out=scratch)
            np.exp(scratch, out=scratch)
            found[start : start + at_once] = highest + np.log(scratch.sum(axis=1), dtype=np.float64)
        return found


def draw(
    logits: NDArray[np.float32],
    totals: NDArray[np.float64],
    rows: NDArray[np.intp],
    allowed: NDArray[np.int32],
    sampling: Sampling,
    generators: Sequence[np.random.Generator],
) -> list[Draw]:
    """Draw one of the same allowed tokens for each generator.

    A generator gives one number, or none where there is no choice or at temperature 0.

    Args:
        logits: (r, n_vocab).
        totals: (r,) of these rows (see `Totals`).
        rows: (n,) places in `logits`, each draw's own.
        allowed: (m,), ascending.
        sampling: how to draw.
        generators: n.

    Raises:
        DecodingError: nothing is allowed, or the logits are not numbers.
    """
    _check_allowed(allowed, logits.shape[1])
    x = logits[rows[:, None], allowed].astype(np.float64)
    total, highest = totals[rows], x.max(axis=1, keepdims=True)
    if not math.isfinite(total.sum() + highest.sum()):
        raise _not_numbers(logits)
    x -= highest
    weights = np.exp(x).cumsum(axis=1)
    chosen = _choose(x, weights, sampling, generators)
    taken = x[np.arange(len(x)), chosen] + highest[:, 0]
    mass = np.log(weights[:, -1]) + highest[:, 0]
    # few numbers from here on, and Python's own arithmetic is faster than numpy's for few
    return list(map(_draw, allowed[chosen].tolist(), taken.tolist(), mass.tolist(), total.tolist()))


def _draw(token: int, taken: float, mass: float, total: float) -> Draw:
    """The draw of a token by the logs of its weight, of that of all allowed tokens, and of all tokens."""
    share, logprob = min(mass - total, 0.0), min(taken - mass, 0.0)
    return Draw(token, logprob, logprob + share, -math.expm1(share))


def _choose(
    x: NDArray[np.float64],
    weights: NDArray[np.float64],
    sampling: Sampling,
    generators: Sequence[np.random.Generator],
) -> NDArray[np.intp]:
    """The place of each draw's token.

    Args:
        x: (n, m) logits, the highest of each row 0.
        weights: (n, m) their exponentials, added up.
        sampling: how to draw.
        generators: n.
    """
    if sampling.temperature == 0 or x.shape[1] == 1:
        return np.asarray(x.argmax(axis=1))
    if sampling != _PLAIN:
        with np.errstate(over="ignore"):  # at the least temperatures all but the best lie beyond a double
            weights = np.exp(_cut(x, sampling) / sampling.temperature).cumsum(axis=1)
    numbers = np.array([generator.random() for generator in generators])
    whole = weights[:, -1]
    # below the sum, though the product may be rounded up to it: behind lie tokens without any weight
    reached = np.minimum(numbers * whole, np.nextafter(whole, 0.0))
    return np.asarray((weights <= reached[:, None]).sum(axis=1))


def _cut(x: NDArray[np.float64], sampling: Sampling) -> NDArray[np.float64]:
    """`x` with those that min_p and top_p cut at minus infinity; the highest stays."""
    if sampling.min_p > 0:
        x = np.where(x >= np.log(sampling.min_p), x, -np.inf)
    if sampling.top_p < 1:
        order = np.argsort(-x, axis=1, kind="stable")
        reached = np.exp(np.take_along_axis(x, order, axis=1)).cumsum(axis=1)
        enough = (reached < sampling.top_p * reached[:, -1:]).sum(axis=1, keepdims=True)
        kept = np.empty(x.shape, np.bool_)
        np.put_along_axis(kept, order, np.arange(x.shape[1]) <= enough, axis=1)
        x = np.where(kept, x, -np.inf)
    return x


def _check_allowed(allowed: NDArray[np.int32], n_vocab: int) -> None:
    if allowed.size == 0:
        raise DecodingError("the grammar must allow a token, got none; it cannot be written with this vocabulary")
    if allowed[0] < 0 or allowed[-1] >= n_vocab:
        raise DecodingError(
            f"the grammar must allow tokens 0 to {n_vocab - 1}, got {int(allowed[0])} to {int(allowed[-1])}; "
            "it was made for another model"
        )


def _not_numbers(logits: NDArray[np.float32]) -> DecodingError:
    row = logits[np.argmin(np.isfinite(logits).all(axis=1))]
    return DecodingError(
        "the model must give numbers as logits, got "
        f"{int(np.count_nonzero(np.isnan(row)))} of {row.size} that are NaN or none that is finite; "
        "its weights are damaged: restore the file or choose another model"
    )
