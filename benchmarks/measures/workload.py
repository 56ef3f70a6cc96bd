"""What is asked of every model: ten parameters, thirty trials, and models with random weights to ask.

The random models come from the tests, for they are made the same way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna.distributions import CategoricalDistribution as Cat
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from offline_tune.cards import DataCard
from offline_tune.grammar import Grammar, compile_grammar
from offline_tune.history import History, Observation
from offline_tune.llm.contract import LanguageModel
from offline_tune.prompt.chat import chat_messages
from offline_tune.space import Parameter, SearchSpace
from offline_tune.task import Metric, TaskKind

SMALL, LARGE = "random 4k", "random 128k"
ROOT = Path(__file__).parents[2]
_CARD = DataCard(kind=TaskKind.BINARY, n_rows=1000, n_features=20, n_numeric=20, n_categorical=0, n_classes=2)


@dataclass(frozen=True)
class Shape:
    """Of a random model: width and layers of the network, small vocabulary first."""

    small: tuple[int, int]
    large: tuple[int, int]


FULL = Shape(small=(384, 6), large=(512, 8))
QUICK = Shape(small=(128, 2), large=(128, 2))


def ten_parameters(variant: int = 0) -> SearchSpace:
    """A space as boosted trees have it; variants differ in a bound of every parameter that has one."""
    shift = 1 + variant / 100
    return SearchSpace(
        (
            Parameter("learning_rate", Float(1e-3, 0.3 * shift, log=True), 0.1),
            Parameter("n_estimators", Int(10 + variant, 2000, log=True), 100),
            Parameter("max_depth", Int(1, 12 + variant), 6),
            Parameter("min_child_weight", Float(1e-3, 50 * shift, log=True), 1.0),
            Parameter("gamma", Float(1e-8, 5 * shift, log=True)),
            Parameter("subsample", Float(0.5, 1), 1.0),
            Parameter("colsample_bytree", Float(0.3, 1), 1.0),
            Parameter("reg_lambda", Float(1e-8, 50 * shift, log=True), 1.0),
            Parameter("booster", Cat(["gbtree", "dart", "gblinear"]), "gbtree"),
            Parameter("use_bias", Cat([True, False]), True),
        )
    )


def history(space: SearchSpace, n: int, seed: int = 0) -> History:
    """N trials drawn evenly, with scores that are better in the middle of the unit cube."""
    rng = np.random.default_rng(seed)
    drawn = [space.sample(rng) for _ in range(n)]
    return History(space, tuple(Observation(i, v, float(rng.random())) for i, v in enumerate(drawn)))


def grammar() -> Grammar:
    """Of the ten parameters."""
    return compile_grammar(ten_parameters())


def prompt_text(trials: int) -> str:
    """The chat dialect's question as plain text, the random models having no chat template."""
    told = history(ten_parameters(), trials)
    metric = Metric("accuracy", "predict")
    return "\n\n".join(m.content for m in chat_messages(_CARD, (), told, metric, max_chars=100_000)) + "\n"


def prompt_tokens(model: LanguageModel, text: str) -> list[int]:
    """As any program would send it: what the model wants at the start, then the text."""
    return [*model.prompt_start, *model.tokenize(text, special=False)]


def forget(model: LanguageModel) -> None:
    """Make the model drop the prompt that it holds, by another that shares not one token with it."""
    model.logits_after([1], [[1]])


def random_models(folder: Path, shape: Shape) -> dict[str, Path]:
    """Write the random models, half precision, by name; LLAMA3_VOCABULARY may name the file of the large one's."""
    sys.path.append(str(ROOT / "tests"))
    from random_models import large_vocabulary, make_random_llama, read_vocabulary, small_vocabulary

    given = os.environ.get("LLAMA3_VOCABULARY")
    large = read_vocabulary(Path(given)) if given else large_vocabulary()
    vocabularies = {SMALL: (small_vocabulary(), shape.small), LARGE: (large, shape.large)}
    return {
        name: make_random_llama(folder / f"{width}x{layers}-{len(words.pieces)}.gguf", words, **_options(width, layers))
        for name, (words, (width, layers)) in vocabularies.items()
    }


def _options(width: int, layers: int) -> dict[str, int]:
    return {"width": width, "layers": layers, "heads": width // 64, "n_ctx": 4096}


def seeds(k: int) -> Sequence[int]:
    """One for each completion."""
    return range(1, k + 1)
