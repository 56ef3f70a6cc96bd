"""Metrics by name, and stored predictions scored by scikit-learn's own scorers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer, get_scorer_names, log_loss, roc_auc_score

from offline_tune.data.metrics import check_metric, resolve_metric, score_predictions, shown_metrics
from offline_tune.errors import MetricError
from offline_tune.task import Metric, TaskKind

BINARY, MULTICLASS, REGRESSION = TaskKind.BINARY, TaskKind.MULTICLASS, TaskKind.REGRESSION


def fitting(kind):
    names = []
    for name in get_scorer_names():
        try:
            names.append(resolve_metric(name, kind).name)
        except MetricError:
            continue
    return names


def problem(kind, n_rows=120):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(n_rows, 3))
    score = X @ [1.0, -2.0, 0.5] + generator.normal(size=n_rows)
    if kind is REGRESSION:
        return X, np.exp(score / 4)
    return X, np.digitize(score, [0.0] if kind is BINARY else [-1.0, 1.0])


def probabilities(n_rows, n_classes):
    return np.random.default_rng(1).dirichlet(np.ones(n_classes), n_rows)


@pytest.mark.parametrize("name", fitting(REGRESSION))
def test_stored_numbers_score_as_the_fitted_regressor_does(name):
    X, y = problem(REGRESSION)
    model = LinearRegression().fit(X, y)
    y = y + 3.0
    model.intercept_ += 3.0  # positive predictions, which the deviances need
    expected = get_scorer(name)(model, X, y)
    assert score_predictions(resolve_metric(name, REGRESSION), y, model.predict(X)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", [BINARY, MULTICLASS])
def test_stored_probabilities_score_as_the_fitted_classifier_does(kind):
    X, y = problem(kind)
    model = LogisticRegression().fit(X, y)
    predictions = model.predict_proba(X)
    for name in set(fitting(kind)) - {"average_precision", "top_k_accuracy"}:
        expected = get_scorer(name)(model, X, y)
        assert score_predictions(resolve_metric(name, kind), y, predictions, len(model.classes_)) == pytest.approx(
            expected
        )


def test_ranking_by_probabilities_gives_the_average_precision_of_the_decision_function():
    X, y = problem(BINARY)
    model = LogisticRegression().fit(X, y)
    expected = get_scorer("average_precision")(model, X, y)
    metric = resolve_metric("ap", BINARY)
    assert score_predictions(metric, y, model.predict_proba(X), 2) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (None, BINARY, Metric("neg_log_loss", "predict_proba")),
        (None, REGRESSION, Metric("neg_root_mean_squared_error", "predict")),
        ("auc", BINARY, Metric("roc_auc", "decision_function")),
        ("AUC", MULTICLASS, Metric("roc_auc_ovr", "predict_proba")),
        ("logloss", MULTICLASS, Metric("neg_log_loss", "predict_proba")),
        ("log-loss", BINARY, Metric("neg_log_loss", "predict_proba")),
        ("rmse", REGRESSION, Metric("neg_root_mean_squared_error", "predict")),
        ("mean_absolute_error", REGRESSION, Metric("neg_mean_absolute_error", "predict")),
        ("balanced accuracy", MULTICLASS, Metric("balanced_accuracy", "predict")),
        ("brier", BINARY, Metric("neg_brier_score", "predict_proba")),
    ],
)
def test_short_names_mean_scorers(name, kind, expected):
    assert resolve_metric(name, kind) == expected


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("acuracy", BINARY, "must be the name of a scikit-learn scorer, got 'acuracy'; did you mean 'accuracy'"),
        ("", BINARY, "must be the name of a scikit-learn scorer, got ''"),
        ("r2", BINARY, "must fit a binary task, got 'r2'; use for instance neg_log_loss"),
        ("rmse", MULTICLASS, "must fit a multiclass task, got 'neg_root_mean_squared_error'"),
        ("roc_auc", MULTICLASS, "must fit a multiclass task, got 'roc_auc'; use for instance roc_auc_ovr"),
        ("f1", MULTICLASS, "must fit a multiclass task, got 'f1'; use for instance f1_macro"),
        ("f1_samples", BINARY, "must fit a binary task, got 'f1_samples'"),
        (
            "accuracy",
            REGRESSION,
            "must fit a regression task, got 'accuracy'; use for instance neg_root_mean_squared_error",
        ),
        ("rand_score", MULTICLASS, "must fit a multiclass task, got 'rand_score'"),
    ],
)
def test_a_metric_that_is_unknown_or_does_not_fit_is_refused(name, kind, message):
    with pytest.raises(MetricError, match=message):
        resolve_metric(name, kind)


def test_every_scorer_fits_some_task_or_is_for_clusters_or_label_sets():
    left_out = set(get_scorer_names()) - {name for kind in TaskKind for name in fitting(kind)}
    assert all(name.endswith("_samples") or name in _CLUSTER_SCORERS for name in left_out)


_CLUSTER_SCORERS = {
    "adjusted_mutual_info_score", "adjusted_rand_score", "completeness_score", "fowlkes_mallows_score",
    "homogeneity_score", "mutual_info_score", "normalized_mutual_info_score", "rand_score", "v_measure_score",
}  # fmt: skip


@pytest.mark.parametrize("kind", list(TaskKind))
def test_shown_metrics_leave_out_the_optimised_one(kind):
    optimised = resolve_metric(None, kind)
    names = [metric.name for metric in shown_metrics(kind, optimised)]
    assert optimised.name not in names
    assert set(names) | {optimised.name} == {metric.name for metric in shown_metrics(kind)}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_every_metric_scores_rows_that_lack_classes(labels):
    y = np.array(labels)
    for name in fitting(MULTICLASS):
        score = score_predictions(resolve_metric(name, MULTICLASS), y, probabilities(len(y), 4), 4)
        assert np.isfinite(score) or len(set(labels)) == 1


def test_log_loss_is_told_the_classes_that_do_not_occur():
    y, predictions = np.array([0, 2, 0, 2]), probabilities(4, 3)
    expected = -log_loss(y, predictions, labels=[0, 1, 2])
    assert score_predictions(resolve_metric(None, MULTICLASS), y, predictions, 3) == pytest.approx(expected)


def test_roc_auc_is_taken_over_the_classes_that_occur():
    y, predictions = np.array([0, 2] * 10), probabilities(20, 3)
    among = predictions[:, 2] / (predictions[:, 0] + predictions[:, 2])
    score = score_predictions(resolve_metric("roc_auc_ovr", MULTICLASS), y, predictions, 3)
    assert score == pytest.approx(roc_auc_score(y == 2, among))


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "d2_brier_score"])
def test_a_metric_of_one_class_alone_is_nan(name):
    assert np.isnan(score_predictions(resolve_metric(name, BINARY), np.zeros(5, int), probabilities(5, 2), 2))


def test_predictions_that_are_not_finite_score_nan():
    assert np.isnan(score_predictions(resolve_metric("r2", REGRESSION), np.arange(3.0), np.array([0, np.inf, 2])))
    assert np.isnan(score_predictions(resolve_metric(None, BINARY), np.array([0, 1]), np.full((2, 2), np.nan), 2))


def test_single_precision_and_rows_off_one_are_put_right():
    y, predictions = np.array([0, 1, 2] * 5), probabilities(15, 3)
    expected = score_predictions(resolve_metric(None, MULTICLASS), y, predictions, 3)
    half = score_predictions(resolve_metric(None, MULTICLASS), y, (predictions * 0.5).astype(np.float32), 3)
    assert half == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(score_predictions(resolve_metric("auc", MULTICLASS), y, np.zeros((15, 3)), 3))


def test_a_metric_that_the_values_forbid_is_refused():
    metric = resolve_metric("msle", REGRESSION)
    with pytest.raises(
        MetricError, match=r"the metric neg_mean_squared_log_error must be defined .* use another --metric"
    ):
        check_metric(metric, np.array([1.0, -2.0, 3.0]))
    check_metric(metric, np.array([1.0, 2.0, 3.0]))
    check_metric(resolve_metric(None, BINARY), np.array([0, 1, 1]), 2)
