"""Who tunes best: the shipped model against random search, TPE, a Gaussian process, CMA-ES and greedy portfolios.

Problems: data sets held out of training (landscapes, in the folder that OFFLINE_TUNE_LANDSCAPES or --landscapes
names), one family alone and three under a root; the spaces of `run` on held-out tables of --sweeps, and with
--collection the same with every candidate really trained; synthetic functions of seeds that training never used.
Regret: 0 is the best of 20,000 random configurations, 1 their median, at most 5.

    make bench-tuning
    python benchmarks/tuning.py --seeds 10 --trials 40 --workers 2      what docs/benchmarks.md reports
    python benchmarks/tuning.py --quick
    python benchmarks/tuning.py --contestants llama,"portfolio + gp" --model new.gguf --label new
    python benchmarks/tuning.py --unseen xgboost --model trained_without_xgboost.gguf

Runs are kept in --work: what is there is not measured again, so a killed contest goes on, and a new model needs only
its own rows (they are told apart by --label, by default the model's sha256).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from contest.contestants import FORMS, RIVALS, Run, compete, regret
from contest.figures import BUDGETS, TARGET, Curves, mean_regret, share_won, text, trials_to_target
from contest.problems import Catalogue
from contest.records import Records

from offline_tune.errors import SpaceError
from offline_tune.llm.manifest import shipped_model

WORST = 5.0

Found = dict[str, dict[str, tuple[np.ndarray, list[Run]]]]  # contestant, problem: regret (seeds, trials), runs


def main() -> None:
    options = _options()
    catalogue = Catalogue(
        landscapes=options.landscapes,
        cache=options.work.parent / "cache",
        functions=options.functions,
        instances=options.instances,
        unseen=options.unseen,
        sweeps=options.sweeps,
        all_tables=options.all_tables,
        collection=options.collection,
    )
    keys = [key for key in catalogue.keys() if not options.only or key.partition("/")[0] in options.only]
    report(measure(catalogue, keys, options), options)


def measure(catalogue: Catalogue, keys: list[str], options: argparse.Namespace) -> Found:
    """Every run that is asked for, from the work file where it is there."""
    records, found = Records(options.work), Found()
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"), _quiet) as pool:
        for key in keys:
            facts = pool.submit(_facts, catalogue, key).result()
            names = [n for n in options.contestants if facts.portfolio or not n.startswith("portfolio")]
            jobs = [(name, seed) for seed in range(options.seeds) for name in names]
            places = {job: (key, _place(job[0], facts, options), job[1]) for job in jobs}
            missing = [job for job in jobs if records.get(*places[job], facts.bounds, options.trials) is None]
            work = [pool.submit(_compete, catalogue, key, *job, options.trials, options.model) for job in missing]
            for job, done in zip(missing, work, strict=True):
                if (run := done.result()) is not None:
                    records.add(*places[job], facts.bounds, run)
            for name in names:
                own = [places[name, seed] for seed in range(options.seeds)]
                known = [records.get(*place, facts.bounds, options.trials) for place in own]
                if runs := [run for run in known if run is not None]:
                    curves = [regret(*facts.bounds, run.scores[: options.trials], WORST) for run in runs]
                    found.setdefault(name, {})[key] = (np.array(curves), runs)
            if missing:
                print(f"... {key}", file=sys.stderr, flush=True)
    return found


def report(found: Found, options: argparse.Namespace) -> None:
    """Print every table; with --json write the means."""
    budgets = [budget for budget in BUDGETS if budget <= options.trials]
    champion = next((name for name in FORMS if name in found), None)
    means = {}
    for group, members in _groups(found).items():
        curves = {n: {key: runs[key][0] for key in members if key in runs} for n, runs in found.items()}
        curves = {name: runs for name, runs in curves.items() if runs}
        print(f"\n{group}, {len(members)} problems x {options.seeds} seeds: mean regret [95 %] after trials")
        print(text(curves, budgets, champion))
        if options.trials >= TARGET and "random" in curves:
            for name, ours in curves.items():
                median, mean = trials_to_target(ours, curves["random"])
                print(f"{name}: trials to random@{TARGET} median {median:g}, mean {mean:.1f}")
        if champion in curves and group.startswith(("own", "real")) and {"random", "gp"} <= curves.keys():
            _print_first(curves, champion)
        means[group] = {name: {b: mean_regret(ours, b) for b in budgets} for name, ours in curves.items()}
    _print_costs(found)
    if options.json:
        options.json.write_text(json.dumps(means, indent=1) + "\n", encoding="utf-8")


def _print_first(curves: dict[str, Curves], champion: str) -> None:
    """What a user gains at once: the classics' first trial is the default configuration."""
    ours = curves[champion]
    print(f"{champion}'s first proposal beats the default on {share_won(ours, 1, curves['random'], 1):.0%} of them")
    if all(runs.shape[1] >= 20 for runs in ours.values()):
        won = share_won(ours, 5, curves["gp"], 20)
        (five, *_), (twenty, *_) = mean_regret(ours, 5), mean_regret(curves["gp"], 20)
        print(f"{champion}'s best of 5 beats gp's best of 20 on {won:.0%} of them: mean {five:.3f} to {twenty:.3f}")


