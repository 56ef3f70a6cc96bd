"""The multilayer perceptron of offline_tune, trained in stacks; after RealMLP."""

from __future__ import annotations

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import Family, choice, described, whole
from offline_tune.evaluator.families.neural import NEURAL_NEEDS, TRAINING, builder_of, embedding, training
from offline_tune.space import Parameter


def _search(card: DataCard) -> tuple[Parameter, ...]:
    return (
        whole("hidden_width", 16, 512, default=128, log=True),
        whole("hidden_layers", 1, 4, default=2),
        choice("activation", ("silu", "relu")),
        *embedding(card),
        *training(card, rate=2e-3, dropout=0.1),
    )


TABULAR_MLP = Family(
    card=described(
        "tabular_mlp",
        "A neural network with robust scaling, dropout and optional embeddings of numbers; many train at once.",
        "medium",
        {
            "hidden_width": "units of each hidden layer",
            "hidden_layers": "how many hidden layers",
            "activation": "what a unit computes: relu is sharp, silu smooth",
            **TRAINING,
        },
    ),
    needs=NEURAL_NEEDS,
    search=_search,
    builder=builder_of("tabular_mlp"),
    suits=lambda card: False,
    library="torch",
)
