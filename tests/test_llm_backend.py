"""llama.cpp is loaded once, in the version that was tested, silently, and asked what it can do."""

import os
import subprocess
import sys

import pytest

from offline_tune.errors import ModelError
from offline_tune.llm.backend import TESTED_VERSIONS, Build, build, check_version, may_repack, waiting

CPU = "CPU : SSE3 = 1 | AVX2 = 1 | SVE = 0 | "
WITHOUT = {
    "none at all": ("sys.modules['llama_cpp'] = None", "llama-cpp-python must be importable, got 'import of llama_cpp"),
    "another version": ("import llama_cpp; llama_cpp.__version__ = '0.3.37'", "must be 0.3.36, got 0.3.37; run: pip"),
    "no version": ("import llama_cpp; del llama_cpp.__version__", "must be 0.3.36, got none; run: pip install"),
}


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


def test_weights_are_not_repacked_for_amx():
    assert may_repack(CPU)
    assert not may_repack(CPU + "AMX_INT8 = 1 | ")


def a_build(features):
    return Build(version="0.3.36", features=features, n_sequences=256, offload=True, mmap=True, mlock=True)


@pytest.mark.parametrize(
    ("features", "accelerators"),
    [
        (CPU, ()),
        ("CUDA : ARCHS = 900 | USE_GRAPHS = 1 | " + CPU, ("cuda",)),
        ("ROCm : NO_VMM = 1 | " + CPU, ("cuda",)),
        ("Metal : EMBED_LIBRARY = 1 | " + CPU, ("metal",)),
        ("MTL : EMBED_LIBRARY = 1 | BF16 = 1 | " + CPU, ("metal",)),
    ],
)
def test_a_build_knows_its_accelerators_and_its_processor(features, accelerators):
    built = a_build(features)
    assert (built.accelerators, built.processor) == (accelerators, ("SSE3", "AVX2"))


def test_the_loaded_build_holds_as_many_sequences_as_the_decoder_wants():
    found = build()
    assert (found.version, found.n_sequences) == (TESTED_VERSIONS[0], 256)
    assert found.processor


@pytest.mark.parametrize("case", WITHOUT)
def test_an_installation_that_cannot_be_used_is_one_error(case):
    code, message = WITHOUT[case]
    program = f"import sys\n{code}\nfrom offline_tune.llm.backend import build\nbuild()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("offline_tune.errors.ModelError: ") and message in last


def test_threads_of_this_process_wait_passively():
    assert waiting().passive


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which libraries are loaded")
@pytest.mark.parametrize(("first", "passive"), [("ctypes.CDLL('libgomp.so.1')", False), ("pass", True)])
def test_a_runtime_that_was_loaded_before_the_policy_is_noticed(first, passive):
    """As by an import of torch or lightgbm before ours."""
    program = f"import ctypes\n{first}\nfrom offline_tune.llm.backend import waiting\nprint(waiting().passive)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(passive), done.stderr


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
