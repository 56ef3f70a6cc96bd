"""The multilayer perceptron of scikit-learn, stopped early."""

from __future__ import annotations

from typing import Any

from offline_tune.cards import DataCard
from offline_tune.evaluator.families.base import (
    Family,
    Needs,
    Request,
    choice,
    described,
    integer,
    positive,
    real,
    whole,
)
from offline_tune.space import Parameter, Values

MOST_EPOCHS = 100
PATIENCE = 10


def _search(card: DataCard) -> tuple[Parameter, ...]:
    most_batch = max(8, min(512, card.n_rows // 8))
    # On many rows a small batch only makes the epochs long.
    least_batch = min(most_batch, max(8, min(128, card.n_rows // 200)))
    return (
        whole("hidden_width", 16, 256, default=100, log=True),
        whole("hidden_layers", 1, 3, default=1),
        choice("activation", ("relu", "tanh")),
        positive("learning_rate", 1e-4, 3e-2, default=1e-3),
        whole("batch_size", least_batch, most_batch, default=max(least_batch, min(200, most_batch)), log=True),
        positive("alpha", 1e-6, 1.0, default=1e-4),
    )


def _build(values: Values, request: Request) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    from offline_tune.evaluator.families.estimators import VendorClassifier, VendorRegressor

    options = {
        "hidden_layer_sizes": (integer(values, "hidden_width"),) * integer(values, "hidden_layers"),
        "activation": values["activation"],
        "learning_rate_init": real(values, "learning_rate"),
        "batch_size": integer(values, "batch_size"),
        "alpha": real(values, "alpha"),
        "max_iter": MOST_EPOCHS,
        "n_iter_no_change": PATIENCE,
        "early_stopping": True,
        "random_state": request.seed,
    }
    if request.kind.is_classification:
        return VendorClassifier(MLPClassifier(**options))
    return VendorRegressor(MLPRegressor(**options))


MLP = Family(
    card=described(
        "mlp",
        "A small neural network trained with Adam until a held-out tenth stops improving; smooth functions of numbers.",
        "high",
        {
            "hidden_width": "units of each hidden layer",
            "hidden_layers": "how many hidden layers",
            "activation": "what a unit computes: relu is the usual choice, tanh is smoother",
            "learning_rate": "size of Adam's steps: too large diverges, too small is slow",
            "batch_size": "rows in one step: small is noisier, slower, and often generalises better",
            "alpha": "l2 penalty on the weights",
        },
    ),
    needs=Needs(encodings=("onehot", "target"), complete=True, scaled=True),
    search=_search,
    builder=_build,
)
