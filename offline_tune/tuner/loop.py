"""The loop: ask a batch, evaluate it, tell it, again.

Batches are fixed by trial numbers (0 .. b-1, b .. 2b-1, ...), and the candidates of a batch depend on the trials
before it alone; so a run that was killed and resumed proposes what it would have proposed, and the speed of a trial
decides nothing. A batch is planned whole even where the budget ends inside it, so a longer run begins as a shorter one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import optuna
from optuna.trial import TrialState

from offline_tune.evaluator.contract import Evaluator, Result
from offline_tune.history import History, of_study
from offline_tune.space import SearchSpace
from offline_tune.study import trials
from offline_tune.study.folder import RunFolder
from offline_tune.study.storage import storage_errors
from offline_tune.study.trials import Asked
from offline_tune.task import Budget
from offline_tune.tuner.askers import Asker
from offline_tune.tuner.events import Listener

FINISHED = "all trials done"
OUT_OF_TIME = "time limit reached"
EXHAUSTED = "search space exhausted"
INTERRUPTED = "interrupted"

ENQUEUED = "offline_tune:enqueued"


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The parts of a run. `elapsed` gives the seconds since the run began, earlier parts of it included."""

    study: optuna.Study
    space: SearchSpace
    metric: str
    asker: Asker
    evaluator: Evaluator
    folder: RunFolder
    budget: Budget
    batch: int
    seed: int
    listener: Listener
    elapsed: Callable[[], float] = time.monotonic

    def run(self) -> str:
        """Go on until the budget is spent; the first batch runs in any case.

        Returns:
            Why it ended, one of the sentences above.
        """
        with storage_errors(self.folder.storage):
            while (reason := self._reason_to_stop()) is None:
                self._one_batch()
            return reason

    def _reason_to_stop(self) -> str | None:
        finished = trials.n_finished(self.study)
        if finished >= self.budget.trials:
            return FINISHED
        if finished and self.budget.seconds is not None and self.elapsed() >= self.budget.seconds:
            return OUT_OF_TIME
        if finished >= self._last_number():
            return EXHAUSTED
        history = of_study(self.study, self.space)
        done = {self.space.key(o.values) for o in history.observations if not o.pending}
        return EXHAUSTED if len(done) >= self.space.size else None

    def _one_batch(self) -> None:
        asked = self._ask()
        self.listener.on_batch(asked)

        def finish(position: int, result: Result) -> None:
            trial = asked[position]
            if result.oof is not None:
                self.folder.save_oof(trial.number, result.oof)
            trials.tell(self.study, trial, result, self.metric)
            self.listener.on_result(trial, result)

        seeds = [trial_seed(self.seed, trial.number) for trial in asked]
        self.evaluator.evaluate([trial.values for trial in asked], seeds, finish)

    def _ask(self) -> list[Asked]:
        """The trials of the current batch that are not finished: taken up again, enqueued, or new."""
        running = trials.unfinished(self.study)
        next_number = self._n_asked()
        start = (min(running) if running else next_number) // self.batch * self.batch
        end = start + self.batch
        first_sampled = max(start, self._n_enqueued())
        asked = []
        for number in range(start, min(end, self.budget.trials, self._last_number())):
            if number == first_sampled:
                self.asker.plan(self._history_before(start, first_sampled), first_sampled, end - first_sampled)
            self.asker.prepare(self.study, number)
            if number in running:
                asked.append(trials.take_up(self.study, self.space, number, self.asker.label))
            elif number >= next_number:
                asked.append(trials.ask(self.study, self.space, self.asker.label))
        return asked

    def _n_asked(self) -> int:
        everything = self.study.get_trials(deepcopy=False)
        return sum(trial.state is not TrialState.WAITING for trial in everything)

    def _n_enqueued(self) -> int:
        """How many trials were enqueued when the study was made; they have the first numbers."""
        return int(self.study.user_attrs.get(ENQUEUED, 0))

    def _last_number(self) -> int:
        """The number of the first trial for which the sampler would have to repeat itself."""
        return sys.maxsize if self.asker.most is None else self._n_enqueued() + self.asker.most

    def _history_before(self, start: int, first_sampled: int) -> History:
        """Finished trials of earlier batches, and the enqueued ones of this batch as pending."""
        everything = of_study(self.study, self.space).observations
        earlier = (o for o in everything if o.number < start and not o.pending)
        beside = (o for o in everything if start <= o.number < first_sampled)
        pending = (replace(o, score=None, pending=True, reason="") for o in beside)
        return History(self.space, (*earlier, *pending))


def trial_seed(seed: int, number: int) -> int:
    """The seed of a trial's model, from the run's seed and the trial's number; 0 .. 2**31 - 1."""
    return int(np.random.SeedSequence([seed, number, 3]).generate_state(1)[0] >> 1)
