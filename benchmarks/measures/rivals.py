"""Candidates a second, beside Outlines on the same file: same prompt, same grammar, same temperature, one thread.

Outlines has no batch for llama.cpp, so its candidates come one after another, each at the same cost; a few are timed.
It evaluates the prompt anew for each unless they are streamed, which is timed too. Its sampler keeps its defaults
(top-k 40, top-p 0.95, min-p 0.05), which are the fastest it has. Ours starts each repeat with the prompt forgotten
and pays for the grammar, as a new round of a new space does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measures.table import Row, interleaved, ratios, seconds
from benchmarks.measures.workload import forget, grammar, prompt_tokens, seeds
from offline_tune.llm.contract import LanguageModel, Sampling

TEMPERATURE = 1.0


@dataclass
class Outlines:
    """Outlines on one loaded file.

    Attributes:
        model: Outlines' own.
        built: seconds that each backend took to become ready for the grammar.
    """

    model: Any
    text: str
    seed: int = 0
    built: dict[str, float] = field(default_factory=dict)

    def generator(self, backend: str) -> Any:
        """Ready for the grammar; made anew, as for every new schema."""
        import outlines
        from outlines.types import Regex

        found: list[Any] = []
        regex = Regex(grammar().regex)
        self.built[backend] = seconds(lambda: found.append(outlines.Generator(self.model, regex, backend=backend)))
        return found[0]

    def candidate(self, generator: Any, streamed: bool = False) -> None:
        """One, checked."""
        self.seed += 1
        options = {"max_tokens": grammar().longest.utf8, "temperature": TEMPERATURE, "seed": self.seed}
        ask: Callable[..., Any] = generator.stream if streamed else generator
        grammar().read("".join(ask(self.text, **options)))


@contextmanager
def opened(path: Path, text: str, n_ctx: int) -> Iterator[Outlines]:
    """Load a file as Outlines' users do, with one thread."""
    import llama_cpp
    import outlines

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # llguidance's, about llama-cpp-python
        options = {"n_threads": 1, "n_threads_batch": 1, "n_ctx": n_ctx, "verbose": False}
        llm = llama_cpp.Llama(str(path), **options)
        try:
            yield Outlines(outlines.from_llamacpp(llm, chat_mode=False), text)
        finally:
            llm.close()


def against_outlines(
    name: str, model: LanguageModel, rival: Outlines, targets: dict[int, float | None], repeats: int
) -> list[Row]:
    """How many times as many candidates a second, for each K in `targets`."""
    generator = rival.generator("llguidance")
    prompt = prompt_tokens(model, rival.text)
    ours = {f"{k}": lambda k=k: _draw(model, prompt, k) for k in targets}
    theirs = {"outlines": lambda: rival.candidate(generator)}
    rival.candidate(generator)
    forget_first = {"before": lambda: forget(model)}
    times = interleaved({**theirs, **ours}, repeats, **forget_first)
    rival.candidate(generator, streamed=True)
    streamed = [seconds(lambda: rival.candidate(generator, streamed=True)) for _ in range(repeats)]
    rows = []
    for k, target in targets.items():
        each = [s / k for s in times[f"{k}"]]
        note = (
            f"{1 / np.median(each):.3g} against {1 / np.median(times['outlines']):.3g} a second, {len(prompt)} tokens"
        )
        rows.append(Row("candidates/s over Outlines", name, k, ratios(times["outlines"], each), "x", target, note=note))
        rebuilt = [t + rival.built["llguidance"] / k for t in times["outlines"]]
        note = f"generator {rival.built['llguidance']:.3g} s"
        rows.append(Row("  its generator built once for the K", name, k, ratios(rebuilt, each), "x", note=note))
        rows.append(Row("  it streams, so keeps the prompt", name, k, ratios(streamed, each), "x"))
    return rows


def other_backend(name: str, model: LanguageModel, rival: Outlines, k: int, repeats: int) -> Row:
    """The same against Outlines' default backend, where it can run."""
    what = "  its default backend, outlines_core"
    if find_spec("numba") is None:  # it would build, then answer without any grammar
        return Row(what, name, k, (), note="skipped: it needs numba, which is not installed")
    generator = rival.generator("outlines_core")
    rival.candidate(generator)
    prompt = prompt_tokens(model, rival.text)
    actions = {"theirs": lambda: rival.candidate(generator), "ours": lambda: _draw(model, prompt, k)}
    times = interleaved(actions, repeats, before=lambda: forget(model))
    each = [s / k for s in times["ours"]]
    return Row(
        what, name, k, ratios(times["theirs"], each), "x", note=f"generator {rival.built['outlines_core']:.3g} s"
    )


def _draw(model: LanguageModel, prompt: list[int], k: int) -> None:
    spoken = grammar()
    sampling = Sampling(temperature=TEMPERATURE)
    for found in model.complete(prompt, model.matcher(spoken.regex), k, sampling, seeds(k), spoken.longest.utf8):
        spoken.read(found.text)
