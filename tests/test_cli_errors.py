"""What a user can get wrong: one line on stderr, an exit code of its own, no traceback, and nothing is left behind."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from gguf_maker import make_spm
from small_runs import ROOT, a_frame, command, run_arguments, shop, tiny_model

from offline_tune import errors
from offline_tune.cli import NETWORK_REFUSED
from offline_tune.errors import OfflineTuneError

TABLES = {
    "empty": b"",
    "header": b"a,b,y\n",
    "blanks": b"\n \n\n",
    "binary": bytes(range(256)) * 50,
    "carets": a_frame().to_csv(index=False, sep="^").encode(),
    "twins": b"a,a,y\n1,2,no\n2,3,yes\n",
    "unknown": a_frame().assign(y=np.nan).to_csv(index=False).encode(),
    "agreed": a_frame().assign(y="yes").to_csv(index=False).encode(),
    "lonely": a_frame().assign(y=["no"] + ["yes"] * 119).to_csv(index=False).encode(),
    "useless": a_frame()[["y"]].assign(i=[f"id{n}" for n in range(120)], k=1).to_csv(index=False).encode(),
    "names": a_frame().assign(y=[f"name {n}" for n in range(120)]).to_csv(index=False).encode(),
    "two": a_frame().iloc[[0, 3]].assign(y=["no", "yes"]).to_csv(index=False).encode(),
}
BAD_DATA = {
    "nowhere": (3, r"the data file must exist, got '.*/nowhere\.csv'; check the path"),
    "folder": (3, r"the data must be one file, got the folder '.*'; name a file in it"),
    "empty": (3, r"a data file must not be empty, got 0 bytes in 'empty\.csv'; export it again"),
    "header": (3, r"a data file must hold rows below its header, got none in 'header\.csv'; add rows"),
    "blanks": (3, r"a data file must not be empty, got only blanks in 'blanks\.csv'; export it again"),
    "binary": (3, r"a text table must hold text, got binary content in 'binary\.csv'; export it as .*"),
    "carets": (3, r"a table needs two columns or more, got only 'a\^b\^c\^y' in the header .*; part .*"),
    "twins": (3, r"each column must have a name of its own, got 'a' more than once in 'twins\.csv'; rename them .*"),
    "unknown": (4, r"the target must have values, got only missing ones in column 'y'; choose another column"),
    "agreed": (4, r"the target must have two different values or more, got only 'yes' in column 'y'; choose .*"),
    "lonely": (4, r"each class must have two rows or more, got one row for 'no' in column 'y'; merge or drop .*"),
    "useless": (3, r"a table must have a column to learn from beside 'y', got .*'i \(identifier\)'.*; add features"),
    "names": (4, r"the classes of a target must repeat, got 120 different values in 120 rows of column 'y'; choose .*"),
    "two": (4, r"the classes of a target must repeat, got 2 different values in 2 rows of .*; choose another .*"),
}  # fmt: skip
BAD_OPTIONS = [
    (["--target", "z"], 4, r"the target must be a column of the file, got 'z'; choose one of 'a', 'b', 'c', 'y'"),
    (["--target", "Y"], 4, r"the target must be a column of the file, got 'Y'; did you mean 'y'\?"),
    (["--target", "\udcff"], 2, r"--target must be valid UTF-8, got '\\udcff'; rename it"),
    (["--task", "cluster"], 2, r"--task must be one of auto, binary, multiclass, regression, got 'cluster'; choose .*"),
    (["--task", "regression"], 4, r"a regression target must hold numbers, got 'yes', 'no' in column 'y'; blank .*"),
    (["--metric", "accurcy"], 5, r"the metric must be the name of .*, got 'accurcy'; did you mean 'accuracy'\?"),
    (["--metric", "r2"], 5, r"the metric must fit a binary task, got 'r2'; use for instance neg_log_loss"),
    (["--family", "xgbost"], 2, r"--family must name a known family, got 'xgbost'; did you mean 'xgboost'\?"),
    (["--sampler", "bayes"], 2, r"--sampler must be one of llama, tpe, gp, random, grid, got 'bayes'; choose one"),
    (["--trials", "0"], 2, r"--trials must be at least 1, got 0; raise it or leave it out"),
    (["--trials", "many"], 2, r"Invalid value for '--trials': 'many' is not a valid integer; see .*"),
    (["--folds", "1"], 2, r"--folds must be from 2 to 50, got 1; choose a number inside"),
    (["--seed", "-1"], 2, r"--seed must be from 0 to 4294967295, got -1; choose a number inside"),
    (["--drafts", "256"], 2, r"--drafts must be from 1 to 255, got 256; choose a number inside"),
    (["--batch", "0"], 2, r"--batch must be from 1 to 256, got 0; choose a number inside"),
    (["--workers", "-2"], 2, r"--workers must be from 0 to 4096, got -2; choose a number inside"),
    (["--test-share", "nan"], 2, r"--test-share must lie between 0 and 1, got nan; 0.2 is usual"),
    (["--temperature", "-1"], 2, r"--temperature must be 0 or more, got -1; 1 is the model's own"),
    (["--time-limit", "soon"], 2, r".* a duration must be a number with s, m, h or d, got 'soon'; write 10m .*"),
    (["--time-limit", "0s"], 2, r"--time-limit must be at least 1, got 0; raise it or leave it out"),
    (["--trial-memory", "lots"], 2, r".* a memory size must be a number with m or g, got 'lots'; write 4g .*"),
    (["--llm-calls", "0"], 2, r"--llm-calls must be at least 1, got 0; raise it or leave it out"),
    (["--group", "zz"], 3, r"the group column must be a column of the file, got 'zz'; choose one of .*"),
    (["--group", "y"], 2, r"--group must not be the target, got 'y' for both; name another column"),
    (["--time", "c"], 3, r"each row must have a time, a number or a date .*, got '\w+' in column 'c'; fill .*"),
    (["--split-column", "c"], 3, r"a split column must hold the words train and test in every row, got .*; rename .*"),
    (["--test", "none.csv"], 3, r"the data file must exist, got '.*none\.csv'; check the path"),
    (["--frob"], 2, r"No such option '--frob'.*; see `offline-tune run --help`"),
]  # fmt: skip
BAD_MODELS = {
    "nowhere": (7, r"the model file must exist, got '.*/nowhere\.gguf'; check --model"),
    "folder": (7, r"the model must be a file, got '.*'; check --model"),
    "empty": (7, r"empty\.gguf must be a GGUF file, got an empty one; copy or download it again"),
    "half": (7, r"half\.gguf must hold its tensors up to byte \d+, got a file of \d+ bytes; it is truncated: .*"),
    "start": (7, r"start\.gguf must hold .*; it is damaged: copy or download it again"),
    "prose": (7, r"prose\.gguf must be a GGUF file, got one that starts with b'once'; give a model in GGUF format"),
    "words": (7, r"words\.gguf must hold weights, got a vocabulary only; give the full model file"),
    "bert": (7, r"bert\.gguf must be a model that writes text, got architecture 'bert' for embeddings .*; choose .*"),
    "other": (7, r".*other\.gguf must have the sha256 0{64} of .*models\.toml, got [0-9a-f]{64}; .*: restore it, .*"),
    "short": (8, r"the context must hold the space and a candidate, \d+ tokens, got 32; use fewer parameters or a .*"),
}
LEAVE = """
import socket, sys
from offline_tune import airgap
from offline_tune.cli import run_command
from offline_tune.cli.commands import offline_tune
airgap.engage()
offline_tune.command("leave")(lambda: socket.create_connection(("192.0.2.1", 80)))
sys.exit(run_command(["leave"]))
"""


def refused(done, code, message):
    assert (done.code, done.out) == (code, ""), done.err
    assert "Traceback" not in done.err
    assert re.fullmatch(f"error: {message}", done.last_line), done.last_line


def attempt(tmp_path, *more, data=None):
    """A run that is refused, and leaves nothing."""
    done = command(*run_arguments(tmp_path / "out", *more, data=data))
    assert not (tmp_path / "out").exists()
    return done


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(tmp_path, name):
    path = tmp_path if name == "folder" else tmp_path / f"{name}.csv"
    if name in TABLES:
        path.write_bytes(TABLES[name])
    refused(attempt(tmp_path, data=path), *BAD_DATA[name])


@pytest.mark.parametrize(("options", "code", "message"), BAD_OPTIONS, ids=lambda value: str(value)[:40])
def test_bad_options(tmp_path, options, code, message):
    refused(attempt(tmp_path, *options), code, message)


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models(tmp_path, name):
    path = tmp_path if name == "folder" else a_bad_model(name, tmp_path / f"{name}.gguf")
    more = ["--family", "auto"] if name == "short" else []
    refused(attempt(tmp_path, "--model", path, *more), *BAD_MODELS[name])


def a_bad_model(name, path):
    sound = shop().model.read_bytes()
    contents = {
        "empty": b"",
        "half": sound[: len(sound) // 2],
        "start": sound[:100],
        "prose": b"once upon a time " * 99,
    }
    if name in contents:
        path.write_bytes(contents[name])
    elif name == "words":
        make_spm(path, tensors=False)
    elif name == "bert":
        make_spm(path, arch="bert")
    elif name == "short":
        tiny_model(path, context=32)
    elif name == "other":
        shutil.copy(shop().model, path)
        entry = {"file": path.name, "sha256": "0" * 64, "licence": "Apache-2.0", "dialect": "compact"}
        lines = [f'{key} = "{value}"' for key, value in entry.items()]
        (path.parent / "models.toml").write_text("[[model]]\n" + "\n".join(lines))
    return path


def test_a_folder_below_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "file").write_text("kept")
    done = command(*run_arguments(tmp_path / "file" / "out"))
    refused(done, 10, r"the output must be writable, got Not a directory for .*; free space, change .* another --out")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    done = command(*run_arguments(tmp_path))
    where = re.escape(str(tmp_path))
    message = f"--out must be a folder without a run, got {where}; continue it with `offline-tune resume {where}` or .*"
    refused(done, 9, message)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("name", ["resume", "report"])
def test_a_folder_without_a_run_cannot_be_gone_on_with(tmp_path, name):
    message = r"a run folder must hold run\.json, got .*; give the --out folder of an earlier run"
    refused(command(name, tmp_path / "nothing"), 2, message)
    (tmp_path / "run.json").write_text("{}")
    refused(
        command(name, tmp_path), 9, r"run\.json must have format 1, got another in .*; use the version that wrote it"
    )
    (tmp_path / "run.json").write_text("{")
    refused(command(name, tmp_path), 9, r"run\.json must be readable JSON, got .*; restore it or start a new run")


def test_a_gaussian_process_needs_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # how Python notes what cannot be imported
    message = "--sampler gp needs the package torch, got none installed; install it or choose tpe"
    refused(attempt(tmp_path, "--sampler", "gp"), 2, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], r"No such command 'frobnicate'.*; see `offline-tune --help`"),
        (["run"], r"Missing argument 'DATA'; see `offline-tune run --help`"),
        (["run", "data.csv"], r"Missing option '--target'; see `offline-tune run --help`"),
        (
            ["models", "info", "a", "b"],
            r"Got unexpected extra argument.* \(?b\)?; see `offline-tune models info --help`",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_answered_in_one_line(arguments, message):
    refused(command(*arguments), 2, message)


def test_each_class_of_error_has_an_exit_code_of_its_own():
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, OfflineTuneError)]
    codes = [each.exit_code for each in classes]
    assert len(set(codes)) == len(codes)
    assert NETWORK_REFUSED not in codes
    for each in classes:
        assert re.search(rf"{each.__name__} +{each.exit_code}\b", errors.__doc__)


def test_an_attempt_to_leave_the_machine_ends_in_one_line():
    done = subprocess.run([sys.executable, "-c", LEAVE], cwd=ROOT, capture_output=True, text=True)
    message = r"error: a run may not leave this machine: only this machine may be reached, got '192\.0\.2\.1' .*\n"
    assert (done.returncode, done.stdout) == (13, "")
    assert re.fullmatch(message, done.stderr)
