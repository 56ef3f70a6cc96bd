"""Families: one contract for all, and the space that spans them."""

import subprocess
import sys

import numpy as np
import pytest
from contracts_families import TRAIN, FamilyContract, a_card, a_table, a_task, fitted, quick, space_for

from offline_tune.errors import SpaceError, UsageError
from offline_tune.evaluator.families import FAMILIES, default_of, families_for, family, space_of, split_values
from offline_tune.evaluator.families.estimators import VendorClassifier
from offline_tune.evaluator.families.svm import MOST_EXACT_ROWS
from offline_tune.evaluator.pipeline import predictions
from offline_tune.space import Condition
from offline_tune.task import TaskKind


class TestLinear(FamilyContract):
    name = "linear"


class TestKNN(FamilyContract):
    name = "knn"


class TestSVM(FamilyContract):
    name = "svm"


class TestRandomForest(FamilyContract):
    name = "random_forest"


class TestExtraTrees(FamilyContract):
    name = "extra_trees"


class TestHistGradientBoosting(FamilyContract):
    name = "hist_gradient_boosting"


class TestXGBoost(FamilyContract):
    name = "xgboost"


class TestLightGBM(FamilyContract):
    name = "lightgbm"


class TestCatBoost(FamilyContract):
    name = "catboost"


class TestMLP(FamilyContract):
    name = "mlp"


class TestTabularMLP(FamilyContract):
    name = "tabular_mlp"


class TestTabularResNet(FamilyContract):
    name = "tabular_resnet"


class TestTabM(FamilyContract):
    name = "tabm"


def test_every_family_keeps_the_contract():
    assert {contract.name for contract in FamilyContract.__subclasses__()} == set(FAMILIES)


