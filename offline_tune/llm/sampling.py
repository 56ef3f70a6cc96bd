"""Drawing one token from logits, among those that a grammar allows.

Pure functions. Notation: logits (n_vocab,) float32; allowed (n,) int32 ids; x (n,) their logits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DecodingError
from offline_tune.llm.contract import Sampling


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


def draw(logits: NDArray[np.float32], allowed: NDArray[np.int32], sampling: Sampling, rng: np.random.Generator) -> Draw:
    """Draw one allowed token; takes one number from `rng`, none where there is no choice or at temperature 0.

    Raises:
        DecodingError: nothing is allowed, or the logits are not numbers.
    """
    if allowed.size == 0:
        raise DecodingError("the grammar must allow a token, got none; it cannot be written with this vocabulary")
    if allowed.min() < 0 or allowed.max() >= logits.size:
        raise DecodingError(
            f"the grammar must allow tokens 0 to {logits.size - 1}, got {int(allowed.min())} to {int(allowed.max())}; "
            "it was made for another model"
        )
    x = logits[allowed].astype(np.float64)
    total, mass = _log_sum_exp(logits), _log_sum_exp(x)
    if not (np.isfinite(total) and np.isfinite(mass)):
        raise DecodingError(
            "the model must give numbers as logits, got "
            f"{int(np.count_nonzero(np.isnan(logits)))} of {logits.size} that are NaN or none that is finite; "
            "its weights are damaged: restore the file or choose another model"
        )
    chosen = _choose(x - mass, sampling, rng)
    logprob, raw = float(x[chosen] - mass), float(x[chosen] - total)
    return Draw(int(allowed[chosen]), logprob, min(raw, logprob), max(0.0, -float(np.expm1(mass - total))))


def _choose(logprobs: NDArray[np.float64], sampling: Sampling, rng: np.random.Generator) -> int:
    if sampling.temperature == 0 or logprobs.size == 1:
        return int(np.argmax(logprobs))
    scaled = _cut(logprobs, sampling) / sampling.temperature
    weights = np.cumsum(np.exp(scaled - scaled.max()))
    chosen = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
    # the product may round up to the sum itself, which lies behind the last token that has any weight
    return min(chosen, int(np.searchsorted(weights, weights[-1], side="left")))


def _cut(logprobs: NDArray[np.float64], sampling: Sampling) -> NDArray[np.float64]:
    """`logprobs` with those that min_p and top_p cut at minus infinity."""
    if sampling.min_p > 0:
        logprobs = np.where(logprobs >= logprobs.max() + np.log(sampling.min_p), logprobs, -np.inf)
    if sampling.top_p < 1:
        order = np.argsort(-logprobs, kind="stable")
        reached = np.cumsum(np.exp(logprobs[order]))
        enough = int(np.searchsorted(reached, sampling.top_p * reached[-1])) + 1
        logprobs = logprobs.copy()
        logprobs[order[enough:]] = -np.inf
    return logprobs


def _log_sum_exp(x: NDArray[np.float32] | NDArray[np.float64]) -> float:
    """Natural log of the sum of exponentials; NaN or infinite where `x` has no finite answer."""
    top = x.max()
    if not np.isfinite(top):
        return float(top)
    with np.errstate(over="ignore"):  # a difference beyond float32 is as good as infinite
        return float(top) + float(np.log(np.exp(x - top).sum(dtype=np.float64)))
