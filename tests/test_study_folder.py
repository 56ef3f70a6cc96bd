"""The folder of a run: one run, one process, whole files or none, and one line for what cannot be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_tune.errors import OutputError, StudyError, UsageError
from offline_tune.study.folder import RunFolder, read_json, write_json, writing

SCORES = np.array([[0.25, 0.75], [np.nan, np.nan]], np.float32)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "out" / "run")
    made.create()
    return made


@pytest.fixture
def blocked(tmp_path):
    """A folder that nobody can make, not even root: there is a file where its parent should be."""
    (tmp_path / "file").write_text("precious", encoding="utf-8")
    return RunFolder(tmp_path / "file" / "run")


def names(path):
    return sorted(p.name for p in path.rglob("*"))


# --- making one


def test_a_new_folder_has_room_for_predictions_and_no_litter(folder):
    assert names(folder.path) == ["oof"]


def test_files_that_were_there_before_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    RunFolder(tmp_path).create()
    assert names(tmp_path) == ["notes.txt", "oof"]


@pytest.mark.parametrize("name", ["run.json", "study.db"])
def test_a_folder_with_a_run_is_not_used_again(folder, name):
    (folder.path / name).touch()
    with pytest.raises(
        StudyError, match=r"--out must be a folder without a run, got .*; continue it with `offline-tune"
    ):
        folder.create()


def test_a_place_that_cannot_be_made_is_refused(blocked):
    with pytest.raises(
        OutputError, match=r"must be writable, got Not a directory for .*; free space, change its rights"
    ):
        blocked.create()


def test_a_file_is_no_folder_and_stays_as_it_is(blocked):
    with pytest.raises(OutputError, match="must be writable, got"):
        RunFolder(blocked.path.parent).create()
    assert blocked.path.parent.read_text(encoding="utf-8") == "precious"


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OutputError, match="must be writable, got File name too long for"):
        RunFolder(tmp_path / ("n" * 300)).create()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="no right binds root")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="must be writable, got Permission denied"):
            RunFolder(tmp_path / "run").create()
    finally:
        tmp_path.chmod(0o700)


def test_no_two_parts_of_a_run_share_a_path(folder):
    parts = "settings storage calls result test model ensemble report summary leaderboard".split()
    assert len({getattr(folder, part) for part in parts} | {folder.oof(0), folder.oof(1)}) == len(parts) + 2


# --- finding one


@pytest.mark.parametrize("name", ["", "nothing here", "n" * 300])
def test_a_folder_without_a_run_is_no_run(tmp_path, name):
    with pytest.raises(
        UsageError, match=r"a run folder must hold run\.json, got .*; give the --out folder of an earlier"
    ):
        RunFolder(tmp_path / name).check_exists()


def test_a_folder_with_settings_is_a_run(folder):
    folder.settings.touch()
    folder.check_exists()


# --- one process at a time


def test_a_second_lock_is_refused(folder):
    with (
        folder.locked(),
        pytest.raises(StudyError, match=r"one process at a time may work in a run folder, got .* in use"),
    ):
        with folder.locked():
            pass


def test_another_process_is_refused(folder):
    program = "import sys; from pathlib import Path; from offline_tune.study.folder import RunFolder\n"
    program += "with RunFolder(Path(sys.argv[1])).locked(): print('in')"
    with folder.locked():
        ended = subprocess.run([sys.executable, "-c", program, folder.path], capture_output=True, text=True)
    assert "one process at a time" in ended.stderr and ended.stdout == ""


def test_a_lock_ends_with_its_block_even_by_an_error(folder):
    with pytest.raises(KeyboardInterrupt), folder.locked():
        raise KeyboardInterrupt
    with folder.locked():
        pass


def test_a_lock_in_a_place_that_cannot_be_written_is_refused(blocked):
    with pytest.raises(OutputError, match="must be writable, got Not a directory"), blocked.locked():
        pass


# --- predictions


def test_predictions_come_back_as_they_were(folder):
    folder.save_oof(12, SCORES)
    loaded = folder.load_oof(12)
    assert np.array_equal(loaded, SCORES, equal_nan=True) and loaded.dtype == np.float32


def test_predictions_leave_no_partial_file(folder):
    folder.save_oof(12, SCORES)
    assert names(folder.path) == ["00012.npz", "oof"]


def test_predictions_that_cannot_be_written_leave_the_old_ones(folder):
    folder.save_oof(12, SCORES)
    folder.oof(12).with_suffix(".partial.npz").mkdir()  # in the way of the new ones
    with pytest.raises(OutputError, match=r"must be writable, got Is a directory for .*00012\.npz"):
        folder.save_oof(12, SCORES * 2)
    assert np.array_equal(folder.load_oof(12), SCORES, equal_nan=True)


def test_a_trial_without_predictions_has_none(folder):
    assert folder.load_oof(3) is None


def _broken(path):
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[60:90] = bytes(30)
    yield from (b"", b"PK\x03\x04", whole[: len(whole) // 2], bytes(middle), b"no archive at all")


@pytest.mark.parametrize("way", range(5))
def test_damaged_predictions_are_refused(folder, way):
    folder.save_oof(1, SCORES)
    folder.oof(1).write_bytes(list(_broken(folder.oof(1)))[way])
    with pytest.raises(StudyError, match=r"out-of-fold predictions must be an \.npz of this run, got .*; remove it"):
        folder.load_oof(1)


def test_predictions_of_another_kind_are_refused(folder):
    with folder.oof(1).open("wb") as file:
        np.save(file, SCORES)
    with pytest.raises(StudyError, match="out-of-fold predictions must be an"):
        folder.load_oof(1)


def test_predictions_are_never_unpickled(folder):
    np.savez(folder.oof(1), oof=np.array([object()], dtype=object))
    with pytest.raises(StudyError, match="out-of-fold predictions must be an"):
        folder.load_oof(1)


# --- records


@settings(max_examples=25)
@given(content=st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_a_record_comes_back_as_it_was(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "record.json"
    write_json(path, content)
    assert read_json(path) == content


def test_a_record_holds_names_that_are_no_text(folder):
    write_json(folder.settings, {"data": "caf\udce9.csv"})
    assert read_json(folder.settings) == {"data": "caf\udce9.csv"}


def test_a_record_that_cannot_be_written_leaves_the_old_one(folder):
    write_json(folder.settings, {"a": 1})
    folder.settings.with_suffix(".partial").mkdir()
    with pytest.raises(OutputError, match="must be writable, got Is a directory"):
        write_json(folder.settings, {"a": 2})
    assert read_json(folder.settings) == {"a": 1}


def test_a_record_that_is_no_json_leaves_the_old_one(folder):
    write_json(folder.settings, {"a": 1})
    with pytest.raises(TypeError):
        write_json(folder.settings, {"a": object()})
    assert read_json(folder.settings) == {"a": 1}


def test_a_missing_record_is_refused(folder):
    with pytest.raises(StudyError, match=r"a run must have result\.json, found none in .*; give another folder"):
        read_json(folder.result)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1', b"[" * 100_000])
def test_a_damaged_record_is_refused(folder, content):
    folder.result.write_bytes(content)
    with pytest.raises(StudyError, match=r"result\.json must be readable JSON, got .*; restore it or start a new run"):
        read_json(folder.result)


@pytest.mark.parametrize(("content", "kind"), [([], "list"), (3, "int"), (None, "NoneType")])
def test_a_record_of_another_kind_is_refused(folder, content, kind):
    folder.result.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(StudyError, match=rf"result\.json must hold an object, got {kind}; restore it"):
        read_json(folder.result)


def test_errors_that_are_not_the_systems_pass():
    with pytest.raises(ZeroDivisionError), writing(Path("anywhere")):
        raise ZeroDivisionError
