"""The residual network for tables, trained in stacks."""

from __future__ import annotations

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import Family, choice, described, whole
from offline_tune.evaluator.families.neural import NEURAL_NEEDS, TRAINING, builder_of, embedding, training
from offline_tune.space import Parameter


def _search(card: DataCard) -> tuple[Parameter, ...]:
    return (
        whole("hidden_width", 16, 384, default=96, log=True),
        whole("inner_width", 16, 768, default=192, log=True),
        whole("hidden_layers", 1, 6, default=2),
        choice("activation", ("relu", "silu")),
        *embedding(card),
        *training(card, rate=1e-3, dropout=0.1),
    )


TABULAR_RESNET = Family(
    card=described(
        "tabular_resnet",
        "A neural network of normalised residual blocks; can be deep, steady to train; many train at once.",
        "high",
        {
            "hidden_width": "units between the blocks",
            "inner_width": "units inside each block",
            "hidden_layers": "how many blocks",
            "activation": "what a unit computes: relu is sharp, silu smooth",
            **TRAINING,
        },
    ),
    needs=NEURAL_NEEDS,
    search=_search,
    builder=builder_of("tabular_resnet"),
    suits=lambda card: False,
    library="torch",
)
