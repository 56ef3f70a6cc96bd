"""What the page's tables show, worked out from a report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from offline_tune.report.facts import Report
from offline_tune.report.metric import ShownMetric
from offline_tune.report.trial import ROOT, TrialFacts
from offline_tune.report.wording import value_text
from offline_tune.samplers.proposal import Source
from offline_tune.study.result import Scored, Spent

_CARD_WORDS = {
    "n_train": "training rows",
    "n_test": "test rows",
    "n_features": "features",
    "n_numeric": "numeric features",
    "n_categorical": "categorical features",
    "n_text": "text features",
    "n_date": "date features",
    "n_classes": "classes",
    "imbalance": "largest class's share",
    "missing_share": "missing cells",
    "max_cardinality": "most categories in a column",
    "mean_abs_skew": "mean absolute skew of numbers",
}
_LANDMARKS = {"linear_score": "a quick linear model", "tree_score": "a quick tree"}
_SHARES = ("imbalance", "missing_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The first lines of the page, ready to be read."""

    title: str
    test: str
    cv: str
    default_test: str
    default_cv: str
    gain: str
    gain_where: str
    is_gain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterLine:
    """One hyperparameter of the winner beside its family's default."""

    name: str
    value: str
    default: str
    sentence: str
    importance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyLine:
    """What came of one family."""

    name: str
    n_trials: int
    n_failed: int
    default: TrialFacts | None
    best: TrialFacts | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """What came of one source; `n_improvements` of its trials were better than all before."""

    name: str
    n_trials: int
    n_failed: int
    best: float | None
    n_improvements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLine:
    """One model of the ensemble; `share` is its weight over the greatest."""

    number: int
    family: str
    weight: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeShares:
    """Shares of the wall time, summing to one: workers busy, language model, the rest."""

    evaluation: float
    model: float
    rest: float


def headline_of(report: Report) -> Headline:
    """The winner, its score on the test part, its gain; cross-validated figures where there is no test part."""
    winner, default, metric = report.result.winner, report.result.best_default, report.metric
    test, cv = _score(winner, metric.name, "test"), _score(winner, metric.name, "cv")
    default_test, default_cv = _score(default, metric.name, "test"), _score(default, metric.name, "cv")
    on_test = metric.gain(test, default_test)
    pair = (test, default_test) if on_test else (cv, default_cv)
    trial = report.winner
    return Headline(
        title=(report.winner_family or f"trial {trial.number}") if trial else "no winner",
        test=metric.text(test),
        cv=metric.text(cv),
        default_test=metric.text(default_test),
        default_cv=metric.text(default_cv),
        gain=on_test or metric.gain(cv, default_cv),
        gain_where="on the test part" if on_test else "cross-validated",
        is_gain=None not in pair and (pair[0] or 0.0) > (pair[1] or 0.0),
    )


def parameters_of(report: Report) -> tuple[ParameterLine, ...]:
    """The winner's hyperparameters in written order."""
    family = report.winner_family
    prefix = f"{family}." if family and ROOT in report.space.by_name else ""
    return tuple(
        ParameterLine(
            name=name,
            value=value_text(value),
            default=_default(report, f"{prefix}{name}"),
            sentence=report.task.sentence_on(family, name),
            importance=report.importances.get(f"{prefix}{name}"),
        )
        for name, value in report.winner_values.items()
    )


def families_of(report: Report) -> tuple[FamilyLine, ...]:
    """The families, the best first, those without a score last."""
    lines = [_family(name, trials) for name, trials in report.families.items() if name]
    return tuple(sorted(lines, key=lambda line: -_best(line.best)))


def sources_of(report: Report) -> tuple[SourceLine, ...]:
    """Who proposed, the busiest first."""
    bests = [best for _, best in report.incumbents]
    numbers = [number for number, _ in report.incumbents]
    improved = {n for i, n in enumerate(numbers) if i == 0 or bests[i] > bests[i - 1]}
    return tuple(
        SourceLine(
            name=source,
            n_trials=len(trials),
            n_failed=sum(trial.failed for trial in trials),
            best=max((trial.score for trial in trials if trial.score is not None), default=None),
            n_improvements=sum(trial.number in improved for trial in trials),
        )
        for source, trials in report.sources.items()
    )


