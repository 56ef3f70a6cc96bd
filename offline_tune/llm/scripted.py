"""A language model without a network, for tests of everything that asks one.

It answers from a script, or draws evenly among what the grammar allows, and refuses a line that the grammar would
not accept. It keeps the contract of `LanguageModel`, with a vocabulary of single bytes and the caller's words.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import DecodingError, ModelError, UsageError
from offline_tune.llm.contract import (
    ALL,
    Completion,
    Counters,
    Dialect,
    LanguageModel,
    Matcher,
    ModelInfo,
    Sampling,
)
from offline_tune.llm.mask import allowed
from offline_tune.llm.matcher import RegexMatcher
from offline_tune.llm.request import Turns, check_request
from offline_tune.llm.sampling import Draw, draw

END = 0
_BYTE_0 = 1
_WORDS_0 = _BYTE_0 + 256


class ScriptedModel(LanguageModel):
    """Answers call i of `complete` with the texts `script[i]`, and later calls evenly at random.

    Attributes:
        prompts: the prompts it was given so far, in order.

    >>> model = ScriptedModel([["7", "9"]])
    >>> [c.text for c in model.complete([1], model.matcher("[0-9]"), 2, Sampling(), [0, 1], 1)]
    ['7', '9']
    """

    def __init__(
        self,
        script: Sequence[Sequence[str]] = (),
        *,
        words: Sequence[str] = (),
        then_uniform: bool = True,
        n_ctx: int = 65_536,
        dialect: Dialect = "chat",
        chat_template: str | None = None,
    ) -> None:
        """Make a model.

        Args:
            script: for each call its answers, one for each seed.
            words: tokens beside the 256 bytes, such as a dialect's.
            then_uniform: whether calls beyond the script are answered at random rather than refused.
            n_ctx: most tokens of a prompt and one answer together.
            dialect: how it says it wants to be asked.
            chat_template: what it says its template is.
        """
        self._script = [tuple(answers) for answers in script]
        self._then_uniform = then_uniform
        self._vocabulary = ("</s>", *(f"<0x{i:02X}>" for i in range(256)), *words)
        self._bytes = (b"", *(bytes([i]) for i in range(256)), *(w.encode() for w in words))
        self._ids = {piece: token for token, piece in reversed(list(enumerate(self._vocabulary)))}
        self._words = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True)))) if words else None
        self._n_ctx = n_ctx
        self._info = _info(self._script, self._vocabulary, n_ctx, dialect, chat_template)
        self._turns = Turns()
        self._counters = Counters()
        self._closed = False
        self.prompts: list[tuple[int, ...]] = []

    @property
    def info(self) -> ModelInfo:
        """What it says of itself."""
        return self._info

    @property
    def n_ctx(self) -> int:
        """Most tokens that a prompt and one completion may have together."""
        return self._n_ctx

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The end token, the 256 bytes, the words."""
        return self._vocabulary

    @property
    def prompt_start(self) -> tuple[int, ...]:
        """Nothing."""
        return ()

    @property
    def counters(self) -> Counters:
        """What it has done so far; the tokens it read count as evaluated."""
        return self._counters

    def token_id(self, piece: str) -> int:
        """The id of a token; see `LanguageModel.token_id`."""
        if piece not in self._ids:
            raise ModelError(
                f"the vocabulary must hold the token {piece[:60]!r}, got {len(self._vocabulary)} without it; "
                "give it as a word"
            )
        return self._ids[piece]

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Ids that spell `text`: words where `special`, longest first, bytes elsewhere."""
        found: list[int] = []
        position = 0
        for word in self._words.finditer(text) if special and self._words else ():
            found += [_BYTE_0 + b for b in text[position : word.start()].encode("utf-8", "replace")]
            found.append(self._ids[word.group()])
            position = word.end()
        return found + [_BYTE_0 + b for b in text[position:].encode("utf-8", "replace")]

    def spell(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, for tests that read a prompt."""
        return b"".join(self._bytes[t] for t in tokens).decode("utf-8", "replace")

    def matcher(self, regex: str) -> Matcher:
        """A matcher of the strings of `regex`, byte by byte; see `LanguageModel.matcher`."""
        return RegexMatcher(self._tokenizer, regex)

    def complete(
        self,
        prompt: Sequence[int],
        matcher: Matcher,
        k: int,
        sampling: Sampling,
        seeds: Sequence[int],
        max_tokens: int,
    ) -> tuple[Completion, ...]:
        """The next answers of the script, else k even draws; see `LanguageModel.complete`."""
        check_request(k, seeds, max_tokens)
        with self._turn(prompt, max_tokens):
            answers = self._next_answers(k)
            found = tuple(
                self._walk(matcher.clone(), text, sampling, np.random.default_rng(seed), max_tokens)
                for text, seed in zip(answers, seeds, strict=True)
            )
        return found

    def logits_after(
        self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], columns: slice = ALL
    ) -> NDArray[np.float32]:
        """Equal logits for all tokens; see `LanguageModel.logits_after`."""
        with self._turn(prompt, max(map(len, continuations), default=0)):
            for tokens in continuations:
                self._check_tokens(tokens, "a continuation")
            return np.zeros((len(continuations), len(self._vocabulary)), np.float32)[:, columns]

    def close(self) -> None:
        """Refuse later calls; idempotent."""
        self._turns.refuse_within("closed")
        self._closed = True

    @cached_property
    def _tokenizer(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(_ByteTokenizer(self._bytes)), eos_token=END)

    @contextmanager
    def _turn(self, prompt: Sequence[int], n_longest: int) -> Iterator[None]:
        with self._turns.take():
            if self._closed:
                raise UsageError("a model must be open to be used, got a closed one; load it again")
            self._check_tokens(prompt, "a prompt")
            if len(prompt) + n_longest > self._n_ctx:
                raise DecodingError(
                    f"prompt and longest output must fit a context of {self._n_ctx} tokens, "
                    f"got {len(prompt)} + {n_longest}; show fewer trials"
                )
            self.prompts.append(tuple(prompt))
            start = time.perf_counter()
            yield
            so_far = self._counters
            self._counters = replace(
                so_far,
                calls=so_far.calls + 1,
                tokens_evaluated=so_far.tokens_evaluated + len(prompt),
                seconds=so_far.seconds + time.perf_counter() - start,
            )

    def _check_tokens(self, tokens: Sequence[int], what: str) -> None:
        if len(tokens) == 0 or not 0 <= min(tokens) <= max(tokens) < len(self._vocabulary):
            raise UsageError(
                f"{what} must hold token ids from 0 to {len(self._vocabulary) - 1}, got {str(list(tokens))[:60]}; "
                "tokenize with this model"
            )

    def _next_answers(self, k: int) -> Sequence[str | None]:
        if not self._script:
            if not self._then_uniform:
                raise DecodingError("the script must hold an answer for each call, got one call more; lengthen it")
            return [None] * k
        answers = self._script.pop(0)
        if len(answers) != k:
            raise DecodingError(f"the script must hold {k} answers for this call, got {len(answers)}; correct it")
        return answers

    def _walk(
        self, matcher: Matcher, text: str | None, sampling: Sampling, rng: np.random.Generator, max_tokens: int
    ) -> Completion:
        """Go through the grammar along `text`, or evenly at random where it is None."""
        even = np.zeros((1, len(self._vocabulary)), np.float32)
        totals = np.log([len(self._vocabulary)])
        rest = None if text is None else text.encode("utf-8", "replace")
        tokens: list[int] = []
        draws: list[Draw] = []
        while not matcher.finished:
            may_follow = allowed(matcher, len(self._vocabulary))
            if rest is None:
                (drawn,) = draw(even, totals, np.zeros(1, np.intp), may_follow, sampling, [rng])
            else:
                drawn = self._along(may_follow, rest, text)
            matcher.advance((drawn.token,))
            draws += [drawn] if may_follow.size > 1 else []
            tokens += [drawn.token] if drawn.token != END else []
            rest = rest[len(self._bytes[drawn.token]) :] if rest is not None else None
            if len(tokens) > max_tokens:
                raise DecodingError(
                    f"an output must have at most max_tokens = {max_tokens} tokens, got more and no end; "
                    "raise max_tokens to the longest text of the grammar"
                )
        if rest:
            raise _refusal(text, rest)
        self._counters = replace(self._counters, tokens_sampled=self._counters.tokens_sampled + len(draws))
        return self._completion(tokens, draws)

    def _along(self, may_follow: NDArray[np.int32], rest: bytes, text: str | None) -> Draw:
        """The longest allowed token that continues the text, as an even draw."""
        fitting = [t for t in may_follow.tolist() if rest.startswith(self._bytes[t])]
        if not fitting:
            raise _refusal(text, rest)
        n, n_vocab = may_follow.size, len(self._vocabulary)
        token = max(fitting, key=lambda t: len(self._bytes[t]))
        return Draw(token, -math.log(n), -math.log(n_vocab), 1 - n / n_vocab)

    def _completion(self, tokens: Sequence[int], draws: Sequence[Draw]) -> Completion:
        return Completion(
            tokens=tuple(tokens),
            text=self.spell(tokens),
            logprob=sum(d.logprob for d in draws),
            raw_logprob=sum(d.raw_logprob for d in draws),
            rejected_mass=sum(d.rejected for d in draws) / len(draws) if draws else 0.0,
            decisions=tuple(d.logprob for d in draws),
        )


