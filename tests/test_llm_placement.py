"""Layers go where the device says, or the reason why they cannot."""

import pytest

from offline_tune.errors import ModelError, UsageError
from offline_tune.llm.backend import Build
from offline_tune.llm.placement import place

FEATURES = {"cpu": "CPU : AVX2 = 1 | ", "cuda": "CUDA : ARCHS = 900 | CPU : AVX2 = 1 | ", "metal": "MTL : BF16 = 1 | "}


def built_for(device, offload=True):
    return Build(
        version="0.3.36", features=FEATURES[device], n_sequences=256, offload=offload, mmap=True, mlock=True
    )  # fmt: skip


@pytest.mark.parametrize(
    ("device", "layers", "build", "placed"),
    [
        ("auto", "all", "cpu", ("cpu", 0)),
        ("auto", 0, "cpu", ("cpu", 0)),
        ("auto", "all", "cuda", ("cuda", -1)),
        ("auto", "all", "metal", ("metal", -1)),
        ("auto", 7, "metal", ("metal", 7)),
        ("cpu", "all", "cuda", ("cpu", 0)),
        ("cpu", 0, "cpu", ("cpu", 0)),
        ("cuda", "all", "cuda", ("cuda", -1)),
        ("cuda", 20, "cuda", ("cuda", 20)),
        ("cuda", 0, "cuda", ("cpu", 0)),
        ("metal", "all", "metal", ("metal", -1)),
    ],
)
def test_layers_go_where_the_device_says(device, layers, build, placed):
    assert place(device, layers, built_for(build)) == placed


def test_auto_stays_on_the_processor_where_no_accelerator_answers():
    assert place("auto", "all", built_for("cuda", offload=False)) == ("cpu", 0)


@pytest.mark.parametrize(
    ("device", "layers", "build", "message"),
    [
        (
            "cuda",
            "all",
            built_for("metal"),
            "--device cuda needs a llama.cpp built for it, got one for cpu, metal; rein",
        ),
        (
            "metal",
            "all",
            built_for("cpu"),
            r"--device metal needs a llama.cpp built for it, got one for cpu; reinstall",
        ),
        ("auto", 5, built_for("cpu"), r"--gpu-layers 5 needs a llama.cpp built for it, got one for cpu; reinstall"),
        ("cuda", 5, built_for("cuda", offload=False), r"--device cuda needs an accelerator .*, got none; check its dr"),
        ("auto", 5, built_for("cuda", offload=False), r"--gpu-layers 5 needs an accelerator .*, got none; check its"),
    ],
)
def test_an_accelerator_that_is_not_there_is_refused(device, layers, build, message):
    with pytest.raises(ModelError, match=message):
        place(device, layers, build)


@pytest.mark.parametrize(
    ("device", "layers", "message"),
    [
        ("npu", "all", "--device must be one of auto, cpu, cuda, metal, got 'npu'; auto suits most machines"),
        ("cpu", 5, "--gpu-layers 5 needs an accelerator, got --device cpu; leave one of them out"),
        ("auto", -1, "--gpu-layers must be all, or a number from 0 to 513, got -1; all suits a model that fits"),
        ("auto", 514, "--gpu-layers must be all, or a number from 0 to 513, got 514; all suits"),
        ("auto", "most", "--gpu-layers must be all, or a number from 0 to 513, got most; all suits"),
        ("auto", None, "--gpu-layers must be all, or a number from 0 to 513, got None; all suits"),
    ],
)
def test_words_and_numbers_out_of_range_are_refused(device, layers, message):
    with pytest.raises(UsageError, match=message):
        place(device, layers, built_for("cuda"))
