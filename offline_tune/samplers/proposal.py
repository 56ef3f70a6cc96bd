"""What a sampler proposes, and the record of a call to the language model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from offline_tune.space import Values


class Source(StrEnum):
    """Who proposed a candidate."""

    DEFAULT = "default"
    PORTFOLIO = "portfolio"
    MODEL = "model"
    LOCAL = "local step"
    RANDOM = "random"
    TPE = "tpe"
    GP = "gp"
    GRID = "grid"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Why a trial was tried; stored with the trial as JSON.

    `logprob` is the candidate's log-probability under the grammar, `predicted` the mean outcome that the model
    foresaw and `improvement` its expected improvement (both on the history's scale, see `prompt.outcome`).
    """

    source: Source
    seed: int
    model_sha256: str = ""
    prompt_digest: str = ""
    grammar_digest: str = ""
    logprob: float | None = None
    predicted: float | None = None
    improvement: float | None = None
    seconds: float = 0.0

    def to_json(self) -> str:
        """One line; `from_json` reads it back."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Inverse of `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "source": Source(fields["source"])})


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate and where it came from."""

    values: Values
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One decoded candidate: what the model wrote, and how likely it was under the grammar."""

    text: str
    logprob: float
    rejected_mass: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One pass of the language model: the prompt, all its answers, what it cost."""

    first_trial: int
    prompt: str
    grammar_digest: str
    answers: tuple[Answer, ...]
    tokens_in: int
    tokens_out: int
    seconds: float

    @property
    def prompt_digest(self) -> str:
        """The first 16 hexadecimal digits of the prompt's sha256."""
        return text_digest(self.prompt)

    def to_json(self) -> str:
        """One line for the call log."""
        return json.dumps({**asdict(self), "prompt_digest": self.prompt_digest}, ensure_ascii=False)


def text_digest(text: str) -> str:
    """The first 16 hexadecimal digits of a text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
