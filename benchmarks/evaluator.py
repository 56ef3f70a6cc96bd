"""What training in stacks is worth: equality first, then seconds against loops that train one network after another.

All ratios are of one run on one machine; contestants take turns, and the quickest turn of each counts. Where a CUDA
device is there, a table of T(N) and a tuning job of 256 configurations in five folds follow.

    make bench-evaluator
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import nn

from offline_tune.evaluator.batched.job import Job, Recipe, Rows
from offline_tune.evaluator.batched.networks.mlp import MLP
from offline_tune.evaluator.batched.resident import Resident
from offline_tune.evaluator.batched.run import Run
from offline_tune.evaluator.batched.trainer import Trainer
from offline_tune.evaluator.batched.verify import verify

CANDIDATES, EPOCHS, TURNS = 32, 2, 3
N_ROWS, COLUMNS, CLASSES, WIDTH = 5000, 20, 5, 64
BATCHES = (16, 32, 64, 128, 256, 512)

GPU_ROWS, GPU_COLUMNS, GPU_WIDTH, GPU_BATCH = 100_000, 50, 256, 256
GPU_EPOCHS, GPU_CONFIGURATIONS, GPU_FOLDS = 20, 256, 5
GPU_SIZES = (1, 4, 16, 64, 256, 1024)


def main() -> None:
    torch.set_num_threads(1)
    for proof in verify():
        print(
            f"{proof.family}: {proof.n_candidates} mixed candidates, largest difference in double precision: from plain"
            f" torch {proof.largest_difference:.0e}, in another order {proof.permuted:.0e}, beside one that diverges"
            f" {proof.beside_divergence:.0e}  (aim: at most 1e-10)"
        )
    print(f"\n{CANDIDATES} networks {COLUMNS} -> {WIDTH} -> {WIDTH} -> {CLASSES}, {N_ROWS} rows, {EPOCHS} epochs, CPU")
    X, y = made_up(N_ROWS, COLUMNS, CLASSES)
    data = Resident.of(np.pad(X, ((0, 0), (0, 4))), y)
    sklearn, ours = quickest(lambda: by_sklearn(X, y), lambda: by_two_stacks(X, y))
    print(
        f"batch 32, joblib with 2 jobs: scikit-learn's MLPClassifier {sklearn:.2f} s, two stacks of 16 {ours:.2f} s: "
        f"{sklearn / ours:.1f}x  (aim: at least 5x)"
    )
    rows = ["batch   torch loop s   stack s   ratio   (one thread each; aim: at least 4x at 32, never below 1x)"]
    for batch in BATCHES:
        loop, stack = quickest(lambda b=batch: by_loop(data, b), lambda b=batch: by_stack(data, b))
        rows.append(f"{batch:5d}   {loop:12.2f}   {stack:7.2f}   {loop / stack:5.1f}")
    if torch.cuda.is_available():
        on_gpu()
    print("\n".join(rows))


def made_up(n: int, d: int, c: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)).astype(np.float32)
    hidden = np.tanh(2 * X @ rng.normal(size=(d, 32)) / d**0.5)
    return X, (hidden @ rng.normal(size=(32, c)) + 0.5 * rng.normal(size=(n, c))).argmax(axis=1)


def quickest(*contestants: Callable[[], object]) -> list[float]:
    """Seconds of each; they take turns after one turn to warm up."""
    seconds = [[] for _ in contestants]
    for turn in range(TURNS + 1):
        for place, contestant in enumerate(contestants):
            began = time.perf_counter()
            contestant()
            if turn:
                seconds[place].append(time.perf_counter() - began)
    return [min(each) for each in seconds]


def rates(n: int) -> np.ndarray:
    return np.geomspace(1e-4, 1e-2, n)


def by_sklearn(X: np.ndarray, y: np.ndarray) -> None:
    Parallel(n_jobs=2)(delayed(fit_sklearn)(X, y, rate, seed) for seed, rate in enumerate(rates(CANDIDATES)))


def fit_sklearn(X: np.ndarray, y: np.ndarray, rate: float, seed: int) -> None:
    model = MLPClassifier(
        (WIDTH, WIDTH), batch_size=32, max_iter=EPOCHS, learning_rate_init=rate, random_state=seed, n_iter_no_change=99
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)


def by_loop(data: Resident, batch: int) -> None:
    X = data.X[:, :COLUMNS].contiguous()
    for seed, rate in enumerate(rates(CANDIDATES)):
        layers = [nn.Linear(COLUMNS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES)]
        loop(nn.Sequential(*layers), X, data.y, np.arange(len(X)), batch, EPOCHS, float(rate), seed)


def loop(
    model: nn.Module,
    X: torch.Tensor,
    y: torch.Tensor,
    rows: np.ndarray,
    batch: int,
    epochs: int,
    rate: float,
    seed: int,
) -> None:
    """What everybody writes, with the quickest optimiser that torch has."""
    model = model.to(X.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    positions, shuffle = torch.as_tensor(rows, device=X.device), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = positions[torch.randperm(len(rows), generator=shuffle).to(X.device)]
        for start in range(0, len(rows) // batch * batch, batch):
            some = order[start : start + batch]
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(X[some]), y[some]).backward()
            optimiser.step()


def by_two_stacks(X: np.ndarray, y: np.ndarray) -> None:
    Parallel(n_jobs=2)(delayed(half)(X, y, each) for each in np.split(rates(CANDIDATES), 2))


def half(X: np.ndarray, y: np.ndarray, some: np.ndarray) -> None:
    torch.set_num_threads(1)
    by_stack(Resident.of(np.pad(X, ((0, 0), (0, 4))), y), 32, some)


def by_stack(data: Resident, batch: int, some: np.ndarray | None = None) -> None:
    rows = Rows(np.arange(len(data.X)))
    network = MLP(n_inputs=COLUMNS, n_outputs=CLASSES, is_classifier=True, width=WIDTH, depth=2)
    runs = [
        Run(Job(network=network, seed=seed, train=rows, recipe=a_recipe(batch, EPOCHS, rate)))
        for seed, rate in enumerate(rates(CANDIDATES) if some is None else some)
    ]
    train(Trainer(data), runs)


def a_recipe(batch: int, epochs: int, rate: float) -> Recipe:
    return Recipe(batch_size=batch, epochs=epochs, learning_rate=float(rate), weight_decay=0.01, schedule="constant")


def train(trainer: Trainer, runs: list[Run]) -> None:
    trainer.advance(runs)
    for run in runs:
        if run.failure is not None:
            raise run.failure


def on_gpu() -> None:
    X, y = made_up(GPU_ROWS, GPU_COLUMNS, 10)
    data = Resident.of(np.pad(X, ((0, 0), (0, 14))), y, device="cuda")
    print(f"\n{torch.cuda.get_device_name()}: {GPU_COLUMNS} -> {GPU_WIDTH} x 3 -> 10, batch {GPU_BATCH}")
    folds = [np.flatnonzero(np.arange(GPU_ROWS) % GPU_FOLDS != fold) for fold in range(GPU_FOLDS)]
    alone = synchronised(lambda: gpu_loop(data, folds[0]))
    print(f"torch loop, one network, one epoch: {alone:.2f} s")
    print("    N   T(N) s   against N loops")
    for n in GPU_SIZES:
        seconds = synchronised(lambda n=n: gpu_stack(data, folds[:1], n, epochs=1))
        print(f"{n:5d}   {seconds:6.2f}   {n * alone / seconds:6.1f}x")
    torch.cuda.reset_peak_memory_stats()
    seconds = synchronised(lambda: gpu_stack(data, folds, GPU_CONFIGURATIONS, GPU_EPOCHS))
    sequential = alone * GPU_CONFIGURATIONS * GPU_FOLDS * GPU_EPOCHS
    print(
        f"{GPU_CONFIGURATIONS} configurations x {GPU_FOLDS} folds x {GPU_EPOCHS} epochs, {GPU_ROWS} rows:"
        f" {seconds:.1f} s  (aim: at most 60 s), {sequential / seconds:.0f}x the loop, peak"
        f" {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB\n"
    )


def gpu_loop(data: Resident, rows: np.ndarray) -> None:
    sides = [GPU_COLUMNS, GPU_WIDTH, GPU_WIDTH, GPU_WIDTH]
    layers = [layer for i, o in pairwise(sides) for layer in (nn.Linear(i, o), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(GPU_WIDTH, 10))
    loop(model, data.X[:, :GPU_COLUMNS].contiguous(), data.y, rows, GPU_BATCH, 1, 1e-3, 0)


def gpu_stack(data: Resident, folds: list[np.ndarray], n: int, epochs: int) -> None:
    network = MLP(n_inputs=GPU_COLUMNS, n_outputs=10, is_classifier=True, width=GPU_WIDTH, depth=3)
    runs = [
        Run(Job(network=network, seed=seed, train=rows, recipe=a_recipe(GPU_BATCH, epochs, rate)))
        for rows in map(Rows, folds)
        for seed, rate in enumerate(rates(n))
    ]
    train(Trainer(data), runs)


def synchronised(action: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    action()
    torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
