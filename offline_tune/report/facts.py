"""Everything that a report shows, read once from a run folder.

Knows nothing of text, tables or HTML; they show what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

from offline_tune.errors import StudyError
from offline_tune.report.calls import CallLog, read_calls
from offline_tune.report.importance import importances_of
from offline_tune.report.metric import ShownMetric
from offline_tune.report.task_facts import TaskFacts
from offline_tune.report.testpart import TestPart, read_test
from offline_tune.report.trial import ROOT, TrialFacts, own_values, trials_of
from offline_tune.space import SearchSpace, Values, quoted
from offline_tune.study.folder import RunFolder
from offline_tune.study.result import RunResult, Scored
from offline_tune.study.settings import RunSettings
from offline_tune.study.storage import load_study, storage_errors

_NO_METRIC = "score"


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """One finished run. `importances` are of the winner's family, by full parameter name, summing to one."""

    folder: RunFolder
    settings: RunSettings
    result: RunResult
    space: SearchSpace
    metric: ShownMetric
    task: TaskFacts
    trials: tuple[TrialFacts, ...]
    log: CallLog
    test: TestPart | None
    importances: Mapping[str, float]

    @cached_property
    def ranked(self) -> tuple[TrialFacts, ...]:
        """The trials that have a score, the best first, the earlier of equals first."""
        scored = [(-trial.score, trial.number, trial) for trial in self.trials if trial.score is not None]
        return tuple(trial for *_, trial in sorted(scored, key=lambda item: item[:2]))

    @cached_property
    def failed(self) -> tuple[TrialFacts, ...]:
        """The trials that ended without a score."""
        return tuple(trial for trial in self.trials if trial.failed)

    @cached_property
    def unfinished(self) -> tuple[TrialFacts, ...]:
        """The trials that have not ended."""
        return tuple(trial for trial in self.trials if not trial.state.is_finished())

    @cached_property
    def incumbents(self) -> tuple[tuple[int, float], ...]:
        """The incumbent curve: (trial number, best score so far) for each trial that has a score."""
        best, curve = float("-inf"), []
        for trial in self.trials:
            if trial.score is not None:
                best = max(best, trial.score)
                curve.append((trial.number, best))
        return tuple(curve)

    @cached_property
    def sources(self) -> Mapping[str, tuple[TrialFacts, ...]]:
        """The trials by who proposed them, the busiest source first."""
        return self._grouped({trial.number: trial.source for trial in self.trials})

    @cached_property
    def families(self) -> Mapping[str, tuple[TrialFacts, ...]]:
        """The trials by family, the most tried first."""
        return self._grouped({trial.number: trial.family for trial in self.trials})

    @cached_property
    def reasons(self) -> Mapping[str, tuple[TrialFacts, ...]]:
        """The failed trials by the sentence of their outcome, the most frequent first."""
        return self._grouped({trial.number: trial.outcome or "failed, no reason noted" for trial in self.failed})

    @cached_property
    def winner(self) -> TrialFacts | None:
        """The winner's trial; None where the result names no trial of the study."""
        return self.trial_of(self.result.winner)

    @cached_property
    def winner_family(self) -> str:
        """The winner's family; empty in a space without families."""
        return str(self.result.winner.values.get(ROOT, "")) or (self.winner.family if self.winner else "")

    @property
    def winner_values(self) -> Values:
        """The winner's own values, without the family."""
        return own_values(self.result.winner.values) or (self.winner.own if self.winner else {})

    @property
    def other_metrics(self) -> tuple[ShownMetric, ...]:
        """The metrics that were computed beside the optimised one."""
        return tuple(ShownMetric(name) for name in self.task.metrics if name != self.metric.name)

    @property
    def family_trials(self) -> tuple[TrialFacts, ...]:
        """The trials of the winner's family that have a score, the best first."""
        return tuple(trial for trial in self.ranked if trial.family == self.winner_family)

    def trial_of(self, scored: Scored) -> TrialFacts | None:
        """The one trial behind a scored model; None for an ensemble or an unknown number."""
        by_number = {trial.number: trial for trial in self.trials}
        return by_number.get(scored.trials[0]) if len(scored.trials) == 1 else None

    def _grouped(self, key_of: Mapping[int, str]) -> Mapping[str, tuple[TrialFacts, ...]]:
        groups: dict[str, list[TrialFacts]] = {}
        for trial in self.trials:
            if trial.number in key_of:
                groups.setdefault(key_of[trial.number], []).append(trial)
        return {key: tuple(groups[key]) for key in sorted(groups, key=lambda key: -len(groups[key]))}


def read(folder: RunFolder) -> Report:
    """Read a finished run.

    Raises:
        UsageError: the folder holds no run.
        StudyError: it has no result yet, or something in it is damaged.
    """
    folder.check_exists()
    settings, result = RunSettings.load(folder), RunResult.load(folder)
    _check_numbers(result)
    study, space = load_study(folder.storage)
    with storage_errors(folder.storage):
        trials = trials_of(study)
        metric = (study.metric_names or [settings.metric or _NO_METRIC])[0]
    family = str(result.winner.values.get(ROOT, ""))
    return Report(
        folder=folder,
        settings=settings,
        result=result,
        space=space,
        metric=ShownMetric(metric),
        task=TaskFacts.of(result.facts),
        trials=trials,
        log=read_calls(folder.calls),
        test=read_test(folder.test),
        importances=importances_of(study, trials, family),
    )


def _check_numbers(result: RunResult) -> None:
    """Refuse texts where numbers belong, before anything is shown of them."""
    models = [scored for scored in (result.winner, result.best_default, result.ensemble) if scored is not None]
    try:
        numbers = [number for scored in models for number in (*scored.cv.values(), *(scored.test or {}).values())]
        numbers += [number for scored in models for number in (*scored.trials, *scored.weights)]
        numbers += [number for number in asdict(result.spent).values() if number is not None]
    except (AttributeError, TypeError) as error:
        raise StudyError(
            f"result.json must hold a table of scores for each model, got another form ({quoted(str(error))}); "
            "restore it from a copy"
        ) from error
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise StudyError(
                f"result.json must hold numbers for scores and times, got {quoted(number)}; restore it from a copy"
            )
