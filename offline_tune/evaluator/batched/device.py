"""Where stacks are trained."""

from __future__ import annotations

import torch

from offline_tune.errors import UsageError


def device_named(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first of cuda, mps and cpu that is there.

    Raises:
        UsageError: there is none of that name.
    """
    there = [kind for kind, found in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()),
                                      ("cpu", True)) if found]  # fmt: skip
    if name == "auto":
        return torch.device(there[0])
    kind, _, number = name.partition(":")
    known = kind in there and (not number or (kind == "cuda" and number.isdecimal()))
    if not known or int(number or 0) >= max(1, torch.cuda.device_count()):
        raise UsageError(f"--device must be one of auto, {', '.join(there)} here, got {name[:60]!r}; choose one")
    return torch.device(name)
