"""The trials of a sweep as one small file that stays in the repository: scores and facts, and no row of any table.

An .npz with n trials, p places of the widest space, and these keys:

    provenance   JSON: settings, program version, tables with licence and origin, digests of the families' spaces,
                 seconds spent
    tables       JSON: for each table its name, metric, data card, and the number of each family's space
    spaces       JSON: each distinct space once, as `SearchSpace.to_json` writes it
    families     names
    table, family, number, outcome   (n,) which table and family, which candidate, how it ended (a place in `outcomes`)
    outcomes     names of `evaluator.contract.Outcome`
    places       (n, p) the lattice place of each parameter of the space in its order, -1 where inactive
    score        (n,) the metric, greater is better, NaN where there is none
    second       (n,) accuracy or R², likewise
    seconds      (n,) wall seconds
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from offline_tune.cards import DataCard
from offline_tune.data.wording import quoted
from offline_tune.errors import DataError, OfflineTuneError, OutputError
from offline_tune.evaluator.contract import Outcome
from offline_tune.pretrain.sweep_log import FIRST_ENTRY, SweepLog, read_log
from offline_tune.space import SearchSpace, Values
from offline_tune.task import TaskKind

_INACTIVE = -1
_COLUMNS = ("number", "places", "score", "second", "seconds")
_DAMAGES = (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, EOFError, BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """One family measured on one table, n candidates by their numbers; number 0 is the default.

    Attributes:
        table: the table's name.
        family: the family's name.
        metric: what `scores` are.
        card: facts on the sample that was trained on.
        space: the family's on this table, names without prefix.
        numbers: shape (n,), ascending; odd ones, and those from `FIRST_ENTRY` on, are the
            same on all tables (see `sweep`).
        candidates: in the same order.
        scores: shape (n,), greater is better, NaN where a trial failed.
        second: shape (n,), accuracy or R², likewise.
        seconds: shape (n,).
    """

    table: str
    family: str
    metric: str
    card: DataCard
    space: SearchSpace
    numbers: NDArray[np.int64]
    candidates: tuple[Values, ...]
    scores: NDArray[np.float64]
    second: NDArray[np.float64]
    seconds: NDArray[np.float64]


def scale_of(sweeps: Sequence[Sweep]) -> tuple[float, float] | None:
    """On one table, the median of the even draws and its distance to the best of all; None where nothing differs."""
    even = np.concatenate([sweep.scores[sweep.numbers < FIRST_ENTRY] for sweep in sweeps])
    best = max(sweep.scores[np.isfinite(sweep.scores)].max(initial=-np.inf) for sweep in sweeps)
    even = even[np.isfinite(even)]
    if len(even) == 0 or best <= np.median(even):
        return None
    return float(np.median(even)), float(best - np.median(even))


@dataclass(frozen=True, eq=False)
class SweepTable:
    """What a file holds: every pair of table and family, and how the file came about."""

    sweeps: tuple[Sweep, ...]
    provenance: Mapping[str, Any]


def write_table(work: Path, out: Path) -> dict[str, object]:
    """Write the trials of a work file, which may be growing, as a table; `out` is replaced whole or not at all.

    Returns:
        What was written: counts, seconds, bytes.

    Raises:
        StudyError: the work file cannot be read.
        DataError: it holds no trial.
        OutputError: the table cannot be written.
    """
    log = read_log(work)
    if log.settings is None or not log.trials:
        raise DataError(f"a table needs at least one trial, got none in {quoted(work)}; run the sweep first")
    arrays, partial = _arrays(log), out.with_suffix(".partial.npz")
    try:
        np.savez_compressed(partial, allow_pickle=False, **arrays)
        partial.replace(out)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"the table must be writable, got {error.strerror} for {out}; choose another") from error
    return {
        "tables": len(np.unique(arrays["table"])),
        "families": len(arrays["families"]),
        "trials": len(log.trials),
        "failures": int(np.isnan(arrays["score"]).sum()),
        "seconds": round(float(arrays["seconds"].sum())),
        "bytes": out.stat().st_size,
    }


def load_table(path: Path) -> SweepTable:
    """Read a table.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return SweepTable(_sweeps(arrays), json.loads(str(arrays["provenance"])))
    except (*_DAMAGES, OfflineTuneError) as error:
        raise DataError(
            f"a table of sweeps must be an .npz that a sweep wrote, got {type(error).__name__} for {quoted(path)}; "
            "restore it or write it again"
        ) from error


