"""Loading a GGUF model, and the model as the rest of the package sees it.

A file is judged by its header and its digest before llama.cpp opens it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import psutil
from numpy.typing import NDArray

from offline_tune.errors import DecodingError, ModelError, UsageError
from offline_tune.llm import decoder
from offline_tune.llm.backend import attention_of_last_context, library, waiting
from offline_tune.llm.batch import Span
from offline_tune.llm.contract import ALL, Completion, Counters, LanguageModel, Matcher, ModelInfo, Sampling
from offline_tune.llm.engine import MAX_SEQUENCES, Engine, cells
from offline_tune.llm.gguf_header import LEAST_CONTEXT, GgufHeader, read_header
from offline_tune.llm.index import Indexer
from offline_tune.llm.manifest import sha256_of, verify
from offline_tune.llm.matcher import RegexMatcher
from offline_tune.llm.placement import Layers, Placement, place
from offline_tune.llm.request import Turns, check_request
from offline_tune.llm.selfcheck import Check, self_check
from offline_tune.llm.threads import MOST_THREADS, Calibration, calibrate, counts_up_to, usable_cores

DEFAULT_CONTEXT = 4096
GrammarEngine = Literal["llguidance", "outlines-core"]
_FORKS_ON_CPU, _FORKS_ON_GPU = 16, 64
# below this size a second thread costs more in waiting than it saves
_SMALL_MODEL_PARAMETERS = 50_000_000
_CALIBRATION_ROWS = 4


def load_model(
    path: Path,
    *,
    n_ctx: int | None = None,
    k_max: int | None = None,
    n_threads: int | None = None,
    device: str = "auto",
    gpu_layers: Layers = "all",
) -> LlamaModel:
    """Load a GGUF model; the calling thread owns it.

    Args:
        path: the file.
        n_ctx: most tokens of a prompt and one output together; the model's trained length if None, but at most
            4096.
        k_max: outputs that grow at once, 1 to 255; each of the others begins where one ends. What takes the least time
            if None: 16 on a processor, where every output must look past the tokens of all others, else 64.
        n_threads: processor threads; if None, 1 for a small model, else what a calibration of about 50 ms for each
            number of threads finds fastest.
        device: where the weights lie, "auto", "cpu", "cuda" or "metal"; "auto" takes an accelerator if the build has
            one.
        gpu_layers: layers that go to the accelerator where not all fit, the KV cache of each with it.

    Raises:
        ModelError: the file cannot be used (see `read_header`), differs from its manifest, does not fit into memory,
            or llama.cpp refuses it; or there is no such accelerator.
        UsageError: an argument out of range.
    """
    header = read_header(path)
    _check_arguments(header, n_ctx, k_max, n_threads)
    length = n_ctx or min(header.n_ctx_train, DEFAULT_CONTEXT)
    placed, n_gpu_layers = place(device, gpu_layers)
    k_max = k_max or (_FORKS_ON_CPU if n_gpu_layers == 0 else _FORKS_ON_GPU)
    if n_gpu_layers == 0:
        _check_memory(header.file_bytes, header.cache_bytes_per_token * cells(length, k_max))
    digest = sha256_of(path)
    verify(path, digest)
    engine = Engine(path, n_ctx=length, k_max=k_max, n_threads=n_threads or 1, n_gpu_layers=n_gpu_layers)
    calibration = None if n_threads or header.n_parameters < _SMALL_MODEL_PARAMETERS else _calibrated(engine)
    placement = Placement(
        device=placed,
        n_gpu_layers=n_gpu_layers,
        flash_attention=n_gpu_layers != 0 and attention_of_last_context() == "enabled",
        n_threads=calibration.n_threads if calibration else n_threads or 1,
        calibration=calibration,
    )
    return LlamaModel(engine, _info(path, digest, header), length, placement)


class LlamaModel(LanguageModel):
    """A `LanguageModel` over llama.cpp; made by `load_model`."""

    def __init__(self, engine: Engine, info: ModelInfo, n_ctx: int, placement: Placement) -> None:
        self._engine = engine
        self._info = info
        self._n_ctx = n_ctx
        self._placement = placement
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
    def placement(self) -> Placement:
        """Where it runs, and with how many threads."""
        return self._placement

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

    def matcher(self, regex: str, by: GrammarEngine = "llguidance") -> Matcher:
        """A matcher of the strings of `regex`; see `LanguageModel.matcher`.

        Args:
            regex: Rust syntax, whole string.
            by: who follows it. llguidance takes a new expression in a millisecond; outlines-core builds an index first,
                which takes up to seconds for a large vocabulary.

        Raises:
            DecodingError: the expression is malformed or too large.
            ModelError: outlines-core is not installed, or the vocabulary has no end-of-generation token.
            UsageError: another engine.
        """
        self._engine.vocabulary.check_spelling(regex)
        if by == "outlines-core":
            return self._indexer.matcher(regex)
        if by != "llguidance":
            raise UsageError(
                f"a grammar engine must be one of {', '.join(get_args(GrammarEngine))}, got {str(by)[:60]!r}; "
                "leave it out for the first"
            )
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

    def logits_after(
        self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], columns: slice = ALL
    ) -> NDArray[np.float32]:
        """The logits of the token after each continuation; see `LanguageModel.logits_after`."""
        with self._turn():
            self._engine.vocabulary.check(prompt, "a prompt")
            for tokens in continuations:
                self._engine.vocabulary.check(tokens, "a continuation")
            self._check_length(len(prompt), max(map(len, continuations), default=0))
            return decoder.logits_after(self._engine, prompt, continuations, columns)

    def self_check(self) -> tuple[Check, ...]:
        """Whether llama.cpp does with this model, on this machine, what its decoder builds upon.

        Raises:
            DecodingError: a few tokens could not be evaluated.
        """
        with self._turn():
            return self_check(self._engine)

    def close(self) -> None:
        """Free the memory; idempotent. Matchers of this model raise afterwards."""
        self._turns.refuse_within("closed")
        self._engine.close()

    @cached_property
    def _indexer(self) -> Indexer:
        return Indexer(self._engine.vocabulary.pieces, self._end_ids)

    @property
    def _end_ids(self) -> frozenset[int]:
        found = self._engine.vocabulary.end_ids
        if not found:
            raise ModelError(
                f"{self._info.path.name} must have an end-of-generation token, got none of {self._info.n_vocab}; "
                "convert the model again"
            )
        return found

    @cached_property
    def _tokenizer(self) -> Any:
        library()
        from llguidance.llamacpp import lltokenizer_from_vocab

        with warnings.catch_warnings():
            # llguidance asks for the kinds of tokens by a function that llama-cpp-python calls deprecated
            warnings.filterwarnings("ignore", "llama_token_get_attr is deprecated", DeprecationWarning)
            try:
                # slices speed up free strings and take 40 MB of a vocabulary of 128,000; our grammars have none
                return lltokenizer_from_vocab(
                    self._engine.vocabulary.pointer, eos_token=sorted(self._end_ids), slices=[]
                )
            except ValueError as error:  # it spells a few letters of ASCII to learn how the vocabulary joins them
                raise ModelError(
                    f"{self._info.path.name} must have tokens that spell ASCII, got {str(error)[:80]!r}; "
                    "convert the model again or choose another"
                ) from None

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


def _check_arguments(header: GgufHeader, n_ctx: int | None, k_max: int | None, n_threads: int | None) -> None:
    if n_ctx is not None and not LEAST_CONTEXT <= n_ctx <= header.n_ctx_train:
        raise UsageError(
            f"n_ctx must be from {LEAST_CONTEXT} to the model's trained {header.n_ctx_train}, got {n_ctx}; "
            "leave it out for the default"
        )
    if k_max is not None and not 1 <= k_max < MAX_SEQUENCES:
        raise UsageError(f"k_max must be from 1 to {MAX_SEQUENCES - 1}, got {k_max}; more texts are drawn in turn")
    if n_threads is not None and not 1 <= n_threads <= MOST_THREADS:
        raise UsageError(f"n_threads must be from 1 to {MOST_THREADS}, got {n_threads}; leave it out for the default")


def _check_memory(weights: int, cache: int) -> None:
    # allocated all the same, and the system would end some process once the cache is touched
    free = psutil.virtual_memory().available
    if weights > free:
        raise ModelError(
            f"the model must fit into memory, got {weights >> 20} MiB of weights and {free >> 20} MiB free; "
            "choose a smaller model or a stronger quantisation of it"
        )
    left = free - weights
    if cache > left:
        raise ModelError(
            f"the model's cache must fit into memory, got {cache >> 20} MiB needed and {left >> 20} MiB free; "
            "load the model with a smaller n_ctx or k_max"
        )


def _calibrated(engine: Engine) -> Calibration:
    """Choose the threads by short passes as they come while texts grow: a token for each of a few sequences."""
    spans = [Span(i, 0, (i % engine.vocabulary.size,)) for i in range(min(_CALIBRATION_ROWS, engine.k_max))]

    def step(n: int) -> None:
        engine.use_threads(n)
        engine.forward(spans)
        engine.release(range(len(spans)))

    found = calibrate(step, counts_up_to(usable_cores()))
    engine.clear()
    engine.use_threads(found.n_threads)
    _warn_of_spinning(found.n_threads)
    return found


def _warn_of_spinning(n_threads: int) -> None:
    early = waiting().too_early
    if n_threads > 1 and early:
        warnings.warn(
            f"OMP_WAIT_POLICY=PASSIVE must be set before {', '.join(early)} is loaded, got it loaded already; a step "
            "will stall while trainings hold the cores: set it before importing torch or lightgbm, or give n_threads=1",
            RuntimeWarning,
            stacklevel=4,
        )
