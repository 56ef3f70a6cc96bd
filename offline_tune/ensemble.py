"""Several models that decide together, chosen on the predictions each made for rows it had not seen.

Notation: m members, n rows, c classes. `oof` holds out-of-fold predictions: (m, n) numbers for regression, (m, n, c)
probabilities for classification. A row that is NaN for any member (time splits have no held-out prediction for the
first rows) is left out everywhere.

Knows nothing of how the members were trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import UsageError
from offline_tune.task import TaskKind

Oof = NDArray[np.float32] | NDArray[np.float64]
Target = NDArray[np.int64] | NDArray[np.float64]
Weights = NDArray[np.float64]
Score = Callable[[Target, Any], float]
Fold = tuple[NDArray[Any], NDArray[Any]]

FOLDS = 5  # of a stack's own cross-validation, where the caller gives none
LONGEST_START = 10  # members of a greedy ensemble's first mean, at most
LEAST_PROBABILITY = 1e-6  # log-odds are finite between this and its complement


@dataclass(frozen=True, eq=False)
class Stack:
    """A model over the members' predictions.

    Attributes:
        meta: fitted on features (n, m) for regression or (n, m * c) for classification, members outermost; multinomial
            logistic regression with encoded labels in `classes_`, or ridge regression.
        score: of its own cross-validation.
        oof: its cross-validated predictions, shape (n,) or (n, c); NaN where there are none.
    """

    meta: Any
    score: float
    oof: NDArray[np.float64]


def greedy_ensemble(oof: Oof, y: Target, score: Score, size: int = 25) -> Weights:
    """Weights of a mean of members, by ensemble selection with replacement.

    Starts from the best mean of the k members that score highest alone, k up to 10, and adds one member at a time,
    any of them again if it helps most. Of all ensembles on the way the best is kept, the smallest of equals, so it
    scores no worse here than the best member alone. Takes about m * size calls of `score`.

    Reference: Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models", ICML 2004.

    Args:
        oof: out-of-fold predictions of the members.
        y: targets, shape (n,).
        score: of targets and predictions, greater is better; NaN counts as the worst.
        size: members of the ensemble, repetitions counted.

    Returns:
        Weights of shape (m,), at least 0, sum 1.

    Raises:
        UsageError: no member, a size below 1, or no row that all members predicted.
    """
    if size < 1:
        raise UsageError(f"an ensemble needs a size of at least 1, got {size}; raise it")
    members, target = _complete(oof, y)
    judge = _judge(score, target)
    counts, total = _sorted_start(members, judge, size)
    best, best_score = counts.copy(), judge(total / counts.sum())
    while counts.sum() < size:
        after = int(counts.sum()) + 1
        scores = [judge((total + member) / after) for member in members]
        chosen = int(np.argmax(scores))
        counts[chosen] += 1
        total = total + members[chosen]
        if scores[chosen] > best_score:
            best, best_score = counts.copy(), scores[chosen]
    return np.asarray(best / best.sum())


def vote(oof: Oof, y: Target, score: Score, top: int = 5) -> Weights:
    """Equal weights over the `top` members that score highest alone, the first of equals; shape (m,).

    Raises:
        UsageError: no member, a `top` below 1, or no row that all members predicted.
    """
    if top < 1:
        raise UsageError(f"a vote needs at least 1 member, got {top}; raise it")
    members, target = _complete(oof, y)
    judge = _judge(score, target)
    chosen = _ranking(members, judge)[:top]
    weights = np.zeros(len(members))
    weights[chosen] = 1 / len(chosen)
    return weights


def stack(
    oof: Oof, y: Target, kind: TaskKind, score: Score, seed: int = 0, folds: Sequence[Fold] | None = None
) -> Stack:
    """A linear model over the members' predictions, and an honest score of it.

    Multinomial logistic regression on the log-odds of the members' probabilities, or ridge regression on their
    numbers. Its score is taken on rows of folds that it was not fitted to; the members' predictions are out-of-fold
    already, so no part of it has seen a row's own target.

    Args:
        oof: out-of-fold predictions of the members.
        y: targets, shape (n,); encoded labels for classification.
        kind: what is learnt.
        score: of targets and predictions, greater is better.
        seed: of the folds that are drawn where none are given.
        folds: pairs of row positions (train, held out), such as a data set's own where rows come in groups or in
            time. A fold whose training rows no member predicted is left out.

    Raises:
        UsageError: no member, no row that all members predicted, or no fold that the model could be fitted to.
    """
    members, _ = _complete(oof, y)
    features = _features(oof)
    complete = np.flatnonzero(np.isfinite(features).all(axis=1))
    n_classes = members.shape[2] if kind.is_classification else 0
    drawn = _drawn_folds(complete, y[complete], kind, seed) if folds is None else folds
    found = np.full((len(y), n_classes) if n_classes else len(y), np.nan)
    for train, test in _usable(drawn, complete, y, kind):
        meta = _fitted(features[train], y[train], kind)
        found[test] = _predictions(meta, features[test], n_classes)
    rows = np.isfinite(found).reshape(len(y), -1).all(axis=1)
    if not rows.any():
        raise UsageError(f"a stack needs a fold with training rows of two classes, got {len(y)} rows; use a vote")
    return Stack(
        meta=_fitted(features[complete], y[complete], kind), score=float(score(y[rows], found[rows])), oof=found
    )


def _complete(oof: Oof, y: Target) -> tuple[NDArray[np.float64], Target]:
    """Members and targets at the rows that all members predicted."""
    members = np.asarray(oof, dtype=np.float64)
    if members.ndim not in (2, 3) or not len(members) or members.shape[1] != len(y):
        raise UsageError(
            f"an ensemble needs predictions (members, rows[, classes]) for {len(y)} rows, got shape {members.shape}; "
            "stack those of the trials that succeeded"
        )
    rows = np.isfinite(_features(members)).all(axis=1)
    if not rows.any():
        raise UsageError(f"an ensemble needs rows that all members predicted, got none of {len(y)}; leave a member out")
    return members[:, rows], y[rows]


def _features(members: Oof) -> NDArray[np.float64]:
    """Shape (m, n[, c]) in, (n, m[ * c]) out, members outermost."""
    return np.moveaxis(members, 0, 1).reshape(members.shape[1], -1).astype(np.float64)


def _judge(score: Score, target: Target) -> Callable[[NDArray[np.float64]], float]:
    def judge(predictions: NDArray[np.float64]) -> float:
        found = float(score(target, predictions))
        return -np.inf if np.isnan(found) else found

    return judge


def _ranking(members: NDArray[np.float64], judge: Callable[[NDArray[np.float64]], float]) -> NDArray[np.intp]:
    """Members by their own score, best first, the first of equals before the others."""
    return np.argsort([-judge(member) for member in members], kind="stable")


def _sorted_start(
    members: NDArray[np.float64], judge: Callable[[NDArray[np.float64]], float], size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The best mean of the k best members, the smallest k of equals: counts (m,) and the sum of predictions."""
    ranking = _ranking(members, judge)[: min(size, LONGEST_START)]
    sums = np.cumsum(members[ranking], axis=0)
    scores = [judge(total / (place + 1)) for place, total in enumerate(sums)]
    k = int(np.argmax(scores)) + 1
    counts = np.zeros(len(members), dtype=np.int64)
    counts[ranking[:k]] = 1
    return counts, sums[k - 1]


