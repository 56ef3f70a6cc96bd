"""One network trained or asked by itself, as a stack of one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_tune.evaluator.batched.design import job_of
from offline_tune.evaluator.batched.job import Rows
from offline_tune.evaluator.batched.layers import padded
from offline_tune.evaluator.batched.network import Network
from offline_tune.evaluator.batched.resident import Resident, widened
from offline_tune.evaluator.batched.run import Run
from offline_tune.evaluator.batched.table import Table
from offline_tune.evaluator.batched.trainer import Trainer
from offline_tune.space import Values

_CHUNK = 4096  # rows of a prediction


def fit_alone(kind: str, values: Values, table: Table, seed: int, epochs: int | None = None) -> Run:
    """Train one candidate on one training part, on the processor.

    Raises:
        ValueError: a value that no network could use.
    """
    data = Resident.of(widened(table.X, padded(table.X.shape[1])), table.y)
    rows = (Rows(table.train), None if table.valid is None else Rows(table.valid))
    run = Run(job_of(kind, values, table, rows, seed, epochs))
    Trainer(data, most=1).advance([run])
    return run


@torch.no_grad()
def predict_alone(
    network: Network, weights: Mapping[str, Tensor | NDArray[np.float32]], X: Tensor | NDArray[np.float32]
) -> NDArray[np.float64]:
    """What one network says of X (n, d): probabilities (n, c), or numbers (n,)."""
    inputs = torch.as_tensor(X)
    parameters = {name: torch.as_tensor(value).to(inputs.device).unsqueeze(0) for name, value in weights.items()}
    dtype = next(iter(parameters.values())).dtype
    forward = network.stacked([network], inputs.device, dtype)
    parts = [
        forward.predictions(forward(parameters, chunk.to(dtype).unsqueeze(0), None))[0].double().cpu().numpy()
        for chunk in (inputs[start : start + _CHUNK] for start in range(0, len(inputs), _CHUNK))
    ]
    return np.concatenate(parts) if parts else np.empty(0)
