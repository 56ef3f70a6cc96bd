"""The benchmark of the decoder: its table, its statistics, and what it plays again."""

import os
import subprocess
import sys
from pathlib import Path

import gguf_maker
import numpy as np
import pytest

from benchmarks.measures import replay
from benchmarks.measures.matching import StepByStep
from benchmarks.measures.table import Row, interleaved, ratios, render, tail
from benchmarks.measures.workload import forget, grammar, history, ten_parameters
from offline_tune.grammar import compile_grammar
from offline_tune.llm.contract import Sampling
from offline_tune.llm.llama import load_model
from offline_tune.llm.matcher import AutomatonMatcher, TokenAutomaton

ROOT = Path(__file__).parents[1]
PROMPT = [gguf_maker.BOS, gguf_maker.WORDS_0 + 3]
# a choice, two forced tokens, a choice
GRAMMAR = TokenAutomaton(({5: 1, 6: 1}, {7: 2}, {8: 3}, {5: 4, 9: 4}, {}))


@pytest.fixture(scope="module")
def recorder():
    with pytest.MonkeyPatch.context() as patch:
        for name in replay.RECORDED:
            patch.setattr(replay.library(), name, getattr(replay.library(), name))  # put back at the end
        yield replay.Recorder()


@pytest.fixture(scope="module")
def model(recorder, tmp_path_factory):
    loaded = load_model(gguf_maker.make_spm(tmp_path_factory.mktemp("gguf") / "m.gguf"), k_max=4, n_threads=1)
    yield loaded
    loaded.close()


def drawn(model, matcher, k=3):
    return model.complete(PROMPT, matcher, k, Sampling(), range(k), 8)


@pytest.mark.parametrize(
    ("values", "bounds", "verdict"),
    [
        ([1, 2, 9], {"at_least": 2}, "met"),
        ([1, 2, 9], {"at_least": 2.1}, "MISSED"),
        ([1, 2, 9], {"at_most": 2}, "met"),
        ([1, 2, 9], {"at_most": 1.9}, "MISSED"),
        ([], {"at_most": 1}, ""),
        ([1], {}, ""),
    ],
)
def test_the_median_is_what_meets_a_target(values, bounds, verdict):
    assert Row("speed", "model", 1, values, **bounds).verdict == verdict


def test_a_table_shows_figure_range_target_and_verdict_in_columns_that_line_up():
    header, first, second = render(
        [Row("speed", "small", 8, [5, 6, 7], "x", at_least=5), Row("slow", "a longer name", None, (), note="skipped")]
    ).splitlines()
    assert first.split() == ["speed", "small", "8", "6x", "[5,", "7]", ">=", "5x", "met"]
    assert second.split() == ["slow", "a", "longer", "name", "-", "skipped"]
    assert header.index("note") == second.index("skipped") and header.index("median") == first.index("6x")


def test_actions_take_turns_with_what_comes_before_each():
    seen = []
    times = interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2, lambda: seen.append("-"))
    assert "".join(seen) == "-a-b-a-b" and {n: len(t) for n, t in times.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_taken_within_each_repeat():
    assert ratios([2.0, 30.0], [1.0, 10.0]) == [2.0, 3.0]


def test_the_tail_compares_a_step_with_its_own_median():
    calm = np.tile([1.0, 100.0], (200, 1))
    assert tail(calm) == 1.0
    calm[:8, 0] = 5.0  # 2 % of all steps
    assert tail(calm) == 5.0


def test_a_recording_holds_every_pass_of_the_call(model, recorder):
    drawn(model, AutomatonMatcher(GRAMMAR))
    before = model.counters.tokens_evaluated
    with recorder.record() as recording:
        drawn(model, AutomatonMatcher(GRAMMAR))
    assert sum(recording.rows) == model.counters.tokens_evaluated - before > 0
    assert recording.rows[0] == 3 * 3  # the drawn token and the two that it decides, for three forks


def test_playing_a_recording_evaluates_the_same_and_leaves_the_model_as_it_was(model, recorder):
    texts = drawn(model, AutomatonMatcher(GRAMMAR))
    with recorder.record() as recording:
        drawn(model, AutomatonMatcher(GRAMMAR))
    first, second = recording.play(), recording.play()
    assert len(first) == len(second) == len(recording.rows)
    assert drawn(model, AutomatonMatcher(GRAMMAR)) == texts


def test_a_share_of_a_call_that_evaluates_nothing_is_refused(recorder):
    with pytest.raises(RuntimeError, match="must reach llama_decode, got no pass"):
        replay.share(recorder, "none", 1, lambda: None, 1)


def test_step_by_step_writes_the_same_text_in_more_passes(model, recorder):
    with recorder.record() as jumping:
        texts = drawn(model, AutomatonMatcher(GRAMMAR))
    with recorder.record() as stepping:
        stepped = drawn(model, StepByStep(AutomatonMatcher(GRAMMAR)))
    assert [c.tokens for c in stepped] == [c.tokens for c in texts]
    assert len(stepping.rows) == len(jumping.rows) + 2


def test_a_model_that_forgot_evaluates_the_prompt_anew(model):
    drawn(model, AutomatonMatcher(GRAMMAR))
    before = model.counters.tokens_evaluated
    drawn(model, AutomatonMatcher(GRAMMAR))
    cached = model.counters.tokens_evaluated - before
    forget(model)
    before = model.counters.tokens_evaluated
    drawn(model, AutomatonMatcher(GRAMMAR))
    assert model.counters.tokens_evaluated - before == cached + len(PROMPT)


def test_variants_of_the_space_have_grammars_of_their_own():
    space = ten_parameters()
    assert len(space.parameters) == 10
    assert all(space.contains(o.values) for o in history(space, 30).scored)
    assert len({grammar().regex, *(compile_grammar(ten_parameters(i)).regex for i in range(1, 10))}) == 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_run_prints_every_row():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "decoding.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    wanted = {
        "propose 64": 3,
        "propose 16": 3,
        "forecast 64": 2,
        "decode-only replay over total": 6,
        "jump-forward alone": 3,
        "schema switch": 2,
        "mask p50": 2,
        "mask p99": 2,
        "candidates/s over Outlines": 3,
        "memory beyond weights": 2,
        "decode p99 over p50": 2,
    }
    lines = done.stdout.splitlines()
    assert {name: sum(line.startswith(name) for line in lines) for name in wanted} == wanted
