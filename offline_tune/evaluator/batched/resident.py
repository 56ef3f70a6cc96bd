"""The data of all jobs, on the device once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Resident:
    """Inputs and targets on the device. Jobs name their rows by position, so a fold costs no copy.

    Attributes:
        X: inputs, shape (rows, ...); of any type that the networks read.
        y: targets, shape (rows,) or (rows, t); int64 classes, or numbers of the type of the parameters.
        weight: of each row, mean 1; None where all count the same.
    """

    X: Tensor
    y: Tensor
    weight: Tensor | None = None

    @classmethod
    def of(
        cls,
        X: NDArray[Any],
        y: NDArray[Any],
        weight: NDArray[Any] | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Resident:
        """Arrays moved to the device; what is a floating number takes `dtype`."""
        return cls(_tensor(X, device, dtype), _tensor(y, device, dtype),
                   None if weight is None else _tensor(weight, device, dtype))  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        return self.X.device


def widened(X: NDArray[Any], columns: int) -> NDArray[Any]:
    """A table (rows, d) with columns of zeros at its end, up to `columns`: networks read padded inputs."""
    return np.pad(X, ((0, 0), (0, columns - X.shape[1])))


def _tensor(array: NDArray[Any], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    found = torch.as_tensor(np.ascontiguousarray(array))
    return found.to(device=device, dtype=dtype if found.is_floating_point() else found.dtype)
