"""Exported models: equal predictions after reading, and nothing read that was not written."""

import json
import os
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import skops.io
from contracts_evaluator import CLASSES, a_task
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from offline_tune.cards import DataCard
from offline_tune.ensemble import stack
from offline_tune.errors import ArtifactError, OutputError
from offline_tune.evaluator import boosters
from offline_tune.evaluator.artifact import Member, load_model, read_member, save_model, write_member
from offline_tune.evaluator.families import FAMILIES, default_of, space_of
from offline_tune.evaluator.fitted import FittedModel
from offline_tune.evaluator.member import from_skops
from offline_tune.evaluator.pipeline import build_pipeline, predictions
from offline_tune.task import Column, ColumnKind, TaskKind

N = 90
COLUMNS = (
    Column("size", ColumnKind.NUMERIC, n_unique=N),
    Column('a "quoted"\n{name}', ColumnKind.NUMERIC, n_unique=N, n_missing=9),
    Column("colour", ColumnKind.CATEGORICAL, n_unique=3, n_missing=10),
    Column("day", ColumnKind.DATE, n_unique=N),
    Column("remark", ColumnKind.TEXT, n_unique=4),
)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    holes = np.where(np.arange(N) % 10, rng.normal(size=N), np.nan)
    return pd.DataFrame(
        {
            "size": rng.normal(size=N),
            'a "quoted"\n{name}': holes,
            "colour": rng.choice(np.array(["red", "green", "blue", None], dtype=object), N),
            "day": pd.date_range("2020-01-01", periods=N),
            "remark": rng.choice(np.array(["hello world", "good bye", "so the cat sat", None], dtype=object), N),
        }
    )


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A small export, and the model that was written to it."""
    folder = tmp_path_factory.mktemp("exports") / "model"
    task, X, y = numbers()
    members = [Member(fitted(C, X, y), weight, {"C": C}) for C, weight in ((0.1, 1.0), (1.0, 3.0), (9.0, 0.0))]
    save_model(folder, members, task, record={"seed": 7})
    return folder


def numbers(kind=TaskKind.BINARY):
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(N, 3)), columns=["u", "v", "w"])
    y = (X["u"] > 0).to_numpy().astype(int) if kind.is_classification else X["u"].to_numpy()
    return a_task(kind), X, y


def fitted(C, X, y):
    model = LogisticRegression(C=C) if np.issubdtype(y.dtype, np.integer) else Ridge(alpha=C)
    return Pipeline([("model", model)]).fit(X, y)


def target(kind):
    c = len(CLASSES[kind])
    rng = np.random.default_rng(2)
    return rng.integers(0, c, N) if c else rng.normal(size=N)


def candidates(name, kind):
    """The default of a family, and a drawn one that leaves categories to the model if it can; both kept small."""
    card = DataCard(
        kind=kind, n_rows=N, n_features=5, n_numeric=2, n_categorical=1, n_text=1, n_date=1, missing_share=0.1,
        n_classes=len(CLASSES[kind]), imbalance=0.9,
    )  # fmt: skip
    space, rng = space_of([FAMILIES[name]], card), np.random.default_rng(3)
    native = {f"{name}.encoding": "native"} if "native" in FAMILIES[name].needs.encodings else {}
    for values in (default_of(name, space), {**space.sample(rng), **native}):
        yield {key: 20 if key.endswith("n_estimators") else value for key, value in values.items()}


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_predicts_the_same_after_reading(name, kind, table, tmp_path):
    task, y = a_task(kind, COLUMNS), target(kind)
    for place, values in enumerate(candidates(name, kind)):
        pipeline = build_pipeline(values, task, place, N).fit(table, y)
        write_member(tmp_path / str(place), pipeline)
        again = read_member(tmp_path / str(place))
        np.testing.assert_array_equal(predictions(again, table, task), predictions(pipeline, table, task))


def test_a_weighted_mean_is_kept(export):
    _, X, y = numbers()
    model = load_model(export)
    expected = [predictions(fitted(C, X, y), X, model.task) for C in (0.1, 1.0)]
    np.testing.assert_array_equal(model.predict_proba(X), np.tensordot([0.25, 0.75], np.stack(expected), axes=1))


def test_what_an_export_knows_comes_back(export):
    model = load_model(export)
    assert model.task == a_task()
    assert model.values == ({"C": 0.1}, {"C": 1.0})
    assert model.record == {"seed": 7}
    assert model.notes == ()


def test_labels_are_those_of_the_task(export):
    _, X, y = numbers()
    labels = load_model(export).predict(X)
    assert set(labels) == {"no", "yes"}
    assert np.mean((labels == "yes") == y) > 0.9


def test_columns_may_come_in_any_order_and_with_others(export):
    _, X, _ = numbers()
    model = load_model(export)
    np.testing.assert_array_equal(model.predict_proba(X[["w", "u", "v"]].assign(extra=1)), model.predict_proba(X))


def test_cells_may_be_text_as_read_from_a_file(export):
    _, X, _ = numbers()
    model = load_model(export)
    np.testing.assert_array_equal(model.predict_proba(X.map(repr)), model.predict_proba(X))


def test_no_rows_give_no_predictions(export):
    model = load_model(export)
    assert model.predict_proba(numbers()[1].head(0)).shape == (0, 2)
    assert model.predict(numbers()[1].head(0)).shape == (0,)


@pytest.mark.parametrize("kind", [TaskKind.BINARY, TaskKind.REGRESSION])
def test_a_stack_predicts_the_same_after_reading(kind, tmp_path):
    task, X, y = numbers(kind)
    pipelines = [fitted(C, X, y) for C in (0.01, 1.0)]
    meta = stack(np.stack([predictions(p, X, task) for p in pipelines]), y, kind, lambda y, found: 0.0).meta
    save_model(tmp_path / "model", [Member(p) for p in pipelines], task, meta=meta)
    before = FittedModel(task=task, pipelines=tuple(pipelines), weights=np.array([0.5, 0.5]), meta=meta)
    np.testing.assert_array_equal(load_model(tmp_path / "model").predict(X), before.predict(X))


def test_members_from_folders_and_from_memory_make_the_same_export(tmp_path):
    task, X, y = numbers()
    write_member(tmp_path / "member", fitted(1.0, X, y))
    save_model(tmp_path / "one", [Member(tmp_path / "member")], task)
    save_model(tmp_path / "two", [Member(fitted(1.0, X, y))], task)
    one, two = (load_model(tmp_path / name).predict_proba(X) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_a_booster_is_written_in_its_own_format(table, tmp_path):
    for name, file in (("xgboost", "booster.ubj"), ("lightgbm", "booster.txt"), ("catboost", "booster.cbm")):
        values = next(candidates(name, TaskKind.BINARY))
        pipeline = build_pipeline(values, a_task(columns=COLUMNS), 0, N).fit(table, target(TaskKind.BINARY))
        write_member(tmp_path / name, pipeline)
        assert sorted(os.listdir(tmp_path / name)) == sorted([file, "booster.json", "manifest.json", "pipeline.skops"])


def test_writing_leaves_the_pipeline_as_it_was(table, tmp_path):
    values = next(candidates("lightgbm", TaskKind.REGRESSION))
    task, y = a_task(TaskKind.REGRESSION, COLUMNS), target(TaskKind.REGRESSION)
    pipeline = build_pipeline(values, task, 0, N).fit(table, y)
    before = pipeline.predict(table)
    write_member(tmp_path / "member", pipeline)
    np.testing.assert_array_equal(pipeline.predict(table), before)


def test_an_export_is_not_replaced_unasked(export):
    task, X, y = numbers()
    with pytest.raises(OutputError, match=r"an earlier model must not be replaced unasked, got .*; choose another"):
        save_model(export, [Member(fitted(1.0, X, y))], task)


def test_an_export_is_replaced_when_asked(tmp_path):
    task, X, y = numbers()
    for C in (0.1, 1.0):
        save_model(tmp_path / "model", [Member(fitted(C, X, y), values={"C": C})], task, replace=True)
    assert load_model(tmp_path / "model").values == ({"C": 1.0},)
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_with_other_content_is_never_replaced(tmp_path):
    task, X, y = numbers()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"needs a folder of its own, got .* with other content; choose another"):
        save_model(tmp_path, [Member(fitted(1.0, X, y))], task, replace=True)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    task, X, y = numbers()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a model needs a folder that can be written, got .*; choose another"):
        save_model(tmp_path / "file" / "model", [Member(fitted(1.0, X, y))], task)


@pytest.mark.parametrize("weights", [[], [0.0], [-1.0, 2.0], [float("nan")]])
def test_weights_that_are_none_are_refused(weights, tmp_path):
    task, X, y = numbers()
    with pytest.raises(ArtifactError, match="needs members with weights of at least 0 that are not all 0, got"):
        save_model(tmp_path / "model", [Member(fitted(1.0, X, y), weight) for weight in weights], task)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(ArtifactError, match=r"a model needs a folder with manifest.json, got .*; name an export"):
        load_model(tmp_path / "nothing")


def test_another_format_is_told(copy):
    change_manifest(copy, format=99)
    with pytest.raises(ArtifactError, match="the format must be 1, got '99'; use the version that exported it"):
        load_model(copy)


def test_a_manifest_that_is_no_json_is_told(copy):
    (copy / "manifest.json").write_bytes(b"\x80PNG")
    with pytest.raises(ArtifactError, match=r"manifest.json must be JSON, got another text in .*; export it again"):
        load_model(copy)


def test_a_manifest_without_files_is_told(copy):
    change_manifest(copy, files=None)
    with pytest.raises(ArtifactError, match="must list files and digests, got none in"):
        load_model(copy)


def test_a_manifest_that_lacks_the_task_is_told(copy):
    change_manifest(copy, task={"name": "x"})
    with pytest.raises(ArtifactError, match=r"manifest.json must describe a model, got \"KeyError 'target'\"; "):
        load_model(copy)


def test_a_damaged_file_is_told(copy):
    with (copy / "members" / "1" / "pipeline.skops").open("r+b") as file:
        file.seek(40)
        file.write(b"x")
    with pytest.raises(ArtifactError, match=r"as it was written, got 'members/1/pipeline.skops' with another digest"):
        load_model(copy)


def test_a_file_that_is_gone_is_told(copy):
    (copy / "members" / "0" / "pipeline.skops").unlink()
    with pytest.raises(ArtifactError, match=r"every file .* be there, got 'members/0/pipeline.skops' \(No such file"):
        load_model(copy)


def test_files_outside_of_the_folder_are_not_read(copy):
    change_manifest(copy, files={"../../secret": "0" * 64})
    with pytest.raises(ArtifactError, match=r"may name files of its own folder only, got '../../secret'; do not"):
        load_model(copy)


def test_a_member_without_its_pipeline_is_told(copy):
    change_manifest(copy, files={})
    with pytest.raises(ArtifactError, match=r"a member needs a file pipeline.skops, got \[\]; export it again"):
        load_model(copy)


def test_types_that_are_not_trusted_are_neither_written_nor_read(tmp_path):
    task, X, y = numbers()
    with pytest.raises(ArtifactError, match=r"may hold trusted types only, got '.*Stranger'; load models of"):
        save_model(tmp_path / "model", [Member(Pipeline([("model", Stranger().fit(X, y))]))], task)
    with pytest.raises(ArtifactError, match=r"may hold trusted types only, got 'shutil.rmtree'; load"):
        from_skops(skops.io.dumps(FunctionTransformer(shutil.rmtree)))


def test_a_pickle_is_not_a_model():
    with pytest.raises(ArtifactError, match=r"a model file must be readable, got BadZipFile: .*; export it again"):
        from_skops(pickle.dumps(LogisticRegression()))


def test_an_unknown_booster_is_refused():
    with pytest.raises(ArtifactError, match="a booster must be of a known class, got 'Popen'; export it again"):
        boosters.read("subprocess", b"rm", {"class": "Popen", "parameters": {}})


@pytest.mark.parametrize(("vendor", "kind"), [("lightgbm", "LGBMRegressor"), ("catboost", "CatBoostRegressor")])
def test_a_booster_that_its_vendor_cannot_read_is_told(vendor, kind):
    for content in (b"", b"nothing like it" * 9):
        with pytest.raises(ArtifactError, match=f"{vendor} must be able to read its own file, got .*; export it again"):
            boosters.read(vendor, content, {"class": kind, "parameters": {}})


def test_other_versions_are_noted(copy):
    change_manifest(copy, versions={"scikit-learn": "0.1"})
    assert "exported with scikit-learn 0.1, here is" in load_model(copy).notes[0].text


def test_data_without_a_column_are_refused(export):
    _, X, _ = numbers()
    with pytest.raises(ArtifactError, match=r"must have the columns of the training data, got none named .*v.*; add"):
        load_model(export).predict(X[["u"]])


def test_probabilities_of_a_regression_are_refused(tmp_path):
    task, X, y = numbers(TaskKind.REGRESSION)
    save_model(tmp_path / "model", [Member(fitted(1.0, X, y))], task)
    with pytest.raises(ArtifactError, match="probabilities need a classification task, got regression; ask for"):
        load_model(tmp_path / "model").predict_proba(X)


class Stranger(LogisticRegression):
    pass


@pytest.fixture
def copy(export, tmp_path):
    return shutil.copytree(export, tmp_path / "copy")


def change_manifest(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
