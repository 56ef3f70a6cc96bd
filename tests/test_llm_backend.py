"""llama.cpp is loaded once, in the version that was tested, silently, and asked what it can do."""

import os
import subprocess
import sys

import pytest

from offline_tune.errors import ModelError, UsageError
from offline_tune.llm.backend import TESTED_VERSIONS, check_version, gpu_layers, library, may_repack

CPU = "CPU : SSE3 = 1 | AVX2 = 1 | "
CUDA = "CUDA : ARCHS = 900 | USE_GRAPHS = 1 | " + CPU
METAL = "Metal : EMBED_LIBRARY = 1 | " + CPU


def test_the_installed_version_was_tested():
    import llama_cpp

    check_version(llama_cpp.__version__)


@pytest.mark.parametrize("version", ["0.3.35", "0.4.0", ""])
def test_another_version_is_refused(version):
    with pytest.raises(
        ModelError, match=f"llama-cpp-python must be {TESTED_VERSIONS[0]}, got {version}; run: pip install llama-cpp"
    ):
        check_version(version)


def test_the_constraint_is_a_tested_version():
    from importlib.metadata import version

    assert version("llama-cpp-python") in TESTED_VERSIONS


@pytest.mark.parametrize(
    ("device", "available", "layers"),
    [
        ("auto", CPU, 0),
        ("auto", CUDA, -1),
        ("auto", METAL, -1),
        ("cpu", CUDA, 0),
        ("cuda", CUDA, -1),
        ("metal", METAL, -1),
    ],
)
def test_layers_go_where_the_device_says(device, available, layers):
    assert gpu_layers(device, available) == layers


def test_a_device_that_the_build_lacks_is_refused():
    with pytest.raises(ModelError, match=r"--device cuda needs a llama.cpp built for it, got one for cpu, metal"):
        gpu_layers("cuda", METAL)


def test_an_unknown_device_is_refused():
    with pytest.raises(UsageError, match="--device must be one of auto, cpu, cuda, metal, got 'npu'"):
        gpu_layers("npu", CPU)


def test_weights_are_not_repacked_for_amx():
    assert may_repack(CPU)
    assert not may_repack(CPU + "AMX_INT8 = 1 | ")


def test_threads_wait_passively_unless_the_user_decided():
    library()
    assert os.environ["OMP_WAIT_POLICY"]


def test_the_light_modules_load_no_engine():
    code = (
        "import sys, offline_tune.llm.llama, offline_tune.llm.manifest, offline_tune.llm.scripted\n"
        "print({'llama_cpp', 'llguidance', 'outlines', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_loading_a_model_prints_nothing(tmp_path):
    import gguf_maker

    path = gguf_maker.make_spm(tmp_path / "m.gguf")
    code = f"from pathlib import Path; from offline_tune.llm.llama import load_model; load_model(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
