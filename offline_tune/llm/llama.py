"""Loading a GGUF model, and the model as the rest of the package sees it.

A file is judged by its header and its digest before llama.cpp opens it.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from offline_tune.errors import DecodingError, ModelError, UsageError
from offline_tune.llm import decoder
from offline_tune.llm.backend import gpu_layers, library
from offline_tune.llm.contract import Completion, Counters, LanguageModel, Matcher, ModelInfo, Sampling
from offline_tune.llm.engine import MAX_SEQUENCES, Engine, cells
from offline_tune.llm.gguf_header import LEAST_CONTEXT, GgufHeader, read_header
from offline_tune.llm.manifest import sha256_of, verify
from offline_tune.llm.matcher import RegexMatcher
from offline_tune.llm.request import Turns, check_request

DEFAULT_CONTEXT = 4096
# below this size a second thread costs more in waiting than it saves
_SMALL_MODEL_PARAMETERS = 50_000_000
_MOST_DEFAULT_THREADS = 8
_MOST_THREADS = 512


def load_model(
    path: Path,
    *,
    n_ctx: int | None = None,
    k_max: int = 64,
    n_threads: int | None = None,
    device: str = "auto",
) -> LlamaModel:
    """Load a GGUF model; the calling thread owns it.

    Args:
        path: the file.
        n_ctx: most tokens of a prompt and one output together; the model's trained length if None, but at most
            4096.
        k_max: outputs that grow at once, 1 to 255. More are drawn one wave after another.
        n_threads: processor threads; if None, 1 for a small model, else all that this process may use, at most 8.
        device: where the weights lie, "auto", "cpu", "cuda" or "metal"; "auto" takes an accelerator if the build has
            one.

    Raises:
        ModelError: the file cannot be used (see `read_header`), differs from its manifest, or llama.cpp refuses it.
        UsageError: an argument out of range.
    """
    header = read_header(path)
    _check_arguments(header, n_ctx, k_max, n_threads)
    length = n_ctx or min(header.n_ctx_train, DEFAULT_CONTEXT)
    if gpu_layers(device) == 0:
        _check_memory(header.cache_bytes_per_token * cells(length, k_max))
    digest = sha256_of(path)
    verify(path, digest)
    threads = n_threads or _default_threads(header.n_parameters)
    engine = Engine(path, n_ctx=length, k_max=k_max, n_threads=threads, device=device)
    return LlamaModel(engine, _info(path, digest, header), length)


class LlamaModel(LanguageModel):
    """A `LanguageModel` over llama.cpp; made by `load_model`."""

    def __init__(self, engine: Engine, info: ModelInfo, n_ctx: int) -> None:
        self._engine = engine
        self._info = info
        self._n_ctx = n_ctx
        self._turns = Turns()
        self._counters = Counters()

    @property
    def info(self) -> ModelInfo:
        """What the file says of itself."""
        return self._info

    @property
    def n_ctx(self) -> int:
        """Most tokens that a prompt and one completion may have together."""
        return self._n_ctx

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The tokens as the file spells them, by id."""
        return self._engine.vocabulary.spellings

    @property
    def prompt_start(self) -> tuple[int, ...]:
        """The tokens that every prompt must begin with."""
        return self._engine.vocabulary.prompt_start

    @property
    def counters(self) -> Counters:
        """What it has done so far."""
        return self._counters

    def token_id(self, piece: str) -> int:
        """The id of the token spelt `piece`; see `LanguageModel.token_id`."""
        return self._engine.vocabulary.token_id(piece)

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Ids that spell `text`; see `LanguageModel.tokenize`."""
        return self._engine.vocabulary.tokenize(text, special)

    def matcher(self, regex: str) -> Matcher:
        """A matcher of the strings of `regex`; see `LanguageModel.matcher`."""
        return RegexMatcher(self._tokenizer, regex, lambda: self._engine.vocabulary.pointer)

    def complete(
        self,
        prompt: Sequence[int],
        matcher: Matcher,
        k: int,
        sampling: Sampling,
        seeds: Sequence[int],
        max_tokens: int,
    ) -> tuple[Completion, ...]:
        """Draw k texts after one prompt; see `LanguageModel.complete`."""
        check_request(k, seeds, max_tokens)
        with self._turn():
            self._engine.vocabulary.check(prompt, "a prompt")
            self._check_length(len(prompt), max_tokens)
            found, sampled = decoder.complete(self._engine, prompt, matcher, sampling, seeds, max_tokens)
        self._counters = replace(self._counters, tokens_sampled=self._counters.tokens_sampled + sampled)
        return found

    def logits_after(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The logits of the token after each continuation; see `LanguageModel.logits_after`."""
        with self._turn():
            self._engine.vocabulary.check(prompt, "a prompt")
            for tokens in continuations:
                self._engine.vocabulary.check(tokens, "a continuation")
            self._check_length(len(prompt), max(map(len, continuations), default=0))
            return decoder.logits_after(self._engine, prompt, continuations)

    def close(self) -> None:
        """Free the memory; idempotent. Matchers of this model raise afterwards."""
        self._turns.refuse_within("closed")
        self._engine.close()

    @cached_property
    def _tokenizer(self) -> Any:
        library()
        from llguidance.llamacpp import lltokenizer_from_vocab

        vocabulary = self._engine.vocabulary
        if not vocabulary.end_ids:
            raise ModelError(
                f"{self._info.path.name} must have an end-of-generation token, got none of {vocabulary.size}; "
                "convert the model again"
            )
        with warnings.catch_warnings():
            # llguidance asks for the kinds of tokens by a function that llama-cpp-python calls deprecated
            warnings.filterwarnings("ignore", "llama_token_get_attr is deprecated", DeprecationWarning)
            return lltokenizer_from_vocab(vocabulary.pointer, eos_token=sorted(vocabulary.end_ids))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One call; after an error nothing of it is left in the context."""
        with self._turns.take():
            _ = self._engine.vocabulary.pointer  # raises if closed
            start, evaluated = time.perf_counter(), self._engine.evaluated
            try:
                yield
            except BaseException:
                self._engine.clear()
                raise
            finally:
                self._count(time.perf_counter() - start, self._engine.evaluated - evaluated)

    def _count(self, seconds: float, evaluated: int) -> None:
        so_far = self._counters
        self._counters = replace(
            so_far,
            calls=so_far.calls + 1,
            tokens_evaluated=so_far.tokens_evaluated + evaluated,
            seconds=so_far.seconds + seconds,
        )

    def _check_length(self, n_prompt: int, n_longest: int) -> None:
        if n_prompt + n_longest > self._n_ctx:
            raise DecodingError(
                f"prompt and longest output must fit a context of {self._n_ctx} tokens, got {n_prompt} + {n_longest}; "
                f"show fewer trials, or load the model with a larger n_ctx (trained: {self._info.n_ctx_train})"
            )


def _info(path: Path, sha256: str, header: GgufHeader) -> ModelInfo:
    return ModelInfo(
        path=path,
        sha256=sha256,
        architecture=header.architecture,
        dialect=header.dialect,
        n_ctx_train=header.n_ctx_train,
        n_vocab=header.n_vocab,
        n_parameters=header.n_parameters,
        file_bytes=header.file_bytes,
        chat_template=header.chat_template,
        metadata=header.metadata,
    )


def _check_arguments(header: GgufHeader, n_ctx: int | None, k_max: int, n_threads: int | None) -> None:
    if n_ctx is not None and not LEAST_CONTEXT <= n_ctx <= header.n_ctx_train:
        raise UsageError(
            f"n_ctx must be from {LEAST_CONTEXT} to the model's trained {header.n_ctx_train}, got {n_ctx}; "
            "leave it out for the default"
        )
    if not 1 <= k_max < MAX_SEQUENCES:
        raise UsageError(f"k_max must be from 1 to {MAX_SEQUENCES - 1}, got {k_max}; more texts are drawn in waves")
    if n_threads is not None and not 1 <= n_threads <= _MOST_THREADS:
        raise UsageError(f"n_threads must be from 1 to {_MOST_THREADS}, got {n_threads}; leave it out for the default")


def _check_memory(needed: int) -> None:
    # allocated all the same, and the system would end some process once the cache is touched
    free = psutil.virtual_memory().available
    if needed > free:
        raise ModelError(
            f"the model's cache must fit into memory, got {needed >> 20} MiB needed and {free >> 20} MiB free; "
            "load the model with a smaller n_ctx or k_max"
        )


def _default_threads(n_parameters: int) -> int:
    if n_parameters < _SMALL_MODEL_PARAMETERS:
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_DEFAULT_THREADS)
