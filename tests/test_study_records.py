"""run.json and result.json: what was written is read, and anything else is refused in one line."""

import json
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_tune.errors import StudyError
from offline_tune.study.folder import RunFolder, read_json, write_json
from offline_tune.study.result import RunResult, Scored, Spent
from offline_tune.study.settings import RunSettings
from offline_tune.task import Budget, TrialLimits

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PATHS = st.text(string.ascii_letters + "é数 ?{}\udce9", min_size=1, max_size=9).map(Path)
MAYBE = st.none() | st.text(max_size=9)
LIMITS = st.none() | st.integers(1, 10**9)
BUDGETS = st.builds(Budget, trials=st.integers(1, 99), seconds=LIMITS, llm_calls=LIMITS, llm_tokens=LIMITS)
SETTINGS = st.builds(
    RunSettings,
    data=PATHS,
    target=st.text(max_size=9),
    out=st.just(Path("elsewhere")),
    metric=MAYBE,
    families=st.lists(st.sampled_from(["auto", "svm", "knn"]), min_size=1, max_size=3).map(tuple),
    test=st.none() | PATHS,
    group=MAYBE,
    test_share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    model=st.none() | PATHS,
    device=st.sampled_from(["auto", "cpu"]),
    budget=BUDGETS,
    limits=st.builds(
        TrialLimits, seconds=st.none() | st.floats(0.1, 1e6), memory_mib=st.none() | st.integers(64, 9999)
    ),
    description=st.text(max_size=20),
)
SCORES = st.dictionaries(st.text(max_size=9), NUMBERS, max_size=3)
SCORED = st.builds(
    Scored,
    label=st.text(max_size=9),
    trials=st.lists(st.integers(0, 99), max_size=3).map(tuple),
    weights=st.lists(st.floats(0, 1), max_size=3).map(tuple),
    values=st.dictionaries(st.text(max_size=9), st.none() | st.booleans() | NUMBERS | st.text(max_size=5), max_size=3),
    cv=SCORES,
    test=st.none() | SCORES,
)
RESULTS = st.builds(
    RunResult,
    winner=SCORED,
    best_default=st.none() | SCORED,
    ensemble=st.none() | SCORED,
    spent=st.builds(Spent, total=NUMBERS, calls=st.integers(0, 99), first_candidate=st.none() | NUMBERS),
    stopped=st.text(max_size=9),
    facts=st.dictionaries(st.text(max_size=9), st.lists(MAYBE, max_size=3), max_size=3),
)

SMALL = RunSettings(data=Path("d.csv"), target="y", out=Path("run"))
WON = RunResult(
    winner=Scored(label="svm", trials=(3,), weights=(1.0,)),
    best_default=None,
    ensemble=None,
    spent=Spent(),
    stopped="all trials done",
    facts={},
)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return RunFolder(tmp_path_factory.mktemp("records"))


def rewrite(path, **changes):
    """Change fields of a record; ... takes one away."""
    content = {**read_json(path), **changes}
    write_json(path, {name: value for name, value in content.items() if value is not ...})


# --- settings


@settings(max_examples=40)
@given(chosen=SETTINGS)
def test_settings_come_back_with_the_folder_they_lie_in(shared, chosen):
    chosen.save(shared)
    assert RunSettings.load(shared) == replace(chosen, out=shared.path)


def test_a_moved_folder_knows_its_new_place(folder, tmp_path):
    SMALL.save(folder)
    moved = RunFolder(tmp_path / "moved")
    moved.path.mkdir()
    folder.settings.rename(moved.settings)
    assert RunSettings.load(moved).out == moved.path


@pytest.mark.parametrize("version", [2, 0, "1", None, ...])
def test_settings_of_another_format_are_refused(folder, version):
    SMALL.save(folder)
    rewrite(folder.settings, format=version)
    with pytest.raises(
        StudyError, match=r"run\.json must have format 1, got another in .*; use the version that wrote it"
    ):
        RunSettings.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": ...},
        {"budget": ...},
        {"families": ...},
        {"families": 3},
        {"data": 3},
        {"budget": 5},
        {"budget": {"trials": 0}},
        {"budget": {"trials": "many"}},
        {"budget": {"wishes": 3}},
        {"limits": {"seconds": []}},
    ],
    ids=str,
)
def test_damaged_settings_are_refused(folder, changes):
    SMALL.save(folder)
    rewrite(folder.settings, **changes)
    with pytest.raises(StudyError, match=r"run\.json must hold this version's settings, got .*; start a new run"):
        RunSettings.load(folder)


def test_settings_that_this_version_does_not_know_are_not_read(folder):
    SMALL.save(folder)
    rewrite(folder.settings, from_a_later_patch=True)
    assert RunSettings.load(folder).target == "y"


def test_missing_settings_are_refused(folder):
    with pytest.raises(StudyError, match=r"a run must have run\.json, found none"):
        RunSettings.load(folder)


# --- results


@settings(max_examples=40)
@given(result=RESULTS)
def test_a_result_comes_back_as_it_was(shared, result):
    result.save(shared)
    assert RunResult.load(shared) == result


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": ...},
        {"winner": None},
        {"winner": ...},
        {"winner": []},
        {"winner": {"label": "svm"}},
        {"ensemble": "none"},
        {"spent": None},
        {"spent": {"money": 3}},
        {"stopped": ...},
        {"surplus": 1},
    ],
    ids=str,
)
def test_a_damaged_result_is_refused(folder, changes):
    WON.save(folder)
    rewrite(folder.result, **changes)
    with pytest.raises(StudyError, match=r"result\.json must hold this version's result, got .*; run the study again"):
        RunResult.load(folder)


def test_a_missing_result_is_refused(folder):
    with pytest.raises(StudyError, match=r"a run must have result\.json, found none"):
        RunResult.load(folder)


def test_records_are_plain_json(folder):
    SMALL.save(folder)
    WON.save(folder)
    for path in (folder.settings, folder.result):
        assert json.loads(path.read_bytes().decode("ascii"))["format"] == 1
