"""Which runs stand in one stack, and how many fit.

What a row needs is measured: one step of a stack of one is taken, and the bytes of its parameters, of the optimiser's
averages and of all that the step keeps for the way back are counted.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from offline_tune.evaluator.batched.resident import Resident
from offline_tune.evaluator.batched.run import Run
from offline_tune.evaluator.batched.stack import MOST_MICRO, Stack

CACHE_BYTES = 8 * 2**20  # of a processor: larger stacks wait for memory and train no faster
SHARE_OF_FREE_MEMORY = 0.6
MOST_ROWS = 4096


def packed(runs: Iterable[Run], *, by_size: bool) -> list[list[Run]]:
    """Runs that may be trained together, each group in the order given.

    Args:
        runs: to be trained.
        by_size: also part runs by sizes, batches and lengths of an epoch, so that neighbours decide nothing about the
            arithmetic of a run, and little is wasted on padding.
    """
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run, by_size), []).append(run)
    return list(groups.values())


def most_rows(run: Run, data: Resident, dtype: torch.dtype) -> int:
    """How many runs like this one a stack should hold: what fits the cache, or the memory of a GPU."""
    size = row_bytes(run, data, dtype)
    room = CACHE_BYTES if data.device.type == "cpu" else _free_bytes(data.device) * SHARE_OF_FREE_MEMORY
    return max(1, min(MOST_ROWS, int(room // size)))


def row_bytes(run: Run, data: Resident, dtype: torch.dtype) -> int:
    """Bytes that one row of a stack holds at its fullest, counted in one step of a stack of this run alone."""
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        held = Stack([run], data, dtype).rehearse()
    return held + sum(saved.values())


def _key(run: Run, by_size: bool) -> Hashable:
    network, recipe = run.job.network, run.job.recipe
    kind = (type(network), network.key)
    if not by_size:
        return kind
    micro = min(recipe.batch_size, MOST_MICRO)
    length = round(math.log(max(1, run.job.steps * recipe.batch_size // micro), 1.25))
    return (*kind, network.size, micro, length, recipe.optimiser)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)
