"""An ensemble of perceptrons inside one network, trained in stacks; after TabM."""

from __future__ import annotations

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import Family, choice, described, whole
from offline_tune.evaluator.families.neural import NEURAL_NEEDS, TRAINING, builder_of, embedding, training
from offline_tune.space import Parameter


def _search(card: DataCard) -> tuple[Parameter, ...]:
    return (
        whole("hidden_width", 16, 256, default=96, log=True),
        whole("hidden_layers", 1, 4, default=2),
        whole("ensemble_size", 2, 32, default=8, log=True),
        choice("activation", ("relu", "silu")),
        *embedding(card),
        *training(card, rate=2e-3, dropout=0.1),
    )


TABM = Family(
    card=described(
        "tabm",
        "Several perceptrons that share most weights and are averaged; steadier than one, dearer with each member.",
        "high",
        {
            "hidden_width": "units of each hidden layer",
            "hidden_layers": "how many hidden layers",
            "ensemble_size": "how many perceptrons are averaged",
            "activation": "what a unit computes: relu is sharp, silu smooth",
            **TRAINING,
        },
    ),
    needs=NEURAL_NEEDS,
    search=_search,
    builder=builder_of("tabm"),
    suits=lambda card: False,
    library="torch",
)
