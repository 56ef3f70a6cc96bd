"""How a run was started: everything that `resume` needs to go on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from offline_tune.errors import StudyError, UsageError
from offline_tune.study.folder import RunFolder, read_json, write_json
from offline_tune.task import Budget, TrialLimits

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The options of `offline-tune run`, resolved.

    `data_digest`, `model_sha256` and `version` are facts that a resumed run must find again; `threads` of the language
    model, 0 until they are chosen, are kept by it.
    """

    data: Path
    target: str
    out: Path
    task: str = "auto"
    metric: str | None = None
    families: tuple[str, ...] = ("auto",)
    sampler: str = "llama"
    test: Path | None = None
    split_column: str | None = None
    group: str | None = None
    time: str | None = None
    test_share: float = 0.2
    folds: int = 5
    batch: int = 4
    workers: int = 0
    seed: int = 0
    model: Path | None = None
    device: Literal["auto", "cpu", "cuda", "metal"] = "auto"
    gpu_layers: int | Literal["all"] = "all"
    threads: int = 0
    drafts: int = 64
    temperature: float = 1.0
    ensemble: str = "caruana"
    description: str = ""
    budget: Budget = field(default_factory=Budget)
    limits: TrialLimits = field(default_factory=TrialLimits)
    data_digest: str = ""
    model_sha256: str = ""
    version: str = ""

    def save(self, folder: RunFolder) -> None:
        """Write run.json."""
        content = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        write_json(folder.settings, {"format": FORMAT, **content})

    @classmethod
    def load(cls, folder: RunFolder) -> RunSettings:
        """Read run.json.

        Raises:
            StudyError: damaged, or written by a newer version.
        """
        content = read_json(folder.settings)
        if content.pop("format", None) != FORMAT:
            raise StudyError(
                f"run.json must have format {FORMAT}, got another in {folder.path}; use the version that wrote it"
            )
        try:
            return replace(cls(**_typed(content)), out=folder.path)
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise StudyError(f"run.json must hold this version's settings, got {error}; start a new run") from error


def _typed(content: Mapping[str, Any]) -> dict[str, Any]:
    known = {each.name for each in fields(RunSettings)}
    typed = {name: value for name, value in content.items() if name in known}
    for name in ("data", "out", "test", "model"):
        typed[name] = Path(typed[name]) if typed.get(name) is not None else None
    typed["families"] = tuple(typed["families"])
    typed["budget"] = Budget(**typed["budget"])
    typed["limits"] = TrialLimits(**typed["limits"])
    return typed
