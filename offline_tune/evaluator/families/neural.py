"""What the families of neural networks share: parameters of training, needs, and how they are built."""

from __future__ import annotations

import math
from typing import Any

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import (
    Builder,
    Needs,
    Request,
    choice,
    class_weight,
    positive,
    share,
    under,
    whole,
)
from offline_tune.space import Parameter, Values

NEURAL_NEEDS = Needs(
    encodings=("onehot", "target"), complete=True, scaled=True, scalings=("robust", "quantile", "standard")
)

LEAST_BATCH, LARGEST_BATCH = 8, 512
LEAST_EPOCHS, MOST_EPOCHS = 20, 100

TRAINING = {
    "dropout": "share of the hidden units left out at random in each step",
    "learning_rate": "size of AdamW's steps before the schedule: too large diverges, too small is slow",
    "weight_decay": "how strongly weights are pulled to zero in each step",
    "batch_size": "rows in one step, to the nearest power of two: small is noisier, slower, often generalises better",
    "schedule": "how the learning rate changes: cosine falls to zero, warmup_cosine rises first, constant stays",
    "label_smoothing": "share of each label spread over all classes; keeps predictions from being too sure",
    "embedding": "periodic gives each number waves of its own, for targets that jump or swing; none is faster",
    "embedding_frequency": "how quick the waves are to begin with: large follows detail and noise",
    "class_weight": "balanced lets rare classes count as much as frequent ones",
}


def training(card: DataCard, *, rate: float, dropout: float) -> tuple[Parameter, ...]:
    """The parameters of training; `rate` and `dropout` are the family's defaults."""
    most = max(LEAST_BATCH, min(LARGEST_BATCH, card.n_rows // 16))
    # On many rows a small batch only makes the epochs long.
    least = min(most, max(LEAST_BATCH, min(128, card.n_rows // 400)))
    smoothing = (share("label_smoothing", 0.0, 0.2, default=0.0),) if card.kind.is_classification else ()
    return (
        share("dropout", 0.0, 0.5, default=dropout),
        positive("learning_rate", 1e-4, 3e-2, default=rate),
        positive("weight_decay", 1e-6, 0.3, default=1e-2),
        whole("batch_size", least, most, default=max(least, min(128, most)), log=True),
        choice("schedule", ("cosine", "warmup_cosine", "constant")),
        *smoothing,
        *class_weight(card),
    )


def embedding(card: DataCard) -> tuple[Parameter, ...]:
    """The choice to embed numbers, where there are any."""
    if not card.n_numeric + card.n_date:
        return ()
    frequency = positive("embedding_frequency", 0.01, 10.0, default=0.2)
    return (choice("embedding", ("none", "periodic")), under(frequency, "embedding", "periodic"))


def default_epochs(n_rows: int) -> int:
    """Passes over the rows at most: fewer where there are many, so that the steps grow with the root of the rows.

    >>> [default_epochs(n) for n in (100, 1_000, 10_000, 100_000)]
    [100, 95, 30, 20]
    """
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, round(3000 / math.sqrt(max(n_rows, 1)) / 5) * 5))


def builder_of(kind: str) -> Builder:
    """The builder of the estimators of one kind of network."""

    def build(values: Values, request: Request) -> Any:
        from offline_tune.evaluator.batched.estimators import NetworkClassifier, NetworkRegressor

        estimator = NetworkClassifier if request.kind.is_classification else NetworkRegressor
        return estimator(kind, dict(values), request.seed)

    return build
