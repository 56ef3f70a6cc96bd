"""Where the parameters of many networks lie in one matrix, one row a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Slot:
    """One parameter: its place in a row, its padded shape, and how many of the first rows have it."""

    start: int
    shape: tuple[int, ...]
    n_rows: int

    @property
    def size(self) -> int:
        """Numbers in one row."""
        return math.prod(self.shape)

    def cells(self, row: Tensor) -> Tensor:
        """The parameter in one row (P,), padded."""
        return row[self.start : self.start + self.size].view(self.shape)

    def view(self, flat: Tensor) -> Tensor:
        """The parameter in a matrix (N, P): shape (n_rows, ...)."""
        return flat[: self.n_rows, self.start : self.start + self.size].view(self.n_rows, *self.shape)


@dataclass(frozen=True, eq=False)
class Layout:
    """The slots of a stack, those with weight decay first; `width` is P, `n_decayed` where they end."""

    slots: Mapping[str, Slot]
    width: int
    n_decayed: int

    @classmethod
    def of(cls, shapes: Sequence[Shapes], rooms: Sequence[Shapes]) -> Layout:
        """The layout of networks in the order of their rows.

        Args:
            shapes: of each network's own parameters.
            rooms: to what they are padded at least.

        Raises:
            ValueError: a parameter belongs to a later row but not to an earlier one.
        """
        holders = {name: sum(name in own for own in shapes) for own in shapes for name in own}
        slots, start = {}, 0
        for name in sorted(holders, key=lambda each: not each.endswith("weight")):
            n = holders[name]
            if not all(name in own for own in shapes[:n]):
                raise ValueError(f"rows with a parameter must come first, got {name[:60]!r} after a gap; sort them")
            shape = tuple(max(sides) for sides in zip(*(room[name] for room in rooms[:n]), strict=True))
            slots[name] = Slot(start, shape, n)
            start += slots[name].size
        n_decayed = sum(slot.size for name, slot in slots.items() if name.endswith("weight"))
        return cls(slots, start, n_decayed)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Each parameter of a matrix (N, P)."""
        return {name: slot.view(flat) for name, slot in self.slots.items()}

    def blanks(self, flat: Tensor) -> list[Tensor]:
        """The parts of a matrix (N, P) that belong to no parameter: layers of rows that lack them."""
        return [
            flat[slot.n_rows :, slot.start : slot.start + slot.size]
            for slot in self.slots.values()
            if slot.n_rows < len(flat)
        ]

    def write(self, flat: Tensor, row: int, values: Mapping[str, Tensor]) -> None:
        """Put one network's own numbers into the corner of its row; the rest stays as it is."""
        for name, value in values.items():
            self.slots[name].view(flat)[row][_corner(value.shape)] = value.to(device=flat.device, dtype=flat.dtype)

    def read(self, flat: Tensor, row: int, shapes: Shapes) -> dict[str, Tensor]:
        """A copy of one network's own numbers; `flat` may hold any rows of the stack, in any order."""
        return {name: self.slots[name].cells(flat[row])[_corner(shape)].clone() for name, shape in shapes.items()}

    def copy(self, flat: Tensor, other: Layout, source: Tensor, rows: Sequence[int | None]) -> None:
        """Fill rows from those of a matrix in another layout; None leaves a row as it is."""
        for name, slot in self.slots.items():
            pairs = [(to, row) for to, row in enumerate(rows[: slot.n_rows]) if row is not None]
            if not pairs or name not in other.slots:
                continue
            to, taken = (torch.tensor(places, device=flat.device) for places in zip(*pairs, strict=True))
            corner = _corner(tuple(map(min, slot.shape, other.slots[name].shape)))
            part = other.slots[name].view(source).index_select(0, taken)[(slice(None), *corner)]
            slot.view(flat)[(slice(None), *corner)].index_copy_(0, to, part)


def _corner(shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(side) for side in shape)


def shapes_of(values: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of named tensors."""
    return {name: tuple(value.shape) for name, value in values.items()}


def zeros_like(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors of zeros."""
    return {name: torch.zeros_like(value) for name, value in values.items()}