@pytest.mark.parametrize("encoding", ["the default", "target"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_class_that_a_fold_lacks_has_probability_zero(name, encoding):
    X, y = a_table(TaskKind.MULTICLASS)
    values = default_of(name, space_for(name, TaskKind.MULTICLASS))
    if encoding == "target":
        values[f"{name}.encoding"] = encoding
    model = fitted(name, TaskKind.MULTICLASS, values, np.flatnonzero(y[:TRAIN] != 1))
    found = predictions(model, X[TRAIN:], a_task(TaskKind.MULTICLASS))
    right = found.argmax(axis=1) == y[TRAIN:]
    assert found[:, 1].max() == 0
    assert right[y[TRAIN:] != 1].mean() > 0.7


@pytest.mark.parametrize("kind", [TaskKind.BINARY, TaskKind.MULTICLASS], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_class_with_one_row_is_borne(name, kind):
    _, y = a_table(kind)
    rows = np.append(np.flatnonzero(y[:90] != 0), np.flatnonzero(y == 0)[:1])
    model = fitted(name, kind, quick(name, kind, np.random.default_rng(2)), rows)
    assert list(model.classes_) == list(range(len(a_task(kind).classes)))


def test_no_vendor_is_loaded_with_the_spaces():
    probe = (
        "import sys, offline_tune.evaluator.families as f\n"
        "print([v for v in ('sklearn', 'pandas', 'xgboost', 'lightgbm', 'catboost') if v in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_misspelt_family_gets_a_hint():
    with pytest.raises(UsageError, match=r"--family must name a known family, got 'xgbost'; did you mean 'xgboost'\?"):
        family("xgbost")


def test_an_unknown_family_gets_the_list():
    with pytest.raises(UsageError, match=r"got '{{{{.*\.\.\.; choose one of auto, linear, lightgbm"):
        family("{" * 10_000)


def test_no_family_is_refused():
    with pytest.raises(UsageError, match="--family needs at least one name, got none; choose auto or one of linear"):
        families_for([], TaskKind.BINARY, a_card())


def test_named_families_come_once_and_cheap_ones_first():
    found = families_for(["catboost", "linear", "catboost"], TaskKind.BINARY, a_card())
    assert [each.name for each in found] == ["linear", "catboost"]


def test_auto_takes_all_families_on_small_data_that_the_pool_can_train_quickly():
    found = [each.name for each in families_for("auto", TaskKind.REGRESSION, a_card())]
    assert found == [name for name in FAMILIES if name not in ("tabular_mlp", "tabular_resnet", "tabm")]


def test_auto_leaves_out_what_is_hopeless_on_many_rows():
    found = {each.name for each in families_for(["auto"], TaskKind.BINARY, a_card(n_rows=200_000))}
    assert {"knn", "svm"}.isdisjoint(found)


def test_one_family_still_has_the_root():
    space = space_for("knn", TaskKind.BINARY)
    assert space.parameters[0].name == "family"
    assert space.parameters[0].is_fixed


def test_a_nested_condition_is_prefixed_like_its_parent():
    space = space_of([family("linear"), family("xgboost")], a_card())
    assert space.by_name["xgboost.max_depth"].when == Condition("xgboost.grow_policy", ("depthwise",))
    assert space.by_name["xgboost.grow_policy"].when == Condition("family", ("xgboost",))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_default_of_each_family_lies_in_the_space_of_all(name):
    space = space_of(tuple(FAMILIES.values()), a_card())
    values = default_of(name, space)
    space.check(values)
    assert split_values(values)[0] == name


def test_the_space_opens_with_the_default_of_its_first_family():
    space = space_of((family("xgboost"), family("linear")), a_card())
    assert space.default == default_of("xgboost", space)


def test_a_family_outside_the_space_has_no_default_there():
    with pytest.raises(SpaceError, match="the space must offer the family, got 'svm'; choose one that it lists"):
        default_of("svm", space_for("knn", TaskKind.BINARY))


def test_a_candidate_without_a_family_is_refused():
    with pytest.raises(SpaceError, match="a candidate must name a known family, got None; set 'family'"):
        split_values({"knn.n_neighbors": 3})


def test_a_candidate_with_parameters_of_another_family_is_refused():
    with pytest.raises(SpaceError, match=r"a candidate of knn may hold only its own parameters, got 'svm.C'"):
        split_values({"family": "knn", "svm.C": 1.0})


@pytest.mark.parametrize(
    "card",
    [
        a_card(n_rows=1, n_features=1),
        a_card(n_rows=10**7, n_features=10**4),
        a_card(TaskKind.MULTICLASS, n_classes=500),
        a_card(TaskKind.REGRESSION, n_features=0),
    ],
)
def test_the_space_of_all_families_exists_for_any_size(card):
    space = space_of(tuple(FAMILIES.values()), card)
    rng = np.random.default_rng(0)
    for _ in range(20):
        space.check(space.sample(rng))


def test_a_preprocessing_choice_needs_its_columns():
    plain = a_card(n_categorical=0, n_date=0, n_features=2, missing_share=0.0, max_cardinality=0)
    names = {parameter.name for parameter in family("linear").parameters(plain)}
    assert names.isdisjoint({"encoding", "imputing", "text_ngrams", "select"})
    assert "scaling" in names


def test_columns_of_two_labels_leave_no_encoding_to_choose():
    names = {parameter.name for parameter in family("xgboost").parameters(a_card(max_cardinality=2))}
    assert "encoding" not in names


def test_target_encoding_is_not_offered_for_many_classes():
    card = a_card(TaskKind.MULTICLASS, n_classes=40, imbalance=0.1)
    (encoding,) = (p for p in family("xgboost").parameters(card) if p.name == "encoding")
    assert "target" not in encoding.distribution.choices


def test_many_classes_get_fewer_rounds():
    most = {
        c: next(p for p in family("xgboost").parameters(a_card(n_classes=c)) if p.name == "n_estimators")
        for c in (2, 30)
    }
    assert (most[2].distribution.high, most[30].distribution.high) == (1000, 100)


def test_even_classes_are_not_weighed():
    names = {parameter.name for parameter in family("xgboost").parameters(a_card(imbalance=0.5))}
    assert "class_weight" not in names


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("knn", "mlp")])
def test_balanced_weights_raise_the_rare_class(name):
    X, y = a_table(TaskKind.BINARY)
    rows = np.sort(np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:25]]))
    space = space_for(name, TaskKind.BINARY)
    smooth = {f"{name}.min_samples_leaf": 8} if f"{name}.min_samples_leaf" in space.by_name else {}
    plain = {**default_of(name, space), **smooth}
    shares = [
        fitted(name, TaskKind.BINARY, {**plain, f"{name}.class_weight": weight}, rows).predict_proba(X)[:, 1].mean()
        for weight in ("none", "balanced")
    ]
    assert shares[1] > shares[0]


@pytest.mark.parametrize("kind", [TaskKind.BINARY, TaskKind.REGRESSION], ids=str)
def test_many_rows_get_an_approximate_kernel(kind):
    space = space_of([family("svm")], a_card(kind, n_rows=MOST_EXACT_ROWS + 1))
    values = default_of("svm", space)
    assert "svm.n_components" in values
    model = fitted("svm", kind, values)
    assert "nystroem" in model[-1].estimator_.named_steps


def test_a_regressor_is_indifferent_to_the_unit_of_the_target():
    X, y = a_table(TaskKind.REGRESSION)
    model = fitted("mlp", TaskKind.REGRESSION)
    in_millions = fitted("mlp", TaskKind.REGRESSION).fit(X.iloc[:200], y[:200] / 1e6)
    assert np.allclose(model.predict(X), in_millions.predict(X) * 1e6, rtol=1e-3)


def test_a_fold_with_one_class_is_refused():
    model = VendorClassifier(estimator=None)
    with pytest.raises(ValueError, match="a classifier needs rows of at least two classes, got one; use other folds"):
        model.fit(np.zeros((3, 1)), np.array([1, 1, 1]))


@pytest.mark.parametrize("name", ["tabular_mlp", "tabular_resnet", "tabm"])
def test_a_network_without_its_library_is_refused_at_once(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(
        UsageError, match=f"--family {name} needs torch, got none installed; run: pip install torch, or"
    ):
        families_for(name, TaskKind.BINARY, a_card())
