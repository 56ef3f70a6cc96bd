"""What came out of a run, as it stands in result.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from offline_tune.errors import StudyError
from offline_tune.space import Value
from offline_tune.study.folder import RunFolder, read_json, write_json

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A model with its cross-validated scores and its scores on the untouched test part (None where there is none)."""

    label: str
    trials: tuple[int, ...]
    weights: tuple[float, ...]
    values: Mapping[str, Value] = field(default_factory=dict)
    cv: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of wall time, and what the language model used.

    `evaluation` is the time during which at least one worker was busy, `model` the language model's, `total` the
    run's from start to result, all resumed parts added up.
    """

    total: float = 0.0
    evaluation: float = 0.0
    model: float = 0.0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    first_candidate: float | None = None
    peak_mib: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The winner and what it is compared with.

    `best_default` is the best default configuration of any family tried; `facts` is what the report shows of the
    task: kind, target, classes, metric names, card, notes, model.
    """

    winner: Scored
    best_default: Scored | None
    ensemble: Scored | None
    spent: Spent
    stopped: str
    facts: Mapping[str, Any]

    def save(self, folder: RunFolder) -> None:
        """Write result.json."""
        write_json(folder.result, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, folder: RunFolder) -> RunResult:
        """Read result.json.

        Raises:
            StudyError: missing, damaged or of another version.
        """
        content: dict[str, Any] = read_json(folder.result)
        try:
            if content.pop("format") != FORMAT:
                raise ValueError("another format")
            scored = {name: _scored(content.pop(name)) for name in ("winner", "best_default", "ensemble")}
            if scored["winner"] is None:
                raise ValueError("no winner")
            return cls(**{**content, **scored, "spent": Spent(**content["spent"])})
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError(
                f"result.json must hold this version's result, got {error!r}; run the study again"
            ) from error


def _scored(content: Mapping[str, Any] | None) -> Scored | None:
    if content is None:
        return None
    return Scored(**{**content, "trials": tuple(content["trials"]), "weights": tuple(content["weights"])})
