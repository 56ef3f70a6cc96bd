"""The commands. Each reads its options, calls one function of the layers below, and prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offline_tune import __version__
from offline_tune.cli import options
from offline_tune.cli.options import PATH
from offline_tune.cli.output import emit, emit_json
from offline_tune.cli.pretrain import pretrain

if TYPE_CHECKING:
    from offline_tune.study.settings import RunSettings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="offline-tune")
def offline_tune() -> None:
    """Tune and train machine-learning models on this machine alone, driven by a GGUF Llama under a grammar."""


offline_tune.add_command(pretrain)


@offline_tune.command()
@click.argument("data", type=PATH)
@click.option("--target", required=True, help="The column to learn.")
@click.option("--out", type=PATH, help="Folder of the run.  [default: runs/<name of the data>]")
@click.option("--task", default="auto", show_default=True, help="auto, binary, multiclass or regression.")
@click.option("--metric", help="Any scikit-learn scorer, or log_loss, auc, rmse, mae ...  [default: by task]")
@click.option("--family", "families", multiple=True, help="Family of models, several times or auto.  [default: auto]")
@click.option("--sampler", default="llama", show_default=True, help="Who proposes: llama, tpe, gp, random or grid.")
@options.model
@options.placement
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
    help="How the best trials are blended, beside the winner.",
)
@click.option("--description", default="", help="What the data are about, in words for an instruct model.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@options.budget
@options.as_json
def run(as_json: bool, **given: Any) -> None:
    """Tune models on the table DATA and keep the best."""
    from offline_tune.cli import progress
    from offline_tune.cli.settings import settings_of
    from offline_tune.tuner import run as runs

    settings = settings_of(given)
    with progress.resumable(settings.out):
        with progress.watched() as listener:
            runs.start(settings, listener)
        _end(settings.out, as_json)


@offline_tune.command()
@click.argument("folder", type=PATH)
@click.option("--trials", type=int, help="A new total of trials.")
@click.option("--time-limit", type=options.DURATION, help="A new time limit, earlier parts of the run included.")
@click.option("--trial-time-limit", type=options.DURATION, help="A new limit of one trial.")
@click.option("--trial-memory", type=options.MEMORY, help="A new limit of one trial's memory.")
@click.option("--workers", type=int, help="Trials that run at the same time from now on.")
@options.new_placement
@options.as_json
def resume(folder: Path, as_json: bool, **given: Any) -> None:
    """Go on with the run in FOLDER, as if it had never stopped."""
    from offline_tune.cli import progress
    from offline_tune.cli.settings import changed
    from offline_tune.tuner import run as runs

    def change(settings: RunSettings) -> RunSettings:
        return changed(settings, given)

    with progress.resumable(folder):
        with progress.watched() as listener:
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
@click.option("--out", type=PATH, help="A file to write instead of stdout.")
@click.option("--ensemble", is_flag=True, help="Use the run's ensemble instead of its winner.")
@click.option("--probabilities", is_flag=True, help="A column for each class's probability.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array of rows instead of CSV.")
def predict(folder: Path, data: Path, out: Path | None, ensemble: bool, probabilities: bool, as_json: bool) -> None:
    """Predict the rows of DATA with the model of the run in FOLDER (or of an exported model folder)."""
    from offline_tune.cli import predict as prediction

    if out is not None:
        prediction.check_apart(out, data)
    text = prediction.predict_file(folder, data, ensemble, probabilities, as_json)
    if out is None:
        emit(text)
    else:
        prediction.write(out, text)


@offline_tune.command()
@options.model
@options.placement
@options.as_json
def doctor(as_json: bool, **given: Any) -> None:
    """Say what this machine and this installation can do, and whether the network is closed."""
    from offline_tune.cli.doctor import examine

    findings = examine(**given)
    if as_json:
        emit_json([asdict(finding) for finding in findings])
    else:
        emit("".join(f"{finding.mark:6}{finding.what}: {finding.detail}\n" for finding in findings))
    if not all(finding.ok for finding in findings if finding.required):
        raise click.exceptions.Exit(1)


@offline_tune.group()
def models() -> None:
    """GGUF models: list, verify and describe them."""


@models.command("list")
@options.as_json
def models_list(as_json: bool) -> None:
    """The shipped models."""
    from offline_tune.cli.models import line_of, shipped

    entries = shipped()
    if as_json:
        emit_json(entries)
    else:
        emit("".join(f"{line_of(entry)}\n" for entry in entries))


@models.command("verify")
@click.argument("path", type=PATH, required=False)
@options.as_json
def models_verify(path: Path | None, as_json: bool) -> None:
    """Check a model's header and its hash against the manifest (the shipped model by default)."""
    from offline_tune.cli.models import verified

    found = verified(path)
    if as_json:
        emit_json(asdict(found))
    else:
        emit(f"{found.sentence}\n")


@models.command("info")
@click.argument("path", type=PATH, required=False)
@options.as_json
def models_info(path: Path | None, as_json: bool) -> None:
    """What a model file says of itself."""
    from offline_tune.cli.models import described
    from offline_tune.report.wording import printable

    facts = described(path)
    if as_json:
        emit_json(facts)
    else:
        emit("".join(f"{printable(name):40} {printable(value, 200)}\n" for name, value in facts.items()))


def _end(folder: Path, as_json: bool) -> None:
    from offline_tune import report as reports
    from offline_tune.report.text import summary
    from offline_tune.study.folder import RunFolder, read_json

    run_folder = RunFolder(folder)
    run_folder.check_exists()
    written = reports.write(run_folder)
    if as_json:
        emit_json(read_json(run_folder.result))
    else:
        emit(summary(written))
