"""Metrics are scikit-learn's scorers, by name; a stored prediction is scored by the real scorer.

Short names are understood: auc, logloss, cross_entropy, brier, acc, mcc, ap, rmse, mse, mae, medae, mape, msle, rmsle,
and every scorer without its "neg_". `auc` means roc_auc for two classes and roc_auc_ovr for more.
"""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names

from offline_tune.data.wording import quoted, suggestion
from offline_tune.errors import MetricError
from offline_tune.task import Metric, TaskKind

Predictions = NDArray[np.float32] | NDArray[np.float64]

_DEFAULTS = {
    TaskKind.BINARY: "neg_log_loss",
    TaskKind.MULTICLASS: "neg_log_loss",
    TaskKind.REGRESSION: "neg_root_mean_squared_error",
}
_SHOWN = {
    TaskKind.BINARY: ("accuracy", "balanced_accuracy", "roc_auc", "f1", "neg_log_loss"),
    TaskKind.MULTICLASS: ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc_ovr", "neg_log_loss"),
    TaskKind.REGRESSION: ("r2", "neg_mean_absolute_error", "neg_root_mean_squared_error"),
}
_ALIASES = {
    "acc": "accuracy",
    "ap": "average_precision",
    "bal_acc": "balanced_accuracy",
    "balanced_acc": "balanced_accuracy",
    "brier": "neg_brier_score",
    "cross_entropy": "neg_log_loss",
    "logloss": "neg_log_loss",
    "mae": "neg_mean_absolute_error",
    "mape": "neg_mean_absolute_percentage_error",
    "mcc": "matthews_corrcoef",
    "medae": "neg_median_absolute_error",
    "mse": "neg_mean_squared_error",
    "msle": "neg_mean_squared_log_error",
    "nll": "neg_log_loss",
    "pr_auc": "average_precision",
    "r2_score": "r2",
    "rmse": "neg_root_mean_squared_error",
    "rmsle": "neg_root_mean_squared_log_error",
}
_FOR_REGRESSION = frozenset(
    (
        "d2_absolute_error_score",
        "explained_variance",
        "neg_max_error",
        "neg_mean_absolute_error",
        "neg_mean_absolute_percentage_error",
        "neg_mean_gamma_deviance",
        "neg_mean_poisson_deviance",
        "neg_mean_squared_error",
        "neg_mean_squared_log_error",
        "neg_median_absolute_error",
        "neg_root_mean_squared_error",
        "neg_root_mean_squared_log_error",
        "r2",
    )
)
_FOR_CLUSTERS = frozenset(
    (
        "adjusted_mutual_info_score",
        "adjusted_rand_score",
        "completeness_score",
        "fowlkes_mallows_score",
        "homogeneity_score",
        "mutual_info_score",
        "normalized_mutual_info_score",
        "rand_score",
        "v_measure_score",
    )
)
_RANKING = ("roc_auc", "average_precision")
_INSTEAD = {"roc_auc": "roc_auc_ovr", "f1": "f1_macro", "precision": "precision_macro", "recall": "recall_macro"}


def resolve_metric(name: str | None, kind: TaskKind) -> Metric:
    """The scorer that a name means for a kind of task; None means the default.

    Raises:
        MetricError: no scorer has this name, or it does not fit the kind of task.
    """
    scorer = _DEFAULTS[kind] if name is None else _scorer_name(name, kind)
    if not _fits(scorer, kind):
        better = _INSTEAD.get(scorer) if kind is TaskKind.MULTICLASS else None
        fitting = better or _DEFAULTS[kind]
        raise MetricError(f"the metric must fit a {kind.value} task, got {quoted(scorer)}; use for instance {fitting}")
    return Metric(scorer, _response(scorer, kind))


def shown_metrics(kind: TaskKind, optimised: Metric | None = None) -> tuple[Metric, ...]:
    """The metrics worth seeing beside the optimised one."""
    names = (name for name in _SHOWN[kind] if optimised is None or name != optimised.name)
    return tuple(resolve_metric(name, kind) for name in names)


def check_metric(metric: Metric, y: NDArray[np.generic], n_classes: int = 0) -> None:
    """Refuse a metric that cannot score this target at all, such as a log error of negative numbers.

    Args:
        metric: what would be computed.
        y: encoded target, shape (n,).
        n_classes: number of classes; 0 for regression.

    Raises:
        MetricError: the scorer refuses even the simplest predictions (the mean, or the class shares).
    """
    simplest = np.full(len(y), y.mean()) if n_classes == 0 else np.bincount(y, minlength=n_classes) / len(y)
    score_predictions(metric, y, simplest if n_classes == 0 else np.tile(simplest, (len(y), 1)), n_classes)


