"""What the sizes and rates of every network for tables must keep to."""

from __future__ import annotations


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: naming the first.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}; raise it")


def check_rate(rate: float) -> None:
    """Refuse a dropout rate outside [0, 1).

    Raises:
        ValueError: it is.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {rate:g}; lower it")
