"""Studies in SQLite files: found again as they were left, and every trouble of a file said in one line."""

import re
import sqlite3
from contextlib import closing

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import IntDistribution as Int
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from offline_tune.errors import OutputError, SpaceError, StudyError
from offline_tune.history import of_study
from offline_tune.space import SearchSpace
from offline_tune.study.storage import create_study, load_study, storage_errors

SPACE = SearchSpace.from_distributions({"x": Int(0, 9), "c": Cat(["a", "b"])})
OTHER = SearchSpace.from_distributions({"x": Int(0, 8)})
NOT_OURS = "the storage must be an Optuna SQLite file, got .*; restore a copy or start a new run"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A study with three trials as the bytes of its one file."""
    path = tmp_path_factory.mktemp("image") / "study.db"
    made = create_study(path, "adult.csv", SPACE, "accuracy")
    for i in range(3):
        trial = made.ask()
        SPACE.suggest(trial)
        made.tell(trial, i / 10)
    made._storage._backend.engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    return path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def there(path, image):
    path.write_bytes(image)
    return path


@pytest.fixture
def study(there):
    return load_study(there, busy_seconds=0.05)[0]


def changed(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def pragma(study, words):
    """Set something for the study's own connection."""
    with study._storage._backend.engine.connect() as connection:
        connection.execute(text(f"PRAGMA {words}"))


# --- found again


def test_a_study_is_found_again_with_its_space_and_trials(there):
    found, space = load_study(there)
    assert (found.study_name, space) == ("adult.csv", SPACE)
    assert [o.score for o in of_study(found, space).observations] == [0.0, 0.1, 0.2]


def test_a_study_maximises_and_names_its_metric(study):
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE and study.metric_names == ["accuracy"]


def test_a_study_is_made_once(there):
    again = create_study(there, "adult.csv", SPACE, "accuracy")
    assert len(again.trials) == 3


def test_any_user_of_optuna_can_open_the_file(there):
    found = optuna.load_study(study_name="adult.csv", storage=f"sqlite:///{there}")
    assert found.best_value == 0.2


def test_a_study_is_loaded_with_its_sampler(there):
    sampler = optuna.samplers.RandomSampler(seed=0)
    assert load_study(there, sampler)[0].sampler is sampler


@pytest.mark.parametrize("name", ["a?b", "a?mode=ro&uri=true", "a#b", "{lr}", "50%20", "a b@c:d", "naïve 数", "\udce9"])
def test_a_folder_of_any_name_holds_its_own_study(tmp_path, image, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "study.db").write_bytes(image)
    load_study(folder / "study.db")[0].set_user_attr("large", "x" * 100_000)
    assert sum(f.stat().st_size for f in folder.iterdir()) > len(image) + 100_000
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_a_study_may_be_named_after_a_file_whose_name_is_no_text(path):
    assert create_study(path, "caf\udce9.csv", SPACE, "accuracy").study_name == "caf?.csv"


# --- not the study that is wanted


def test_another_space_is_refused(there):
    with pytest.raises(StudyError, match=r"'adult\.csv' must have the search space it was made with, got another"):
        create_study(there, "adult.csv", OTHER, "accuracy")


def test_a_missing_file_is_no_study(path):
    with pytest.raises(StudyError, match=r"a run must have study\.db, found none in .*; start it with"):
        load_study(path)


def test_a_folder_is_no_study(path):
    path.mkdir()
    with pytest.raises(StudyError, match=r"a run must have study\.db, found none"):
        load_study(path)


def test_no_study_can_be_made_in_a_folders_place(path):
    path.mkdir()
    with pytest.raises(OutputError, match=r"the storage must be writable, got unable to open .*; free space or change"):
        create_study(path, "n", SPACE, "accuracy")


def test_an_empty_file_holds_no_study(path):
    path.touch()
    with pytest.raises(StudyError, match=r"study\.db must hold one study, got 0 in"):
        load_study(path)


def test_two_studies_are_one_too_many(there):
    create_study(there, "second", SPACE, "accuracy")
    with pytest.raises(StudyError, match=r"study\.db must hold one study, got 2 in"):
        load_study(there)


