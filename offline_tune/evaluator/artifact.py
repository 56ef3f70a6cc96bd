"""Exported models: one folder, no pickle, every file under a digest, and the same predictions to the last bit.

::

    manifest.json          format, task, weights and values of the members, versions, SHA-256 of every other file
    members/0/             pipeline.skops; booster.json and booster.ubj, .txt or .cbm where there is a booster
    members/1/ ...
    meta.skops             the model over the members of a stack, where there is one

Digests find damage. Against a folder that was forged stand the fixed list of types (`member.TRUSTED`) and the
vendors' formats, which hold no code; a forged file may still exhaust memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offline_tune.errors import ArtifactError
from offline_tune.evaluator.fitted import FittedModel
from offline_tune.evaluator.member import files_of, from_skops, pipeline_of, to_skops
from offline_tune.evaluator.sealed import MANIFEST, check_free, seal, unseal
from offline_tune.space import Values
from offline_tune.task import Column, ColumnKind, Metric, Note, Task, TaskKind

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

META = "meta.skops"

_LIBRARIES = ("scikit-learn", "xgboost", "lightgbm", "catboost", "skops", "numpy", "pandas")


@dataclass(frozen=True, eq=False)
class Member:
    """One model of an export.

    Attributes:
        fitted: the pipeline, or the folder to which `PoolEvaluator.refit` wrote it.
        weight: its share in a weighted mean; without meaning in a stack.
        values: the candidate that it was trained from.
    """

    fitted: Pipeline | Path
    weight: float = 1.0
    values: Values | None = None


def save_model(
    folder: Path,
    members: Sequence[Member],
    task: Task,
    *,
    meta: Any = None,
    record: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> None:
    """Write an export; either all of it appears at `folder`, or nothing changes.

    Args:
        folder: made here, with its parents.
        members: at least one. Weights are divided by their sum; members of weight 0 are left out unless there is a
            meta-model, which needs the predictions of all.
        task: what was learnt.
        meta: a fitted scikit-learn model over the members' predictions (`ensemble.stack`).
        record: JSON values to keep with the model, such as its scores, its seed and the digest of its data.
        replace: whether an earlier export at `folder` may be replaced; anything else there never is.

    Raises:
        ArtifactError: no member, weights that are negative or all 0, or a part that could not be read back.
        OutputError: `folder` is occupied or cannot be written.
    """
    kept = _weighed(members, keep_all=meta is not None)
    check_free(folder, replace=replace)
    files = {
        f"members/{place}/{name}": content
        for place, member in enumerate(kept)
        for name, content in _files_of_member(member).items()
    }
    if meta is not None:
        files[META] = to_skops(meta)
    facts = {
        "task": asdict(task),
        "members": [{"weight": member.weight, "values": dict(member.values or {})} for member in kept],
        "record": dict(record or {}),
        "versions": _versions(),
    }
    seal(folder, files, facts, replace=replace)


def load_model(folder: Path) -> FittedModel:
    """Read an export back.

    Raises:
        ArtifactError: `folder` holds no export, one of another format, or a file that is missing, damaged or of a
            type that is not trusted.
    """
    facts, files = unseal(folder)
    try:
        task, entries = _task_of(facts["task"]), list(facts["members"])
        weights = np.array([float(entry["weight"]) for entry in entries])
        values = tuple(dict(entry["values"]) for entry in entries)
        record, versions = dict(facts["record"]), dict(facts["versions"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__} {error}"[:100]
        raise ArtifactError(f"{MANIFEST} must describe a model, got {reason!r}; export it again") from None
    return FittedModel(
        task=task,
        pipelines=tuple(pipeline_of(_under(f"members/{place}/", files)) for place in range(len(entries))),
        weights=weights,
        values=values,
        meta=from_skops(files[META]) if META in files else None,
        record=record,
        notes=_version_notes(versions),
    )


def write_member(folder: Path, pipeline: Pipeline) -> None:
    """Write one fitted pipeline to a folder of its own, whole or not at all.

    Raises:
        ArtifactError: a part could not be read back.
        OutputError: the folder is occupied or cannot be written.
    """
    check_free(folder)
    seal(folder, files_of(pipeline), {})


def read_member(folder: Path) -> Pipeline:
    """Inverse of `write_member`.

    Raises:
        ArtifactError: as for `load_model`.
    """
    return pipeline_of(unseal(folder)[1])


def _weighed(members: Sequence[Member], *, keep_all: bool) -> list[Member]:
    weights = np.array([member.weight for member in members], dtype=np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ArtifactError(
            f"an export needs members with weights of at least 0 that are not all 0, got {weights.tolist()}; pass some"
        )
    return [
        Member(member.fitted, float(weight), member.values)
        for member, weight in zip(members, weights / weights.sum(), strict=True)
        if keep_all or weight > 0
    ]


def _files_of_member(member: Member) -> dict[str, bytes]:
    return unseal(member.fitted)[1] if isinstance(member.fitted, Path) else files_of(member.fitted)


def _under(prefix: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name.removeprefix(prefix): content for name, content in files.items() if name.startswith(prefix)}


def _task_of(record: Mapping[str, Any]) -> Task:
    return Task(
        name=record["name"],
        target=record["target"],
        kind=TaskKind(record["kind"]),
        metric=Metric(**record["metric"]),
        shown=tuple(Metric(**metric) for metric in record["shown"]),
        classes=tuple(record["classes"]),
        columns=tuple(Column(**{**column, "kind": ColumnKind(column["kind"])}) for column in record["columns"]),
        n_rows=record["n_rows"],
    )


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def _version_notes(exported: Mapping[str, str]) -> tuple[Note, ...]:
    here = _versions()
    return tuple(
        Note(f"the model was exported with {library} {version}, here is {here.get(library, 'none')}")
        for library, version in exported.items()
        if here.get(library) != version
    )