def _arrays(log: SweepLog) -> dict[str, NDArray[Any]]:
    trials = [log.trials[key] for key in sorted(log.trials)]
    tables = sorted({trial["table"] for trial in trials})
    families = sorted({trial["family"] for trial in trials})
    outcomes = [outcome.name for outcome in Outcome]
    texts = {(t, f): json.dumps(log.tables[t]["spaces"][f]) for t, f, _ in log.trials}
    distinct = sorted(set(texts.values()))
    facts = [
        {
            "name": name,
            **{key: log.tables[name][key] for key in ("metric", "licence", "origin", "card")},
            "spaces": {family: distinct.index(texts[name, family]) for family in families if (name, family) in texts},
        }
        for name in tables
    ]
    spaces = {text: SearchSpace.from_json(text) for text in distinct}
    return {
        "provenance": np.array(json.dumps(_provenance(log, texts))),
        "tables": np.array(json.dumps(facts)),
        "spaces": np.array(json.dumps([json.loads(text) for text in distinct])),
        "families": np.array(families),
        "outcomes": np.array(outcomes),
        "table": np.array([tables.index(trial["table"]) for trial in trials], np.int16),
        "family": np.array([families.index(trial["family"]) for trial in trials], np.int16),
        "number": np.array([trial["number"] for trial in trials], np.int16),
        "outcome": np.array([outcomes.index(trial["outcome"]) for trial in trials], np.int8),
        "places": _padded([_places(spaces[texts[t["table"], t["family"]]], t["values"]) for t in trials]),
        "score": _scores(trials, [log.tables[trial["table"]]["metric"] for trial in trials]),
        "second": _scores(trials, [_second_metric(log.tables[trial["table"]]["card"]) for trial in trials]),
        "seconds": np.array([trial["seconds"] for trial in trials], np.float32),
    }


def _provenance(log: SweepLog, texts: Mapping[tuple[str, str], str]) -> dict[str, object]:
    families: dict[str, set[str]] = {}
    for (_, family), text in texts.items():
        families.setdefault(family, set()).add(text)
    assert log.settings is not None
    return {
        **{name: value for name, value in log.settings.items() if name != "kind"},
        "tables": {name: {key: line[key] for key in ("licence", "origin")} for name, line in log.tables.items()},
        "families": {
            name: hashlib.sha256("\n".join(sorted(spaces)).encode()).hexdigest()[:16]
            for name, spaces in sorted(families.items())
        },
        "trials": len(log.trials),
        "trial_seconds": round(sum(trial["seconds"] for trial in log.trials.values())),
    }


def _places(space: SearchSpace, values: Values) -> list[int]:
    return [p.lattice.index(values[p.name]) if p.name in values else _INACTIVE for p in space.parameters]


def _padded(rows: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    wide = max(map(len, rows))
    return np.array([[*row, *[_INACTIVE] * (wide - len(row))] for row in rows], np.int32)


def _scores(trials: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> NDArray[np.float32]:
    found = [(trial["scores"] or {}).get(metric) for trial, metric in zip(trials, metrics, strict=True)]
    return np.array([np.nan if score is None else score for score in found], np.float32)


def _second_metric(card: Mapping[str, Any]) -> str:
    return "accuracy" if TaskKind(card["kind"]).is_classification else "r2"


def _sweeps(arrays: Mapping[str, NDArray[Any]]) -> tuple[Sweep, ...]:
    tables, families = json.loads(str(arrays["tables"])), [str(name) for name in arrays["families"]]
    spaces = [SearchSpace.from_json(json.dumps(content)) for content in json.loads(str(arrays["spaces"]))]
    sweeps = []
    for place, facts in enumerate(tables):
        for name, space in sorted(facts["spaces"].items()):
            rows = np.flatnonzero((arrays["table"] == place) & (arrays["family"] == families.index(name)))
            sweeps.append(_sweep(facts, name, spaces[space], {k: arrays[k][rows] for k in _COLUMNS}))
    return tuple(sweeps)


def _sweep(facts: Mapping[str, Any], family: str, space: SearchSpace, columns: Mapping[str, NDArray[Any]]) -> Sweep:
    return Sweep(
        table=facts["name"],
        family=family,
        metric=facts["metric"],
        card=DataCard(**{**facts["card"], "kind": TaskKind(facts["card"]["kind"])}),
        space=space,
        numbers=columns["number"].astype(np.int64),
        candidates=tuple(_values(space, places) for places in columns["places"]),
        scores=columns["score"].astype(np.float64),
        second=columns["second"].astype(np.float64),
        seconds=columns["seconds"].astype(np.float64),
    )


def _values(space: SearchSpace, places: NDArray[np.int32]) -> Values:
    pairs = zip(space.parameters, places[: len(space.parameters)], strict=True)
    return {p.name: p.lattice.value(int(place)) for p, place in pairs if place != _INACTIVE}
