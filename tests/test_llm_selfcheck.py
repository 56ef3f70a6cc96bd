"""A sound llama.cpp passes its checks; an engine that forgets, or changes its mind, does not."""

import gguf_maker
import numpy as np
import pytest

from offline_tune.llm.engine import Engine
from offline_tune.llm.llama import load_model
from offline_tune.llm.selfcheck import check_fork, check_repeat, check_sequences, self_check

LOGITS = np.array([1.0, -8.0, 3.0], np.float32)
REMEDY = r"reinstall llama-cpp-python==0\.3\.36, or use --device cpu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("selfcheck")


@pytest.mark.parametrize("make", [gguf_maker.make_spm, gguf_maker.make_bpe, gguf_maker.make_mamba])
def test_a_sound_model_passes(folder, make):
    model = load_model(make(folder / f"{make.__name__}.gguf"), k_max=5)
    checks = model.self_check()
    assert [(check.name, check.ok) for check in checks] == [("sequences", True), ("fork", True), ("repeat", True)]
    assert checks[0].detail == "6 in one context"
    model.close()


@pytest.mark.parametrize("quantized", ["Q8_0", "Q4_0"])
def test_a_quantised_model_passes(folder, quantized):
    model = load_model(gguf_maker.make_spm(folder / f"{quantized}.gguf", quantized=quantized), k_max=2)
    assert all(check.ok for check in model.self_check())
    model.close()


def test_a_check_leaves_the_model_as_it_was(folder):
    model = load_model(gguf_maker.make_spm(folder / "kept.gguf"), k_max=2)
    before = model.logits_after([5, 6, 7], [[8]])
    model.self_check()
    np.testing.assert_array_equal(model.logits_after([5, 6, 7], [[8]]), before)
    model.close()


def test_an_engine_whose_forks_forget_the_prompt_is_found_out(folder):
    class Forgetful(Engine):
        def forward(self, spans):
            if spans[0].sequence == 0:
                self.release([0])
                spans = [span._replace(start=0) for span in spans]
            return super().forward(spans)

    path = gguf_maker.make_spm(folder / "forgetful.gguf")
    engine = Forgetful(path, n_ctx=64, k_max=2, n_threads=1, n_gpu_layers=0)
    assert [check.name for check in self_check(engine) if not check.ok] == ["fork"]
    engine.close()


@pytest.mark.parametrize(
    ("check", "rule"),
    [
        (check_sequences(65, 1), r"a context must have 65 sequences, got 1"),
        (check_fork(LOGITS, LOGITS + 1), r"a fork must have the logits of its sequence, got a difference of 1"),
        (check_fork(LOGITS, LOGITS * np.nan), r"a fork must have the logits .*, got a difference of nan"),
        (
            check_repeat(LOGITS, np.nextafter(LOGITS, 9)),
            r"the same tokens must have the same logits twice, got a .*-07",
        ),
        (check_repeat(LOGITS, LOGITS * np.nan), r"the same tokens must have the same logits twice, got a .* of nan"),
    ],
)
def test_what_does_not_hold_is_said_with_the_next_step(check, rule):
    import re

    assert not check.ok
    assert re.fullmatch(f"{rule}; {REMEDY}", check.detail), check.detail


def test_a_fork_on_an_accelerator_may_differ_in_its_last_bits():
    check = check_fork(LOGITS, LOGITS + np.float32(1e-5))
    assert check.ok
    assert "1e-05" in check.detail
