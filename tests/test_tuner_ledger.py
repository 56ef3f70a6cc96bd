"""What a run has spent: counted, kept with the study, added up over its parts."""

import json

import optuna
import pytest

from offline_tune.evaluator.contract import Outcome, Result
from offline_tune.samplers.proposal import Answer, Call, Provenance, Source
from offline_tune.study.folder import RunFolder
from offline_tune.study.trials import Asked
from offline_tune.task import Budget
from offline_tune.tuner.events import Silence
from offline_tune.tuner.ledger import Ledger

ASKED = [Asked(number, {"x": 1}, Provenance(source=Source.MODEL, seed=0)) for number in range(2)]
RESULT = Result(outcome=Outcome.OK, seconds=1.0, scores={"r2": 0.5}, peak_mib=1e6)


def a_call(first_trial=0, text="{}"):
    answer = Answer(text=text, logprob=-1.0, rejected_mass=0.0)
    return Call(
        first_trial=first_trial, prompt="", grammar_digest="", answers=(answer,),
        tokens_in=10, tokens_out=5, seconds=0.5,
    )  # fmt: skip


class Ear(Silence):
    def __init__(self):
        self.stages = []

    def on_stage(self, text):
        self.stages.append(text)


@pytest.fixture
def study():
    return optuna.create_study()


@pytest.fixture
def ledger(study, tmp_path):
    return a_ledger(study, tmp_path)


def a_ledger(study, path, listener=None, started=0.0):
    return Ledger(study, started, listener or Silence(), RunFolder(path))


def a_batch(ledger, first_trial=0):
    ledger.on_call(a_call(first_trial))
    ledger.on_batch(ASKED)
    for asked in ASKED:
        ledger.on_result(asked, RESULT)


def test_a_batch_that_ended_is_kept_with_the_study(study, ledger, tmp_path):
    a_batch(ledger)
    again = a_ledger(study, tmp_path)
    assert (again.spent.calls, again.spent.tokens_in, again.spent.tokens_out) == (1, 10, 5)
    assert again.spent.peak_mib == 1e6
    assert again.spent.first_candidate <= again.spent.total
    assert again.spent.evaluation >= 0


def test_parts_add_up(study, ledger, tmp_path):
    a_batch(ledger)
    before = ledger.save()
    again = a_ledger(study, tmp_path)
    a_batch(again, first_trial=2)
    after = again.save("all trials done")
    assert (after.calls, after.model, after.first_candidate) == (2, 1.0, before.first_candidate)
    assert after.total > before.total
    assert study.user_attrs["offline_tune:stopped"] == "all trials done"


def test_an_interrupted_batch_leaves_its_time_but_not_its_call(study, ledger, tmp_path):
    a_batch(ledger)
    total = ledger.spent.total
    ledger.on_call(a_call(2))
    ledger.on_batch(ASKED)
    ledger.interrupt("interrupted")
    again = a_ledger(study, tmp_path)
    assert again.spent.calls == 1
    assert again.spent.total >= total
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("budget", "allowed"),
    [
        (Budget(), 4),
        (Budget(llm_calls=1), 1),
        (Budget(llm_calls=3), 3),
        (Budget(llm_tokens=1), 1),
        (Budget(llm_tokens=31), 3),
        (Budget(llm_calls=2, llm_tokens=31), 2),
    ],
)
def test_the_models_budget_is_kept_and_its_end_is_told_once(study, tmp_path, budget, allowed):
    ledger = a_ledger(study, tmp_path, ear := Ear())
    for place in range(4):
        if ledger.may_call(budget):
            a_batch(ledger, place)
    assert ledger.spent.calls == allowed
    assert len(ear.stages) == (allowed < 4)


def test_the_log_is_lines_of_json_whatever_the_model_wrote(ledger, tmp_path):
    ledger.on_call(a_call(text="a\nb\u2028c\ud800"))
    ledger.on_call(a_call(text="d"))
    first, second = (tmp_path / "calls.jsonl").read_bytes().split(b"\n")[:2]
    assert json.loads(first)["answers"][0]["text"].startswith("a\nb\u2028c")
    assert json.loads(second)["answers"][0]["text"] == "d"
