"""How fast the decoder is, how much of that is its own doing, and what it takes: one table, ratios of one run.

Figures are medians of repeats in turns (A B A B ...). Times are the processor's on one thread, unless a note says wall
time: what else runs on the machine is not in them. The random models have vocabularies like those of real ones and
know nothing; the work is the same. LLAMA3_VOCABULARY names a file with the real large one:
vendor/llama.cpp/models/ggml-vocab-llama-bpe.gguf in llama-cpp-python's source package.

    make bench-decoding
    python benchmarks/decoding.py --quick      small networks, few repeats: a check of the script, not a measurement
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# llama.cpp's threads wait as the package makes them wait, even where scikit-learn's OpenMP comes first
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.measures import matching, rivals, shipped
from benchmarks.measures.contention import under_load
from benchmarks.measures.memory import beyond_model
from benchmarks.measures.replay import Recorder, network_share
from benchmarks.measures.table import Row, render
from benchmarks.measures.workload import FULL, LARGE, QUICK, SMALL, Shape, prompt_text, random_models
from offline_tune.llm.backend import features
from offline_tune.llm.contract import LanguageModel
from offline_tune.llm.llama import load_model
from offline_tune.llm.manifest import shipped_model

N_CTX = 4096


@dataclass(frozen=True)
class Effort:
    """How thoroughly to measure.

    Attributes:
        shape: of the random networks.
        trials: in the random models' prompt.
        repeats: of what takes seconds.
        short_repeats: of what takes less.
        ks: of the replay.
    """

    shape: Shape = FULL
    trials: int = 30
    repeats: int = 3
    short_repeats: int = 9
    ks: tuple[int, ...] = (1, 4, 8, 16, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a check of the script, in under a minute")
    quick = parser.parse_args().quick
    effort = Effort(QUICK, trials=6, repeats=1, short_repeats=3, ks=(1, 8)) if quick else Effort()
    began = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for part in parts(Path(scratch), effort):
            rows += part
            print(f"... {rows[-1].what}, {rows[-1].model}", file=sys.stderr, flush=True)
    if quick:
        print("quick: small networks and few repeats; no figure for quoting")
    print(f"{len(os.sched_getaffinity(0))} cores, one thread unless noted; {features()}")
    print(render(rows))
    print(f"{time.monotonic() - began:.0f} s")


def parts(folder: Path, effort: Effort) -> Iterator[list[Row]]:
    """The table, piece by piece."""
    recorder = Recorder()
    paths = random_models(folder, effort.shape)
    yield from shipped_parts(recorder, effort)
    for name in (SMALL, LARGE):
        yield from opened(name, paths[name], lambda model, name=name: random_parts(recorder, name, model, effort))
        yield rivalry(name, paths[name], effort)
    yield beyond_model(LARGE, paths[LARGE], (8, 64), effort.trials)
    yield [
        under_load(shipped_model().stem, shipped_model(), 1, 16, 10 * effort.short_repeats),
        under_load(LARGE, paths[LARGE], 2, 8, 2 * effort.short_repeats),
    ]


def shipped_parts(recorder: Recorder, effort: Effort) -> Iterator[list[Row]]:
    path = shipped_model()

    def measures(model: LanguageModel) -> Iterator[list[Row]]:
        yield shipped.proposals(path.stem, model, effort.short_repeats)
        yield shipped.network_share(recorder, path.stem, model, effort.ks, effort.short_repeats)
        yield [shipped.jump(path.stem, model, effort.short_repeats)]

    yield from opened(path.stem, path, measures)


def random_parts(recorder: Recorder, name: str, model: LanguageModel, effort: Effort) -> Iterator[list[Row]]:
    text = prompt_text(effort.trials)
    yield matching.schema_switch(name, model, effort.short_repeats, target=2 if name == LARGE else None)
    yield matching.masks(name, model, 20, effort.short_repeats)
    yield [matching.jump(name, model, text, effort.short_repeats)]
    yield network_share(recorder, name, model, text, effort.ks, effort.repeats)


def rivalry(name: str, path: Path, effort: Effort) -> list[Row]:
    targets = {SMALL: {8: 5.0, 64: 30.0}, LARGE: {8: 8.0}}[name]
    text = prompt_text(effort.trials)
    with rivals.opened(path, text, N_CTX) as rival:

        def measures(model: LanguageModel) -> Iterator[list[Row]]:
            yield rivals.against_outlines(name, model, rival, targets, effort.repeats)
            yield [rivals.other_backend(name, model, rival, 8, effort.repeats)]

        return [row for rows in opened(name, path, measures) for row in rows]


def opened(name: str, path: Path, measures: Callable[[LanguageModel], Iterator[list[Row]]]) -> Iterator[list[Row]]:
    """The measures of one model, loaded for one core and closed at the end."""
    model = load_model(path, n_ctx=N_CTX, n_threads=1)
    try:
        yield from measures(model)
    finally:
        model.close()


if __name__ == "__main__":
    main()
