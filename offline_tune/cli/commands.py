"""The commands. Each reads its options, calls one function of the layers below, and prints."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from offline_tune import __version__
from offline_tune.cli import options
from offline_tune.cli.options import PATH


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="offline-tune")
def offline_tune() -> None:
    """Tune and train machine-learning models on this machine alone, driven by a GGUF Llama under a grammar."""


@offline_tune.command()
@click.argument("data", type=PATH)
@click.option("--target", required=True, help="The column to learn.")
@click.option("--out", type=PATH, help="Folder of the run.  [default: runs/<name of the data>]")
@click.option("--task", default="auto", show_default=True, help="auto, binary, multiclass or regression.")
@click.option("--metric", help="Any scikit-learn scorer, or log_loss, auc, rmse, mae ...  [default: by task]")
@click.option("--family", "families", multiple=True, help="Family of models, several times or auto.  [default: auto]")
@click.option("--sampler", default="llama", show_default=True, help="Who proposes: llama, tpe, gp, random or grid.")
@click.option("--model", type=PATH, help="A GGUF model.  [default: the shipped one]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "metal"]), default="auto", show_default=True)
@click.option("--test", type=PATH, help="A file with the test part.")
@click.option("--split-column", help="A column that says train or test.")
@click.option("--test-share", type=float, default=0.2, show_default=True, help="Share of rows held out for the test.")
@click.option("--group", help="A column whose values must not be torn apart by a split.")
@click.option("--time", help="A column in whose order the rows are split.")
@click.option("--folds", type=int, default=5, show_default=True, help="Folds of the cross-validation.")
@click.option("--batch", type=int, default=4, show_default=True, help="Candidates proposed and evaluated together.")
@click.option("--workers", type=int, default=0, help="Trials that run at the same time.  [default: one a core]")
@click.option("--drafts", type=int, default=64, show_default=True, help="Candidates the model writes in one pass.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Of the model's choices.")
@click.option(
    "--ensemble",
    type=click.Choice(["caruana", "voting", "stacking", "none"]),
    default="caruana",
    show_default=True,
)
@click.option("--description", default="", help="What the data are about, in words for an instruct model.")
@click.option("--seed", type=int, default=0, show_default=True)
@options.budget
@options.as_json
def run(as_json: bool, **given: Any) -> None:
    """Tune models on the table DATA and keep the best."""
    from offline_tune.cli.settings import settings_of
    from offline_tune.tuner import run as runs

    settings = settings_of(given)
    with _watched(settings.out, settings.budget.trials) as listener:
        runs.start(settings, listener)
    _end(settings.out, as_json)


@offline_tune.command()
@click.argument("folder", type=PATH)
@click.option("--trials", type=int, help="A new total of trials.")
@click.option("--time-limit", type=options.DURATION, help="A new time limit, earlier parts of the run included.")
@options.as_json
def resume(folder: Path, trials: int | None, time_limit: float | None, as_json: bool) -> None:
    """Go on with the run in FOLDER, as if it had never stopped."""
    from offline_tune.study.settings import RunSettings
    from offline_tune.tuner import run as runs

    def change(settings: RunSettings) -> RunSettings:
        total = settings.budget.trials if trials is None else trials
        seconds = settings.budget.seconds if time_limit is None else time_limit
        return replace(settings, budget=replace(settings.budget, trials=total, seconds=seconds))

    with _watched(folder, trials) as listener:
        runs.resume(folder, listener, change)
    _end(folder, as_json)


@offline_tune.command()
@click.argument("folder", type=PATH)
@options.as_json
def report(folder: Path, as_json: bool) -> None:
    """Write the report of the run in FOLDER again and print its summary."""
    _end(folder, as_json)


@offline_tune.command()
@click.argument("folder", type=PATH)
@click.argument("data", type=PATH)
@click.option("--out", type=PATH, help="A CSV file.  [default: stdout]")
@click.option("--ensemble", is_flag=True, help="Use the run's ensemble instead of its winner.")
@click.option("--probabilities", is_flag=True, help="A column for each class's probability.")
def predict(folder: Path, data: Path, out: Path | None, ensemble: bool, probabilities: bool) -> None:
    """Predict the rows of DATA with the model of the run in FOLDER (or of an exported model folder)."""
    from offline_tune.cli.predict import predict_file

    text = predict_file(folder, data, ensemble, probabilities)
    if out is None:
        click.echo(text, nl=False)
    else:
        from offline_tune.study.folder import writing

        with writing(out):
            out.write_text(text, encoding="utf-8")


@offline_tune.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Say what this machine and this installation can do, and whether the network is closed."""
    from offline_tune.cli.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'NO  '}{finding.what}: {finding.detail}")
    if not all(finding.ok for finding in findings if finding.required):
        raise click.exceptions.Exit(1)


@offline_tune.group()
def models() -> None:
    """GGUF models: list, verify and describe them."""


@models.command("list")
@options.as_json
def models_list(as_json: bool) -> None:
    """The shipped models."""
    from offline_tune.cli.models import shipped

    entries = shipped()
    if as_json:
        click.echo(json.dumps(entries, indent=1))
    for entry in () if as_json else entries:
        click.echo(
            f"{entry['file']}  {entry['dialect']}  {entry['mib']} MiB  {entry['licence']}  sha256 {entry['sha256']}"
        )


@models.command("verify")
@click.argument("path", type=PATH, required=False)
def models_verify(path: Path | None) -> None:
    """Check a model's header and its hash against the manifest (the shipped model by default)."""
    from offline_tune.cli.models import verified

    click.echo(verified(path))


@models.command("info")
@click.argument("path", type=PATH, required=False)
@options.as_json
def models_info(path: Path | None, as_json: bool) -> None:
    """What a model file says of itself."""
    from offline_tune.cli.models import described

    facts = described(path)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    for name, value in {} if as_json else facts.items():
        click.echo(f"{name:16} {value}")


def _watched(folder: Path, trials: int | None) -> Any:
    from offline_tune.cli.progress import watched

    return watched(folder, trials)


def _end(folder: Path, as_json: bool) -> None:
    from offline_tune import report as reports
    from offline_tune.report.text import summary
    from offline_tune.study.folder import RunFolder, read_json

    run_folder = RunFolder(folder)
    run_folder.check_exists()
    written = reports.write(run_folder)
    if as_json:
        click.echo(json.dumps(read_json(run_folder.result), indent=1, ensure_ascii=False))
    else:
        click.echo(summary(written))