def _drawn_folds(rows: NDArray[np.intp], target: Target, kind: TaskKind, seed: int) -> list[Fold]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    if kind.is_classification:
        order = order[np.argsort(target[order], kind="stable")]  # dealt out in turn, each class spreads evenly
    fold_of = np.empty(len(rows), dtype=np.int64)
    fold_of[order] = np.arange(len(rows)) % FOLDS
    return [(rows[fold_of != fold], rows[fold_of == fold]) for fold in range(FOLDS)]


def _usable(folds: Sequence[Fold], complete: NDArray[np.intp], y: Target, kind: TaskKind) -> Iterator[Fold]:
    """The folds, narrowed to complete rows, that a model can be fitted to."""
    for train, test in folds:
        known, asked = np.intersect1d(train, complete), np.intersect1d(test, complete)
        if len(asked) and len(np.unique(y[known])) >= (2 if kind.is_classification else 1):
            yield known, asked


def _fitted(features: NDArray[np.float64], target: Target, kind: TaskKind) -> Any:
    from scipy.special import logit
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    if not kind.is_classification:
        return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 7))).fit(features, target)
    bounds = {"a_min": LEAST_PROBABILITY, "a_max": 1 - LEAST_PROBABILITY}
    log_odds = (FunctionTransformer(np.clip, kw_args=bounds), FunctionTransformer(logit))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # members that say the same leave a flat optimum
        return make_pipeline(*log_odds, StandardScaler(), LogisticRegression(max_iter=500)).fit(features, target)


def _predictions(meta: Any, features: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
    if not n_classes:
        return np.asarray(meta.predict(features))
    found = np.zeros((len(features), n_classes))
    found[:, meta.classes_] = meta.predict_proba(features)
    return found