class _ByteTokenizer:
    """What llguidance asks of a tokenizer."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.eos_token_id = END
        self.bos_token_id = None
        self.special_token_ids = [END]
        # 0xFF marks tokens that no text may hold: a regex is matched byte by byte, words belong to automata
        words = (b"\xff" + piece for piece in pieces[_WORDS_0:])
        self.tokens = [b"\xff</s>", *pieces[_BYTE_0:_WORDS_0], *words]

    def __call__(self, text: bytes) -> list[int]:
        return [_BYTE_0 + b for b in text]


def _refusal(text: str | None, rest: bytes) -> DecodingError:
    return DecodingError(
        f"the script must hold texts of the grammar, got {str(text)[:60]!r}, refused {len(rest)} bytes before its end; "
        "correct the script"
    )


def _info(
    script: object, vocabulary: Sequence[str], n_ctx: int, dialect: Dialect, chat_template: str | None
) -> ModelInfo:
    return ModelInfo(
        path=Path("scripted"),
        sha256=hashlib.sha256(repr(script).encode("utf-8", "replace")).hexdigest(),
        architecture="scripted",
        dialect=dialect,
        n_ctx_train=n_ctx,
        n_vocab=len(vocabulary),
        n_parameters=0,
        file_bytes=0,
        chat_template=chat_template,
        metadata=MappingProxyType({}),
    )
