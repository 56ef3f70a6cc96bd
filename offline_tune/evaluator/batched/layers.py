"""The layers that networks are made of, each over all rows of a stack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # all of them leave zero at zero
    "relu": torch.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
}
_BACK = torch.ops.aten
DERIVATIVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "relu": lambda slope, before, after: _BACK.threshold_backward(slope, after, 0),
    "silu": lambda slope, before, after: _BACK.silu_backward(slope, before),
    "gelu": lambda slope, before, after: _BACK.gelu_backward(slope, before),
    "tanh": lambda slope, before, after: _BACK.tanh_backward(slope, after),
}
WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

EPSILON = 1e-5  # of normalisation, torch's own


def padded(width: int) -> int:
    """The next width that stacks are built for; the same for every neighbour."""
    return next((size for size in WIDTHS if size >= width), (width + 511) // 512 * 512)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, b, i) through (N, i, o) plus (N, o)."""
    return torch.baddbmm(bias.unsqueeze(1), x, weight)


def deep(h: Tensor, n: int, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """A layer that the first n rows have; the others pass unchanged."""
    if n == h.shape[0]:
        return layer(h)
    return h if n == 0 else torch.cat([layer(h[:n]), h[n:]])


def uniform(generator: torch.Generator, fan_in: int, *shape: int) -> Tensor:
    """Initial weights in double precision, uniform within 1 / sqrt(fan_in), as torch.nn.Linear draws them."""
    spread = torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1
    return spread / math.sqrt(fan_in)


class Activation:
    """The activation of each row; rows may differ."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self._used = tuple(dict.fromkeys(names))
        self._masks = [torch.tensor([each == name for each in names], device=device) for name in self._used]

    def back(self, slope: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The derivative by the numbers `before`, of that by the activations `after`; shape (n, b, units) each."""
        found = DERIVATIVES[self._used[0]](slope, before, after)
        for name, mask in zip(self._used[1:], self._masks[1:], strict=True):
            found = torch.where(mask[: len(slope), None, None], DERIVATIVES[name](slope, before, after), found)
        return found

    def __call__(self, h: Tensor) -> Tensor:
        """(n, ...) of the first n rows, shape kept; h may be overwritten."""
        if self._used == ("relu",):
            return torch.relu_(h)
        found = ACTIVATIONS[self._used[0]](h)
        for name, mask in zip(self._used[1:], self._masks[1:], strict=True):
            found = torch.where(mask[: h.shape[0]].view(-1, *(1,) * (h.dim() - 1)), ACTIVATIONS[name](h), found)
        return found


class LayerNorm:
    """Layer normalisation over each row's own width; units beyond it are left out of the statistics."""

    def __init__(self, widths: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        self._width = torch.tensor(widths, device=device, dtype=dtype)[:, None, None]
        self._narrowest = min(widths)

    def __call__(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Shapes: h (n, b, units) of the first n rows, scale and shift (n, units)."""
        if self._narrowest == h.shape[-1]:
            found = functional.layer_norm(h, h.shape[-1:], eps=EPSILON)
        else:
            width = self._width[: len(h)]
            inside = torch.arange(h.shape[-1], device=h.device) < width
            # Masked before the sum too: the mean must send no gradient into the padding.
            mean = torch.where(inside, h, 0.0).sum(-1, keepdim=True) / width
            centred = torch.where(inside, h - mean, 0.0)
            found = centred * (centred.square().sum(-1, keepdim=True) / width + EPSILON).rsqrt()
        return torch.addcmul(shift.unsqueeze(1), found, scale.unsqueeze(1))
