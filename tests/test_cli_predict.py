"""`offline-tune predict`: what a finished run says of rows it has not seen."""

import io
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from small_runs import command, copy_of_run, finished_folder, finished_regression, finished_run, shop

NEW = pd.DataFrame({"a": [1.5, -2.0, None], "b": [0.0, None, 0.3], "c": ["red", "violet", None]})


@pytest.fixture(scope="session", autouse=True)
def run():
    assert finished_run().code == 0, finished_run().err


@pytest.fixture
def new(tmp_path):
    return write(NEW, tmp_path / "new.csv")


def write(frame, path):
    frame.to_csv(path, index=False)
    return path


def table(done):
    assert done.code == 0, done.err
    return pd.read_csv(io.StringIO(done.out))


def test_new_rows_without_a_target_with_gaps_and_an_unseen_category(new):
    found = table(command("predict", finished_folder(), new))
    assert list(found.columns) == ["y"]
    assert list(found["y"][:2]) == ["yes", "no"]
    assert found["y"][2] in ("yes", "no")


def test_the_order_of_columns_and_further_columns_do_not_matter(new, tmp_path):
    shuffled = write(NEW.assign(extra="?", y="no")[["c", "extra", "b", "y", "a"]], tmp_path / "shuffled.csv")
    options = ["--probabilities"]
    assert table(command("predict", finished_folder(), shuffled, *options)).equals(
        table(command("predict", finished_folder(), new, *options))
    )


def test_probabilities_stand_beside_the_prediction_and_sum_to_one(new):
    found = table(command("predict", finished_folder(), new, "--probabilities"))
    shares = found[["probability of no", "probability of yes"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert list(found["y"]) == [("no", "yes")[row.argmax()] for row in shares.to_numpy()]


def test_json_says_the_same_as_csv(new):
    rows = json.loads(command("predict", finished_folder(), new, "--probabilities", "--json").out)
    pd.testing.assert_frame_equal(
        pd.DataFrame(rows), table(command("predict", finished_folder(), new, "--probabilities")), rtol=1e-6
    )


def test_the_runs_own_data_are_mostly_predicted_right():
    found = table(command("predict", finished_folder(), shop().data))
    truth = pd.read_csv(shop().data)["y"]
    assert len(found) == 120
    assert (found["y"] == truth).mean() > 0.8


def test_the_ensemble_predicts_too_and_otherwise(new):
    assert finished_regression().code == 0
    folder = shop().folder / "regression"
    winner, ensemble = (table(command("predict", folder, new, *more)) for more in ([], ["--ensemble"]))
    assert not np.allclose(winner["y"], ensemble["y"])
    assert ensemble.equals(table(command("predict", folder / "ensemble", new)))


def test_an_exported_folder_works_without_its_run(new):
    alone = table(command("predict", finished_folder() / "model", new))
    assert alone.equals(table(command("predict", finished_folder(), new)))


def test_predictions_go_into_a_file_whole(new, tmp_path):
    (tmp_path / "out.csv").write_text("older predictions")
    done = command("predict", finished_folder(), new, "--out", tmp_path / "out.csv")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (tmp_path / "out.csv").read_text() == command("predict", finished_folder(), new).out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


def test_a_regression_predicts_numbers_and_has_no_probabilities():
    assert finished_regression().code == 0, finished_regression().err
    folder, data = shop().folder / "regression", shop().regression
    assert np.corrcoef(table(command("predict", folder, data))["y"], pd.read_csv(data)["y"])[0, 1] > 0.9
    refused = command("predict", folder, data, "--probabilities")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "error: --probabilities needs a classification model, got a regression; leave it out\n"


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda p: ("nowhere", shop().data), 12, "nowhere"),
        (lambda p: (finished_folder(), p / "missing.csv"), 3, "the data file must exist, got .*missing.csv'"),
        (lambda p: (finished_folder(), write(NEW[["a", "c"]], p / "less.csv")), 12, "'b'"),
        (lambda p: (finished_folder(), shop().model), 3, "a data file must end in one of .csv"),
        (lambda p: (finished_folder(), shop().data, "--out", shop().data), 2, "--out must not be the data file"),
        (lambda p: (finished_folder(), shop().data, "--out", p / "no" / "x.csv"), 10, "the output must be writable"),
        (lambda p: (finished_folder() / "oof", shop().data), 12, ""),
    ],
)
def test_what_cannot_be_predicted_is_said_in_one_line(tmp_path, make, code, message):
    done = command("predict", *make(tmp_path))
    assert (done.code, done.out) == (code, "")
    assert done.err.count("\n") == 1
    assert re.match(f"error: .*{message}", done.err), done.err


@pytest.mark.parametrize("what", ["model", "ensemble"])
def test_a_run_without_that_export_says_what_to_do(tmp_path, what):
    folder = copy_of_run(tmp_path / "run")
    shutil.rmtree(folder / what)
    done = command("predict", folder, shop().data, *(["--ensemble"] if what == "ensemble" else []))
    assert done.code == 12
    assert f"error: the run must have exported its {what}, got none in {folder}; finish it with" in done.err
