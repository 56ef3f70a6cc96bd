"""Random numbers that do not depend on who else is in the stack.

Dropout is a function of (seed, step, layer, sample, unit), computed by a hash (the finaliser of SplitMix64: Steele,
Lea and Flood, "Fast splittable pseudorandom number generators", 2014), so it is the same in a stack of one, of a
thousand, after compaction, in any padding, and in any cut of a batch into micro-batches. torch's own generator draws
by the shape of a tensor and could not do this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 2**64 - 1

_UNITS = 2**14  # groups of four units that a layer may have
_MEMBERS = 2**10  # members of an ensemble inside one network
_SAMPLE = _UNITS * _MEMBERS
_LEVELS = 2**16  # a rate is rounded to multiples of 1 / 65,536


def signed(number: int) -> int:
    """An unsigned 64-bit number as torch holds it."""
    number &= _MASK
    return number - 2**64 if number >= 2**63 else number


_C1, _C2 = signed(_FIRST), signed(_SECOND)


def mixed(*numbers: int) -> int:
    """A 64-bit hash of whole numbers, unsigned."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) * _GOLDEN + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
        state ^= state >> 31
    return state


def step_keys(
    seeds: NDArray[np.uint64], steps: NDArray[np.int64], first_samples: NDArray[np.int64]
) -> NDArray[np.int64]:
    """One key for each row: of its seed, its optimiser step, and where in the batch its micro-batch begins.

    Shapes broadcast; the result is what `Noise` takes.
    """
    with np.errstate(over="ignore"):
        state = seeds + steps.astype(np.uint64) * np.uint64(_GOLDEN)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
        state = state ^ (state >> np.uint64(31))
        state = state + first_samples.astype(np.uint64) * np.uint64(_SAMPLE)
    found: NDArray[np.int64] = state.view(np.int64)
    return found


def generator(seed: int, purpose: int) -> torch.Generator:
    """A generator of torch on the CPU, for what is drawn once and never in a stack, such as initial weights."""
    return torch.Generator().manual_seed(signed(mixed(seed, purpose)))


def order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """A shuffle of 0 .. n - 1."""
    return np.random.default_rng([seed & _MASK, epoch, 1]).permutation(n)


@dataclass(frozen=True, eq=False)
class Rates:
    """Dropout rates of the rows, ready for comparison; `any` says whether one is above zero."""

    least: Tensor  # (N, 1, 1) int16: the least draw that is kept
    scale: Tensor  # (N, 1, 1): what a kept unit is multiplied by
    any: bool

    @classmethod
    def of(cls, rates: list[float], device: torch.device, dtype: torch.dtype) -> Rates:
        """Rates in [0, 1), one for each row."""
        levels = np.round(np.asarray(rates, dtype=np.float64) * _LEVELS)
        least = torch.tensor(levels - _LEVELS // 2, dtype=torch.int16, device=device)
        scale = torch.tensor(1 / (1 - levels / _LEVELS), dtype=dtype, device=device)
        return cls(least[:, None, None], scale[:, None, None], bool(levels.any()))


@dataclass(frozen=True, eq=False)
class Noise:
    """The random numbers of one micro-step; `keys` (N,) int64 are those of `step_keys`."""

    keys: Tensor

    def dropped(self, h: Tensor, layer: int, rates: Rates) -> Tensor:
        """Dropout on activations h (n, b, units) or (n, b, members, units) of the first n rows."""
        return h if not rates.any else h * self.multiplier(h, layer, rates)

    def multiplier(self, h: Tensor, layer: int, rates: Rates) -> Tensor:
        """What dropout multiplies h by: 0 or 1 / (1 - rate)."""
        n = h.shape[0]
        counters = _counters(h.shape[1], h.shape[2] if h.dim() == 4 else 1, -(-h.shape[-1] // 4), h.device)
        draws = counters + (self.keys[:n] + signed(_GOLDEN * (layer + 1)))[:, None, None, None]
        for shift, factor in ((30, _C1), (27, _C2), (31, 1)):
            # torch shifts copies of the sign in, which would bias the upper bits; hence the mask.
            draws.bitwise_xor_((draws >> shift).bitwise_and_(2 ** (64 - shift) - 1)).mul_(factor)
        units = draws.view(torch.int16)[..., : h.shape[-1]]
        units = units if h.dim() == 4 else units[:, :, 0]
        shape = (n,) + (1,) * (h.dim() - 1)
        kept = units >= rates.least[:n].view(shape)
        return kept.to(h.dtype).mul_(rates.scale[:n].view(shape))


@lru_cache(maxsize=32)
def _counters(samples: int, members: int, groups: int, device: torch.device) -> Tensor:
    """Where each group of four units stands, shape (1, samples, members, groups)."""
    assert members <= _MEMBERS and groups <= _UNITS
    sample = torch.arange(samples, device=device)[:, None, None] * _SAMPLE
    member = torch.arange(members, device=device)[:, None] * _UNITS
    return (sample + member + torch.arange(groups, device=device))[None]
