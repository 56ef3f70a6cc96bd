"""`offline-tune pretrain`: what the shipped model learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from offline_tune.cli import options
from offline_tune.cli.options import DURATION, PATH
from offline_tune.cli.output import emit, emit_json, say


@click.group()
def pretrain() -> None:
    """Make what the shipped model learns from."""


@pretrain.command()
@click.argument("folder", type=PATH)
@click.option("--work", type=PATH, required=True, help="File of trials; a sweep goes on with what it holds.")
@click.option("--family", "families", multiple=True, help="Family of models, several times or auto.  [default: auto]")
@click.option("--datasets", multiple=True, help="Tables of the folder, several times.  [default: all]")
@click.option("--candidates", type=int, default=32, show_default=True, help="Beside the default, of each family.")
@click.option("--portfolio", type=PATH, help="A portfolio whose entries are measured on every table, too.")
@click.option("--rows", type=int, default=1000, show_default=True, help="Most rows of a table.")
@click.option("--folds", type=int, default=3, show_default=True, help="Folds of the cross-validation.")
@click.option("--trial-time-limit", type=DURATION, default="20s", show_default=True, help="Longest trial.")
@click.option("--workers", type=int, default=1, show_default=True, help="Trials that run at the same time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples, candidates and models.")
@click.option("--write", type=PATH, help="A table to write at the end.")
@options.as_json
def sweep(folder: Path, work: Path, write: Path | None, as_json: bool, **given: Any) -> None:
    """Measure families on the tables of FOLDER (see its index.json), default first, then even draws."""
    from offline_tune.pretrain.sweep import SweepPlan, run_sweep

    plan = SweepPlan(
        families=_names(given["families"]) or ("auto",),
        tables=_names(given["datasets"]),
        candidates=given["candidates"],
        portfolio=given["portfolio"],
        rows=given["rows"],
        folds=given["folds"],
        seconds=given["trial_time_limit"],
        workers=given["workers"],
        seed=given["seed"],
    )
    run_sweep(folder, work, plan, say)
    if write is not None:
        _write(work, write, as_json)


@pretrain.command()
@click.argument("work", type=PATH)
@click.argument("out", type=PATH)
@options.as_json
def table(work: Path, out: Path, as_json: bool) -> None:
    """Write the trials of the work file WORK, which may be growing, as the table OUT."""
    _write(work, out, as_json)


@pretrain.command()
@click.argument("out", type=PATH)
@click.option("--landscapes", type=PATH, help="Folder of evaluated configurations.")
@click.option("--sweeps", type=PATH, help="A table of sweeps.")
@click.option("--size", type=int, default=20, show_default=True, help="Entries of a list, at most.")
@click.option("--judged", is_flag=True, help="Judge swept candidates where they were not measured, for a next sweep.")
@options.as_json
def portfolio(out: Path, landscapes: Path | None, sweeps: Path | None, size: int, judged: bool, as_json: bool) -> None:
    """Choose configurations that complement each other and write them to the JSON file OUT."""
    from offline_tune.pretrain.portfolio import make_portfolios

    curves = make_portfolios(out, landscapes, sweeps, size, judged, say)
    if as_json:
        emit_json(curves)
    else:
        emit("".join(f"{name}: {' '.join(f'{r:.3f}' for r in curve)}\n" for name, curve in curves.items()))


def _write(work: Path, out: Path, as_json: bool) -> None:
    from offline_tune.pretrain.sweep_table import write_table

    summary = write_table(work, out)
    if as_json:
        emit_json(summary)
    else:
        emit("".join(f"{name}: {value}\n" for name, value in summary.items()))


def _names(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for names in given for name in names.split(","))