def test_a_study_of_other_makers_is_refused(there):
    changed(there, "DELETE FROM study_user_attributes")
    with pytest.raises(StudyError, match=r"the study must carry its search space, found none in .*; it was not made"):
        load_study(there)


# --- damage


@pytest.mark.parametrize("content", [b"x,y\n1,2\n" * 500, b"SQLite format 3\0" + bytes(4080), bytes(4096)])
def test_a_file_that_is_no_database_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(StudyError, match=NOT_OURS):
        load_study(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = 'v99.0.0.a'",
        "ALTER TABLE studies RENAME COLUMN study_name TO price",
        "UPDATE trials SET datetime_complete = 'yesterday'",
        "UPDATE trial_params SET distribution_json = '{'",
    ],
)
def test_another_version_or_another_content_is_refused(there, statement):
    changed(there, statement)
    with pytest.raises(StudyError, match=NOT_OURS):
        load_study(there)


def test_a_damaged_space_is_refused(there):
    changed(there, "UPDATE study_user_attributes SET value_json = '\"[{\"' WHERE key = 'offline_tune:space'")
    with pytest.raises(SpaceError, match="a stored search space must be the text that to_json wrote"):
        load_study(there)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(path, image, share):
    path.write_bytes(image[: int(share * len(image))])
    with pytest.raises(StudyError, match=NOT_OURS):
        load_study(path)


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_is_refused_or_harmless(path, image, seed):
    damaged, rng = bytearray(image), np.random.default_rng(seed)
    for place in rng.integers(len(damaged), size=(1, 20, 400)[seed % 3]):
        damaged[place] = rng.integers(256)
    path.write_bytes(damaged)
    try:
        of_study(*load_study(path))
    except StudyError as error:
        assert re.search(NOT_OURS, str(error)) and "\n" not in str(error)


# --- no right, no room


def test_a_locked_storage_is_said_to_be_locked(study, there):
    with closing(sqlite3.connect(there)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StudyError, match=r"must be free, got .* locked by another program; close it and resume"):
            with storage_errors(there):
                study.set_user_attr("a", 1)


def test_a_storage_can_be_written_once_the_lock_is_gone(study, there):
    with closing(sqlite3.connect(there)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.rollback()
        study.set_user_attr("a", 1)
    assert load_study(there)[0].user_attrs["a"] == 1


def test_a_full_disk_is_said_to_be_full(study, there):
    pragma(study, "max_page_count = 1")  # SQLite takes the present size for it
    with pytest.raises(OutputError, match=r"must be writable, got database or disk is full for .*; free space or"):
        with storage_errors(there):
            study.set_user_attr("large", "x" * 100_000)


def test_what_was_told_before_the_disk_was_full_is_still_there(study, there):
    pragma(study, "max_page_count = 1")
    with pytest.raises(OutputError), storage_errors(there):
        study.set_user_attr("large", "x" * 100_000)
    assert len(load_study(there)[0].trials) == 3


def test_a_read_only_storage_is_said_to_be_so(study, there):
    pragma(study, "query_only = 1")
    with pytest.raises(OutputError, match="must be writable, got attempt to write a readonly database"):
        with storage_errors(there):
            study.set_user_attr("a", 1)


def test_a_place_under_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the storage must be writable, got unable to open database file"):
        create_study(tmp_path / "file" / "study.db", "n", SPACE, "accuracy")


# --- what storage_errors leaves alone


@pytest.mark.parametrize(
    "error", [RuntimeError("a busy, locked and full disk"), ValueError("full"), KeyboardInterrupt()]
)
def test_errors_that_are_not_the_storages_pass(path, error):
    with pytest.raises(type(error)) as caught, storage_errors(path):
        raise error
    assert caught.value is error


def test_the_text_of_a_statement_is_not_taken_for_the_trouble(path):
    inner = sqlite3.OperationalError("no such column: t")
    with pytest.raises(StudyError, match="got no such column: t for"), storage_errors(path):
        raise OperationalError("SELECT 'locked full busy readonly' FROM t", {}, inner)
