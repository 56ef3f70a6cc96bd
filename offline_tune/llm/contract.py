"""The contract of every language model: token ids in, texts that a grammar accepts out.

Frozen values and protocols only. Knows no engine; `llm.llama` holds the real model, `llm.scripted` its double.

Notation: k completions, n_vocab tokens in the vocabulary. Token ids are plain ints; arrays of them are int32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import UsageError

Dialect = Literal["chat", "compact"]
ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn from the allowed ones.

    `min_p` and `top_p` cut by the model's own probabilities among the allowed tokens, in this order; `temperature`
    then flattens (above 1) or sharpens what is left. Temperature 0 takes the most probable token.

    Attributes:
        temperature: 0 or more.
        top_p: the share of probability that the most probable tokens kept must reach, above 0, at most 1 (all).
        min_p: the least probability of a token kept, as a share of the most probable one's; 0 (all) to 1.

    Raises:
        UsageError: a value outside its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"temperature must be 0 or more, got {self.temperature:g}; 1 is the model's own")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p:g}; 1 keeps every token")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min_p must be between 0 and 1, got {self.min_p:g}; 0 keeps every token")


@dataclass(frozen=True, slots=True)
class Completion:
    """One text that the grammar accepted.

    The log-probabilities are the model's own, at temperature 1 before any cut, so they compare between calls. They
    sum over the sampled tokens: a forced token counts as certain.

    Attributes:
        tokens: ids, without a closing end-of-generation token.
        text: what the tokens spell.
        logprob: natural log of the probability among the tokens that the grammar allowed.
        raw_logprob: the same among the entire vocabulary; at most `logprob`.
        rejected_mass: mean over sampled tokens of the probability that the model gave to forbidden ones; 0 is a
            model that knows the grammar, 1 one that never heard of it.
        decisions: the logprob of each sampled token, in order; they sum to `logprob`.
    """

    tokens: tuple[int, ...]
    text: str
    logprob: float
    raw_logprob: float
    rejected_mass: float
    decisions: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of a model file.

    Attributes:
        sha256: of the file, hexadecimal.
        architecture: llama.cpp's name for it.
        dialect: how it wants to be asked.
        n_ctx_train: longest text in training, tokens.
        chat_template: the file's own Jinja text; untrusted.
        metadata: the file's scalar keys.
    """

    path: Path
    sha256: str
    architecture: str
    dialect: Dialect
    n_ctx_train: int
    n_vocab: int
    n_parameters: int
    file_bytes: int
    chat_template: str | None
    metadata: Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Counters:
    """What a model has done since it was loaded.

    Attributes:
        calls: of `complete` and `logits_after`.
        tokens_evaluated: tokens that went through the network; what the prompt cache saved is not in it.
        tokens_sampled: tokens drawn; forced ones are not in it.
        seconds: wall time inside those calls.
    """

    calls: int = 0
    tokens_evaluated: int = 0
    tokens_sampled: int = 0
    seconds: float = 0.0


class Matcher(Protocol):
    """A grammar with a position in it. Every method raises DecodingError when the grammar cannot go on."""

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        ...

    def mask_into(self, row: NDArray[np.uint32]) -> None:
        """Write which tokens may come next: bit i % 32 of word i // 32 is set for token i, all others are cleared.

        At least one is set. An end-of-generation token among them means that the text may end here.

        Args:
            row: (ceil(n_vocab / 32),), C-contiguous; see `llm.mask`.
        """
        ...

    def forced(self) -> tuple[int, ...]:
        """The tokens that are decided already, up to the next choice as far as it is known, possibly none.

        The position stays.
        """
        ...

    def advance(self, tokens: Sequence[int]) -> None:
        """Move over `tokens`, each of which the grammar must allow."""
        ...

    def clone(self) -> Self:
        """An independent copy at the same position."""
        ...


class LanguageModel(Protocol):
    """A causal language model that answers under a grammar.

    Only the thread that made it may call it, one call at a time. After an error it is usable as before.
    """

    @property
    def info(self) -> ModelInfo:
        """What the file says of itself."""
        ...

    @property
    def n_ctx(self) -> int:
        """Most tokens that a prompt and one completion may have together."""
        ...

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The tokens as the file spells them, by id."""
        ...

    @property
    def prompt_start(self) -> tuple[int, ...]:
        """The tokens that every prompt must begin with: the beginning-of-text token, or none."""
        ...

    @property
    def counters(self) -> Counters:
        """What it has done so far."""
        ...

    def token_id(self, piece: str) -> int:
        """The id of the token spelt `piece` in the file.

        Raises:
            ModelError: the vocabulary has no such token.
        """
        ...

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Ids that spell `text`; nothing is put before or after it.

        Args:
            text: any text; a lone surrogate is written as a question mark.
            special: whether `<|im_end|>` and its like are read as the tokens they name. False for any text that
                the program did not write itself: then they are ordinary characters.
        """
        ...

    def matcher(self, regex: str) -> Matcher:
        """A matcher of all tokenisations of the strings of `regex` (Rust syntax, whole string).

        Raises:
            DecodingError: the expression is malformed or too large.
        """
        ...

    def complete(
        self,
        prompt: Sequence[int],
        matcher: Matcher,
        k: int,
        sampling: Sampling,
        seeds: Sequence[int],
        max_tokens: int,
    ) -> tuple[Completion, ...]:
        """Draw k texts after one prompt, in the order of `seeds`.

        Args:
            prompt: at least one id.
            matcher: the grammar, where the texts begin; it stays there itself.
            k: how many texts, 1 or more.
            sampling: how tokens are drawn.
            seeds: k integers, 0 or more; a completion depends on its own seed, not on its neighbours'.
            max_tokens: at least the grammar's longest text, in tokens.

        Raises:
            UsageError: k, seeds, a token id or max_tokens out of range; the wrong thread; a call within a call.
            DecodingError: the grammar could not be enforced, the text did not fit; no text is returned then.
        """
        ...

    def logits_after(
        self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], columns: slice = ALL
    ) -> NDArray[np.float32]:
        """The logits of the token after each continuation of one prompt.

        The prompt is evaluated once.

        Args:
            prompt: at least one id.
            continuations: each of at least one id.
            columns: the tokens whose logits are wanted.

        Returns:
            Shape (len(continuations), tokens in columns).

        Raises:
            UsageError: an empty prompt or continuation, a token id out of range; the wrong thread.
            DecodingError: too long for the context, or logits that are not numbers.
        """
        ...

    def close(self) -> None:
        """Free the memory; idempotent. Matchers of this model raise afterwards."""
        ...
