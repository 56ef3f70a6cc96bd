"""Portfolios as a file: chosen on landscapes and on sweeps, data sets held out of training left out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offline_tune import __version__
from offline_tune.data.wording import quoted
from offline_tune.errors import DataError, OutputError, UsageError
from offline_tune.pretrain.greedy import CAP, SIZE, Field, greedy, regret_curve
from offline_tune.pretrain.holdout import is_held_out
from offline_tune.pretrain.landscape_field import landscape_fields
from offline_tune.pretrain.landscapes import held_out, load_scenarios
from offline_tune.pretrain.sweep_field import judged_fields, sweep_fields
from offline_tune.pretrain.sweep_table import load_table

Say = Callable[[str], None]


def make_portfolios(
    out: Path,
    landscapes: Path | None,
    sweeps: Path | None,
    size: int = SIZE,
    judged: bool = False,
    say: Say = lambda line: None,
) -> dict[str, list[float]]:
    """Choose and write the portfolios of all families, held-out data sets left out.

    Args:
        out: the JSON file.
        landscapes: folder of evaluated configurations, None for none.
        sweeps: table of sweeps, None for none.
        size: entries of a list, at most.
        judged: choose from the sweeps by `judged_fields`, for a further sweep.
        say: told of each step.

    Returns:
        For each list the mean regret on its own data sets after each entry.

    Raises:
        UsageError: there is nothing to choose from, or a size below one.
        DataError: a file is damaged.
        OutputError: the portfolio cannot be written.
    """
    if size < 1 or (landscapes is None and sweeps is None):
        raise UsageError("a portfolio needs --landscapes or --sweeps and --size 1 or more, got neither; add one")
    fields, told = dict[str, Mapping[str, Field]](), dict[str, object]()
    if sweeps is not None:
        table = load_table(sweeps)
        kept_back = sorted({s.table for s in table.sweeps if is_held_out(s.table)})
        fields["sweeps"] = (judged_fields if judged else sweep_fields)(table.sweeps, kept_back)
        told["sweeps"] = {**table.provenance, "tables": sorted(table.provenance["tables"]), "held out": kept_back}
    if landscapes is not None:
        fields["landscapes"] = landscape_fields(landscapes, say=say)
        if not fields["landscapes"]:
            raise DataError(f"--landscapes must hold a known table, got none in {quoted(landscapes)}; name its folder")
        told["landscapes"] = _landscape_provenance(landscapes)
    return write_portfolios(out, fields, told, size)


def write_portfolios(
    path: Path, fields: Mapping[str, Mapping[str, Field]], provenance: Mapping[str, object], size: int = SIZE
) -> dict[str, list[float]]:
    """Choose and write every portfolio, whole or not at all.

    Args:
        path: the JSON file to write.
        fields: by origin, then by family.
        provenance: how the fields came about.
        size: entries at most.

    Returns:
        For each list the mean regret on its own data sets after each entry.

    Raises:
        OutputError: the file cannot be written.
    """
    lists, curves = [], dict[str, list[float]]()
    for origin, families in fields.items():
        for family, field in sorted(families.items()):
            chosen = greedy(field.regrets, size)
            curves[f"{origin} {family}"] = regret_curve(field.regrets, chosen)
            lists.append(
                {
                    "family": family,
                    "origin": origin,
                    "entries": [field.candidates[i] for i in chosen],
                    "regrets": _hundredths(field.regrets[:, chosen]),
                }
            )
    content = {"provenance": {**provenance, "program": __version__, "regret": curves}, "portfolios": lists}
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(_spelled(content), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"the portfolio must be writable, got {error.strerror} for {path}; choose another") from error
    return curves


def _hundredths(regrets: NDArray[np.float64]) -> list[list[int]]:
    """(t, k) regrets, capped: a line for each data set, without its name."""
    return [[round(100 * value) for value in row] for row in np.minimum(regrets, CAP).tolist()]


def _landscape_provenance(folder: Path) -> dict[str, object]:
    scenarios = load_scenarios(folder)
    return {s.family: {"data sets": len(s.pools) - len(held_out(s)), "held out": list(held_out(s))} for s in scenarios}


def _spelled(content: Mapping[str, object]) -> str:
    """JSON with one entry a line, so that a change can be read."""
    text = json.dumps(content, indent=1, ensure_ascii=True)
    return re.sub(r"\{[^{}\[\]]*\}|\[[^{}\[\]]*\]", lambda m: re.sub(r"\s*\n\s*", " ", m[0]), text) + "\n"