def score_predictions(
    metric: Metric, y_true: NDArray[np.generic], predictions: Predictions, n_classes: int = 0
) -> float:
    """The scorer's value for predictions made elsewhere; greater is better.

    Args:
        metric: what to compute.
        y_true: encoded target, shape (n,).
        predictions: shape (n,) for regression; class probabilities, shape (n, n_classes), for classification.
        n_classes: number of classes; 0 for regression.

    Returns:
        The score; NaN where a prediction is not finite, or the metric is not defined for these rows (ROC AUC with one
        class; folds never hold out fewer than two). A class that does not occur in `y_true` is no obstacle: log loss
        is told all labels, and ROC AUC and average precision of several classes are taken over those that occur.

    Raises:
        MetricError: the scorer refuses these values, such as a log error of negative predictions.
    """
    values = np.asarray(predictions, dtype=np.float64)
    if not np.isfinite(values).all():
        return float("nan")
    try:
        # Scorers warn where one part lacks a class; that is told by NaN, or by the score.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if n_classes == 0:
                return float(get_scorer(metric.name)(_StoredNumbers(values), values, y_true))
            return _score_classes(metric, np.asarray(y_true), _normalised(values), n_classes)
    except ValueError as error:
        raise MetricError(
            f"the metric {metric.name} must be defined for these values, got {quoted(error, 120)}; use another --metric"
        ) from None


class _StoredNumbers(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A fitted regressor that gives back what it was handed, whatever it is asked about."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values

    def predict(self, X: object) -> NDArray[np.float64]:
        return self.values


class _StoredProbabilities(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier that gives back probabilities (n, c), and remembers what it was last asked for."""

    def __init__(self, probabilities: NDArray[np.float64], classes: NDArray[np.int64]) -> None:
        self.probabilities = probabilities
        self.classes_ = classes
        self.response = ""

    def predict_proba(self, X: object) -> NDArray[np.float64]:
        self.response = "predict_proba"
        return self.probabilities

    def predict(self, X: object) -> NDArray[np.int64]:
        self.response = "predict"
        labels: NDArray[np.int64] = self.classes_[self.probabilities.argmax(axis=1)]
        return labels

    def decision_function(self, X: object) -> NDArray[np.float64]:
        self.response = "decision_function"
        if len(self.classes_) == 2:
            return self.probabilities[:, 1] - self.probabilities[:, 0]
        return self.probabilities


def _score_classes(
    metric: Metric, y_true: NDArray[np.int64], probabilities: NDArray[np.float64], n_classes: int
) -> float:
    scorer = get_scorer(metric.name)
    present = np.unique(y_true)
    stored = _StoredProbabilities(probabilities, np.arange(n_classes))
    if len(present) == n_classes or metric.needs == "predict":
        return float(scorer(stored, probabilities, y_true))
    if len(present) < 2 and metric.name.startswith((*_RANKING, "d2_")):
        return float("nan")
    if metric.name.startswith(_RANKING):
        among = _StoredProbabilities(_normalised(probabilities[:, present]), np.arange(len(present)))
        return float(scorer(among, probabilities, present.searchsorted(y_true)))
    # Labels are no option of the scorer itself: it passes them on only where metadata may be routed.
    with sklearn.config_context(enable_metadata_routing=True):
        return float(scorer(stored, probabilities, y_true, labels=np.arange(n_classes)))


def _normalised(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to one in float64, as the scorers demand; a row of zeros becomes uniform."""
    totals = probabilities.sum(axis=1, keepdims=True)
    uniform = np.full_like(probabilities, 1.0 / probabilities.shape[1])
    np.divide(probabilities, totals, out=uniform, where=totals > 0)
    return uniform


def _scorer_name(name: str, kind: TaskKind) -> str:
    known = get_scorer_names()
    folded = name.strip().casefold().replace("-", "_").replace(" ", "_")
    if folded in ("auc", "rocauc"):
        return "roc_auc_ovr" if kind is TaskKind.MULTICLASS else "roc_auc"
    for candidate in (folded, _ALIASES.get(folded, ""), f"neg_{folded}"):
        if candidate in known:
            return candidate
    todo = suggestion(name, known)
    raise MetricError(f"the metric must be the name of a scikit-learn scorer, got {quoted(name)}; {todo}")


@cache
def _fits(scorer: str, kind: TaskKind) -> bool:
    if kind is TaskKind.REGRESSION or scorer in _FOR_REGRESSION:
        return kind is TaskKind.REGRESSION and scorer in _FOR_REGRESSION
    return scorer not in _FOR_CLUSTERS and _response(scorer, kind) != ""


@cache
def _response(scorer: str, kind: TaskKind) -> str:
    """The response that a scorer asks of a model, found by asking it; empty where it refuses the kind of task."""
    if kind is TaskKind.REGRESSION:
        return "predict"
    n_classes = 2 if kind is TaskKind.BINARY else 3
    y_true = np.tile(np.arange(n_classes), 4)
    # Right for three rows in four, so that no denominator is zero.
    guessed = np.where(np.arange(len(y_true)) < 3 * n_classes, y_true, (y_true + 1) % n_classes)
    probabilities = np.full((len(y_true), n_classes), 0.1)
    probabilities[np.arange(len(y_true)), guessed] = 1.0 - 0.1 * (n_classes - 1)
    stored = _StoredProbabilities(probabilities, np.arange(n_classes))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", UserWarning)
            get_scorer(scorer)(stored, probabilities, y_true)
    except (ValueError, UserWarning):
        return ""
    return stored.response
