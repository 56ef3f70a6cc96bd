"""What every family must do, and the small mixed table to do it on."""

import functools

import numpy as np
import pandas as pd
import pytest

from offline_tune.cards import DataCard
from offline_tune.data.metrics import resolve_metric
from offline_tune.evaluator.families import default_of, family, space_of, split_values
from offline_tune.evaluator.pipeline import build_pipeline, predictions
from offline_tune.task import Column, ColumnKind, Task, TaskKind

CLASSES = {TaskKind.BINARY: ("no", "yes"), TaskKind.MULTICLASS: ("a", "b", "c"), TaskKind.REGRESSION: ()}
KINDS = {
    "width": ColumnKind.NUMERIC,
    "height": ColumnKind.NUMERIC,
    "spare": ColumnKind.BOOLEAN,
    "colour": ColumnKind.CATEGORICAL,
    "sold": ColumnKind.DATE,
}
ROWS, TRAIN = 260, 200


def a_card(kind=TaskKind.BINARY, **changes):
    c = len(CLASSES[kind])
    facts = {
        "kind": kind, "n_rows": TRAIN, "n_features": 5, "n_numeric": 2, "n_categorical": 2, "n_date": 1, "n_classes": c,
        "imbalance": 0.65 if c else 0.0, "missing_share": 0.1, "max_cardinality": 4,
    }  # fmt: skip
    return DataCard(**{**facts, **changes})


def a_task(kind=TaskKind.BINARY, kinds=KINDS):
    columns = tuple(Column(name, column_kind) for name, column_kind in kinds.items())
    return Task(
        name="shop", target="y", kind=kind, metric=resolve_metric(None, kind), classes=CLASSES[kind], columns=columns
    )


@functools.cache
def a_table(kind=TaskKind.BINARY, n=ROWS):
    """A target that depends on a number, a category and a date; a tenth of the cells is missing."""
    rng = np.random.default_rng(7)
    width, colour = rng.normal(size=n), rng.integers(0, 4, n)
    days = rng.integers(0, 2000, n)
    signal = 2 * width + np.array([-2.0, 0.0, 1.0, 2.0])[colour] + days / 1000 + rng.normal(scale=0.3, size=n)
    X = pd.DataFrame(
        {
            "width": width,
            "height": rng.normal(size=n) * 1e6,
            "spare": rng.integers(0, 2, n).astype(float),
            "colour": np.array(["red", "green", "{blue}", 'x"\n'], dtype=object)[colour],
            "sold": pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D"),
        }
    )
    X["colour"] = X["colour"].astype(object)
    for place, (name, empty) in enumerate((("width", np.nan), ("spare", np.nan), ("colour", None), ("sold", pd.NaT))):
        X.loc[np.flatnonzero(np.arange(n) % 11 == place), name] = empty
    c = len(CLASSES[kind])
    y = np.argsort(np.argsort(signal)) * c // n if c else 1e5 + 1e4 * signal
    return X, y


def space_for(name, kind):
    return space_of([family(name)], a_card(kind))


def fitted(name, kind, values=None, rows=slice(0, TRAIN), seed=0):
    X, y = a_table(kind)
    values = values or default_of(name, space_for(name, kind))
    return build_pipeline(values, a_task(kind), seed, len(y[rows])).fit(X.iloc[rows], y[rows])


@functools.cache
def default_model(name, kind):
    return fitted(name, kind)


def quick(name, kind, rng):
    """A random candidate with few trees and few units, so that the test of all families stays short."""
    values = space_for(name, kind).sample(rng)
    large = (".n_estimators", ".hidden_width", ".inner_width")
    return {key: min(value, 50) if key.endswith(large) else value for key, value in values.items()}


def loss(found, y):
    """Squared error, or the Brier score."""
    return np.mean((found - y) ** 2) if found.ndim == 1 else np.mean((found - np.eye(found.shape[1])[y]) ** 2)


@pytest.mark.parametrize("kind", list(TaskKind), ids=str)
class FamilyContract:
    """Subclass with `name`."""

    name: str

    def test_the_default_is_a_writable_candidate(self, kind):
        space = space_for(self.name, kind)
        default = default_of(self.name, space)
        space.check(default)
        assert space.snap(default) == default

    def test_every_parameter_has_a_sentence(self, kind):
        chosen = family(self.name)
        card = a_card(kind, n_rows=50_000, n_text=1, n_features=20)
        assert all(chosen.card.hyperparameters[parameter.name] for parameter in chosen.parameters(card))

    def test_the_default_beats_a_constant(self, kind):
        X, y = a_table(kind)
        found = predictions(default_model(self.name, kind), X.iloc[TRAIN:], a_task(kind))
        shares = np.bincount(y[:TRAIN]) / TRAIN if kind.is_classification else None
        constant = np.full(ROWS - TRAIN, y[:TRAIN].mean()) if shares is None else np.tile(shares, (ROWS - TRAIN, 1))
        assert loss(found, y[TRAIN:]) < 0.8 * loss(constant, y[TRAIN:])

    def test_predictions_have_one_shape(self, kind):
        X, _ = a_table(kind)
        found = predictions(default_model(self.name, kind), X.iloc[TRAIN:], a_task(kind))
        assert found.dtype == np.float32
        assert found.shape == ((ROWS - TRAIN, len(CLASSES[kind])) if kind.is_classification else (ROWS - TRAIN,))
        assert not kind.is_classification or np.allclose(found.sum(axis=1), 1, atol=1e-5)

    def test_random_candidates_train(self, kind):
        X, _ = a_table(kind)
        rng = np.random.default_rng(3)
        for _ in range(2):
            values = quick(self.name, kind, rng)
            found = predictions(fitted(self.name, kind, values, slice(0, 90)), X.iloc[TRAIN:], a_task(kind))
            assert np.isfinite(found).all(), values

    def test_equal_seeds_give_equal_predictions(self, kind):
        X, _ = a_table(kind)
        first, second = default_model(self.name, kind), fitted(self.name, kind)
        assert np.array_equal(*(predictions(model, X.iloc[TRAIN:], a_task(kind)) for model in (first, second)))

    def test_what_was_never_seen_can_be_predicted(self, kind):
        X, _ = a_table(kind)
        strange = X.iloc[TRAIN:].assign(width=np.nan, height=np.inf, colour="{never seen}\n", sold=pd.NaT)
        assert np.isfinite(predictions(default_model(self.name, kind), strange, a_task(kind))).all()

    def test_a_column_that_is_empty_in_a_fold_is_borne(self, kind):
        X, y = a_table(kind)
        empty = X.iloc[:90].assign(width=np.nan, colour=None, sold=pd.NaT)
        empty["colour"] = empty["colour"].astype(object)
        values = quick(self.name, kind, np.random.default_rng(5))
        model = build_pipeline(values, a_task(kind), 0, 90).fit(empty, y[:90])
        assert np.isfinite(predictions(model, X.iloc[TRAIN:], a_task(kind))).all()

    def test_the_candidate_is_all_that_is_read(self, kind):
        values = default_of(self.name, space_for(self.name, kind))
        name, own = split_values(values)
        params = family(name).build(own, kind, 2**63, len(CLASSES[kind])).get_params(deep=False)
        assert params.get("estimator", params.get("values")) is not None