def _groups(found: Found) -> dict[str, list[str]]:
    """Problems by kind, then all landscapes of single families together, and all own families."""
    keys = list(dict.fromkeys(key for problems in found.values() for key in problems))
    kinds = dict.fromkeys(key.partition("/")[0] for key in keys)
    groups = {kind: [key for key in keys if key.startswith(f"{kind}/")] for kind in kinds}
    lands = [kind for kind in kinds if kind not in ("function", "root", "own", "real") and not kind.startswith("own ")]
    own = [kind for kind in kinds if kind.startswith("own ")]
    for name, members in (("landscapes", lands), ("own families", own)):
        if len(members) > 1:
            groups[name] = [key for kind in members for key in groups[kind]]
    return groups


def _print_costs(found: Found) -> None:
    print("\nseconds a proposal (median; from trial 30 on), invalid and repeated candidates")
    for name, problems in found.items():
        runs = [run for _, several in problems.values() for run in several]
        early = np.median([s for run in runs for s in run.seconds])
        late = [s for run in runs for s in run.seconds[30:]]
        trials = sum(len(run.scores) for run in runs)
        invalid, repeated = sum(run.invalid for run in runs), sum(run.duplicates for run in runs)
        shown = f"{early:.3f}; {np.median(late):.3f}" if late else f"{early:.3f}"
        print(f"{name}: {shown} s; {invalid} invalid, {repeated} repeated of {trials} ({repeated / trials:.2%})")


@dataclass(frozen=True)
class Facts:
    """What decides whether a stored run is of this problem: its bounds, and digests of its portfolio, "" for none.

    `portfolio` is of the entries, `known` of their regrets on other data sets too.
    """

    bounds: tuple[float, float]
    portfolio: str
    known: str


def _place(name: str, facts: Facts, options: argparse.Namespace) -> str:
    """The name under which a run is kept."""
    if name in FORMS:
        return f"{name} @ {options.label} {facts.known}"
    return f"{name} @ {facts.portfolio}" if name.startswith("portfolio") else name


def _facts(catalogue: Catalogue, key: str) -> Facts:
    problem = catalogue.problem(key)
    text = "".join(problem.space.write(values) for values in problem.portfolio.entries).encode()
    entries, known = (
        hashlib.sha256(content).hexdigest()[:8] if text else ""
        for content in (text, text + problem.portfolio.regrets.tobytes())
    )
    return Facts((problem.best, problem.middle), entries, known)


def _compete(catalogue: Catalogue, key: str, name: str, seed: int, trials: int, model: Path) -> Run | None:
    try:
        return compete(catalogue.problem(key), name, seed, trials, model)
    except SpaceError as error:  # a model has limits, above all where it is shown no names
        print(f"{name} cannot tune {key}: {error}", file=sys.stderr)
        return None


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = os.environ.get("OFFLINE_TUNE_LANDSCAPES")
    parser.add_argument("--landscapes", type=Path, default=Path(folder) if folder else None)
    parser.add_argument("--sweeps", type=Path, default=None, help="a table of sweeps, for the project's own spaces")
    parser.add_argument("--all-tables", action="store_true", help="every swept table, not only those held out")
    parser.add_argument("--collection", type=Path, default=None, help="the swept tables themselves, to train for real")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-tuning/runs.jsonl"))
    parser.add_argument("--model", type=Path, default=None, help="a GGUF  [default: the shipped one]")
    parser.add_argument("--label", default="", help="under which the model's runs are kept  [default: by its sha256]")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--functions", type=int, default=12)
    parser.add_argument("--instances", type=int, default=6, help="data sets of each family, at most")
    parser.add_argument("--unseen", type=_names, default=(), help="families that the model was not trained on")
    parser.add_argument("--only", type=_names, default=(), help="kinds of problems")
    parser.add_argument("--contestants", type=_names, default=("llama", *RIVALS))
    parser.add_argument("--ablations", action="store_true", help="every form of the sampler besides")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one seed, ten trials, one data set of each family")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.trials, options.functions, options.instances = 1, 10, 2, 1
    if options.ablations:
        options.contestants = tuple(dict.fromkeys((*options.contestants, *FORMS)))
    if options.unseen:
        options.contestants = tuple(name for name in options.contestants if "portfolio" not in name)
    for name in options.contestants:
        if name not in (*RIVALS, *FORMS):
            parser.error(f"a contestant must be one of {', '.join((*RIVALS, *FORMS))}, got {name!r}")
    options.model = options.model or shipped_model()
    options.label = options.label or hashlib.sha256(options.model.read_bytes()).hexdigest()[:12]
    return options


def _names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(","))


if __name__ == "__main__":
    main()
