"""Real data sets through the command line, from the folder that OFFLINE_TUNE_DATA names (see its index.json).

adult: 20 trials of xgboost on the official split. Four more: 30 trials over all families, where the winner must beat
the best default of any family in cross-validation, with at least 15 valid distinct candidates of the model.

    OFFLINE_TUNE_DATA=../shared/data/tabular make bench-real     ONLY=adult for one; MODEL=x.gguf for another model
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna

from offline_tune.history import PROVENANCE
from offline_tune.samplers.proposal import Provenance, Source
from offline_tune.study.storage import load_study

RUNS = {
    "adult": (
        "adult.csv.gz",
        ["--target", "income", "--split-column", "split", "--family", "xgboost", "--trials", "20"],
    ),
    "wine_quality": ("wine_quality.csv.gz", ["--target", "quality", "--family", "auto", "--trials", "30"]),
    "spambase": ("spambase.csv.gz", ["--target", "type", "--family", "auto", "--trials", "30"]),
    "pmlb_satimage": ("pmlb_satimage.csv.gz", ["--target", "target", "--family", "auto", "--trials", "30"]),
    "german_credit": ("german_credit.csv.gz", ["--target", "credit", "--family", "auto", "--trials", "30"]),
}


def main() -> None:
    folder = Path(os.environ["OFFLINE_TUNE_DATA"])
    only = os.environ.get("ONLY", ",".join(RUNS)).split(",")
    extra = ["--model", os.environ["MODEL"]] if "MODEL" in os.environ else []
    with tempfile.TemporaryDirectory() as scratch:
        for name in only:
            file, options = RUNS[name]
            show(name, *run(folder / file, [*options, "--seed", "0", *extra], Path(scratch) / name))


def run(data: Path, options: list[str], out: Path) -> tuple[dict, Path, float]:
    began = time.perf_counter()
    command = [sys.executable, "-m", "offline_tune", "run", str(data), *options, "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout), out, time.perf_counter() - began


def show(name: str, result: dict, out: Path, seconds: float) -> None:
    study, space = load_study(out / "study.db")
    metric = result["facts"]["metric"]
    proposed = [t for t in study.trials if source(t) is Source.MODEL]
    distinct = {space.key(t.params) for t in proposed if space.contains(t.params)}
    winner, default, together = result["winner"], result["best_default"], result["ensemble"]
    family = winner["values"].get("family")
    print(f"\n{name}: {len(study.trials)} trials in {seconds:.0f} s, winner {winner['label']} {family}")
    print(f"  by the model: {len(proposed)} candidates, {len(distinct)} of them valid and distinct")
    print(f"  {metric} cross-validated: winner {winner['cv'][metric]:.5f}, best default {default['cv'][metric]:.5f}")
    for shown in result["facts"]["metrics"]:
        row = ", ".join(f"{label} {s['test'][shown]:.4f}" for label, s in (("winner", winner), ("default", default)))
        print(f"  {shown} test: {row}" + (f", ensemble {together['test'][shown]:.4f}" if together else ""), flush=True)


def source(trial: optuna.trial.FrozenTrial) -> Source:
    return Provenance.from_json(trial.user_attrs[PROVENANCE]).source


if __name__ == "__main__":
    main()