def members_of(report: Report) -> tuple[MemberLine, ...]:
    """The ensemble's models, the heaviest first; empty without an ensemble."""
    ensemble = report.result.ensemble
    if ensemble is None:
        return ()
    families = {trial.number: trial.family for trial in report.trials}
    pairs = sorted(zip(ensemble.trials, ensemble.weights, strict=False), key=lambda pair: (-pair[1], pair[0]))
    greatest = max((abs(weight) for _, weight in pairs), default=0.0) or 1.0
    return tuple(MemberLine(number=n, family=families.get(n, ""), weight=w, share=abs(w) / greatest) for n, w in pairs)


def importances_of(report: Report) -> tuple[tuple[str, float], ...]:
    """Names without the family's prefix, and shares that sum to one, the largest first."""
    prefix = f"{report.winner_family}."
    return tuple((name.removeprefix(prefix), share) for name, share in report.importances.items())


def card_of(report: Report) -> tuple[tuple[str, str], ...]:
    """The data card in words; facts that say nothing are left out."""
    counts = {"n_train": report.task.n_train, "n_test": report.task.n_test, **report.task.card}
    counts.pop("n_rows", None)  # the card's rows are the training part's, which stand above
    landmarks = {name: counts.pop(name, None) for name in _LANDMARKS}
    facts = [
        (_CARD_WORDS.get(name, name.replace("_", " ")), _fact(name, value))
        for name, value in counts.items()
        if value not in (None, "", 0) or name in ("missing_share", "n_test")
    ]
    kind = report.task.kind
    scorer = ShownMetric("balanced_accuracy" if kind is None or kind.is_classification else "r2")
    quick = [(f"{_LANDMARKS[name]}, {scorer.title}", score) for name, score in landmarks.items()]
    return (*facts, *((words, scorer.text(score)) for words, score in quick if isinstance(score, float)))


def settings_of(report: Report) -> tuple[tuple[str, str], ...]:
    """Every setting of the run by its name."""
    settings = asdict(report.settings)
    budget, limits = settings.pop("budget"), settings.pop("limits")
    settings |= {f"budget, {name}": value for name, value in budget.items()}
    settings |= {f"one trial at most, {name}": value for name, value in limits.items()}
    return tuple((name.replace("_", " "), _setting(value)) for name, value in settings.items())


def shares_of_time(spent: Spent) -> TimeShares | None:
    """How the wall time was spent; None where no time was noted."""
    if spent.total <= 0:
        return None
    evaluation = min(spent.evaluation / spent.total, 1.0)
    model = min(spent.model / spent.total, 1.0 - evaluation)
    return TimeShares(evaluation=evaluation, model=model, rest=max(0.0, 1.0 - evaluation - model))


def _fact(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name in _SHARES:
        return f"{value:.1%}".replace("%", " %")
    return f"{value:,}" if isinstance(value, int) else value_text(value)


def _setting(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _score(scored: Scored | None, metric: str, where: str) -> float | None:
    scores = getattr(scored, where, None) if scored else None
    return scores.get(metric) if scores else None


def _default(report: Report, name: str) -> str:
    parameter = report.space.by_name.get(name)
    return value_text(parameter.default_or_middle) if parameter else "-"


def _family(name: str, trials: Sequence[TrialFacts]) -> FamilyLine:
    scored = [trial for trial in trials if trial.score is not None]
    seconds = [trial.seconds for trial in trials if trial.seconds is not None]
    return FamilyLine(
        name=name,
        n_trials=len(trials),
        n_failed=sum(trial.failed for trial in trials),
        default=next((trial for trial in trials if trial.source == Source.DEFAULT.value), None),
        best=max(scored, key=lambda trial: (_best(trial), -trial.number), default=None),
        seconds=statistics.median(seconds) if seconds else None,
    )


def _best(trial: TrialFacts | None) -> float:
    return float("-inf") if trial is None or trial.score is None else trial.score
