"""Small data, a small untrained Llama, and whole runs on them: in this process, or as a program of its own.

What several test modules use is made once and shared; it must not be changed.
"""

import atexit
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import optuna
import pandas as pd

from offline_tune.cli import run_command
from offline_tune.study.folder import RunFolder
from offline_tune.study.storage import load_study

ROOT = Path(__file__).parents[1]
FAST = ("--family", "linear,knn", "--folds", "3", "--drafts", "16", "--workers", "1")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def last_line(self):
        return self.err.splitlines()[-1] if self.err else ""


@dataclass(frozen=True)
class Shop:
    """A folder with a model and tables: 120 rows, features a, b (numbers, some missing) and c (words)."""

    folder: Path
    model: Path
    data: Path
    regression: Path


@cache
def shop() -> Shop:
    folder = Path(tempfile.mkdtemp(prefix="offline-tune-shop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    frame = a_frame()
    frame.to_csv(folder / "small.csv", index=False)
    amounts = (3 * frame["a"].fillna(0) + np.sin(np.arange(len(frame)))).round(4)
    frame.assign(y=amounts).to_csv(folder / "amounts.csv", index=False)
    return Shop(folder, tiny_model(folder / "tiny.gguf"), folder / "small.csv", folder / "amounts.csv")


def a_frame(n=120, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n)).round(3)
    c = rng.choice(["red", "green", "blue"], n)
    y = np.where(a + (c == "red") + 0.5 * rng.normal(size=n) > 0, "yes", "no")
    return pd.DataFrame({"a": np.where(rng.random(n) < 0.05, np.nan, a), "b": b, "c": c, "y": y})


def tiny_model(path: Path, context: int = 4096) -> Path:
    """An untrained Llama in the compact dialect."""
    import torch

    from offline_tune.pretrain.export import export_gguf
    from offline_tune.pretrain.llama import Llama, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(width=32, layers=1, heads=1, feed_forward=32, context=context)
    export_gguf(Llama(config), path, "untrained")
    return path


def command(*arguments) -> Done:
    """`offline-tune ARGUMENTS` in this process, where the network is as it is."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        code = run_command([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())


def run_arguments(out: Path, *more, data: Path | None = None, trials: int = 7) -> list[str]:
    """A quick run of the shop's model on its data."""
    arguments = ["run", data or shop().data, "--target", "y", "--out", out, "--model", shop().model]
    return [str(a) for a in (*arguments, *FAST, "--trials", trials, *more)]


def program(*arguments, **options) -> subprocess.Popen:
    """`offline-tune ARGUMENTS` as a program of its own, its output in pipes."""
    scratch = shop().folder / "scratch"  # what a killed program leaves behind goes with the shop
    scratch.mkdir(exist_ok=True)
    ours = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TMPDIR": str(scratch)}
    environment = os.environ | ours | options.pop("env", {})
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(
        [sys.executable, "-m", "offline_tune", *map(str, arguments)],
        cwd=ROOT, env=environment, text=True, **streams | options,
    )  # fmt: skip


def finished(process: subprocess.Popen, timeout: float = 280) -> Done:
    out, err = process.communicate(timeout=timeout)
    return Done(process.returncode, out or "", err or "")


@cache
def finished_run() -> Done:
    """The run that many tests look at; its folder is `finished_folder()`."""
    return command(*run_arguments(finished_folder(), "--seed", 3))


@cache
def finished_regression() -> Done:
    """TPE on amounts, the last 30 rows as a test file, stacked; its folder is `shop().folder / "regression"`."""
    frame = pd.read_csv(shop().regression)
    train, later = shop().folder / "train.csv", shop().folder / "later.csv"
    frame.iloc[:90].to_csv(train, index=False)
    frame.iloc[90:].to_csv(later, index=False)
    options = ["--sampler", "tpe", "--test", later, "--ensemble", "stacking", "--metric", "r2", "--json"]
    return command(*run_arguments(shop().folder / "regression", *options, data=train, trials=5))


def finished_folder() -> Path:
    return shop().folder / "finished"


def copy_of_run(to: Path) -> Path:
    """A finished run that a test may damage."""
    assert finished_run().code == 0, finished_run().err
    shutil.copytree(finished_folder(), to)
    return to


def told(folder: Path):
    """What every trial of a run is and became, by number."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, _ = load_study(RunFolder(folder).storage)
    return [(t.number, t.state.name, t.params, t.values) for t in study.get_trials(deepcopy=False)]
