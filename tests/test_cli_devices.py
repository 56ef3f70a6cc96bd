"""Where the language model runs: asked for, noted, kept; and what the doctor says of it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import ROOT, command, copy_of_run, finished_folder, finished_run, run_arguments, shop, told

from offline_tune.cli.settings import changed
from offline_tune.llm.manifest import MODEL_FOLDERS
from offline_tune.study.settings import RunSettings

BAD_PLACES = [
    (["--device", "npu"], 2, r"Invalid value for '--device': 'npu' is not one of 'auto', 'cpu', 'cuda', 'metal'; .*"),
    (["--gpu-layers", "some"], 2, r"Invalid value for '--gpu-layers': layers must be all or a number, got 'some'; .*"),
    (["--gpu-layers", "-1"], 2, r"--gpu-layers must be all, or a number from 0 to 513, got -1; all suits .*"),
    (["--gpu-layers", "999999999"], 2, r"--gpu-layers must be all, or a number from 0 to 513, got 999999999; all .*"),
    (["--gpu-layers", "4", "--device", "cpu"], 2, r"--gpu-layers 4 needs an accelerator, got --device cpu; leave .*"),
    (["--threads", "-1"], 2, r"--threads must be from 0 to 512, got -1; choose a number inside"),
]  # fmt: skip
DAMAGED = {
    "none": r"the model file must exist, got '.*none\.gguf'; check --model",
    "half": r"half\.gguf must hold its tensors up to byte \d+, got a file of \d+ bytes; it is truncated: .*",
    "prose": r"prose\.gguf must be a GGUF file, got one that starts with b'once'; give a model in GGUF format",
}
WITHOUT = {
    "none": "sys.modules['llama_cpp'] = None",
    "another": "import llama_cpp; llama_cpp.__version__ = '0.3.37'",
}
REFUSALS = {
    "none": "llama-cpp-python must be importable, got 'import of llama_cpp halted; .*; run: pip install llama-cpp-",
    "another": r"llama-cpp-python must be 0\.3\.36, got 0\.3\.37; run: pip install llama-cpp-python==0\.3\.36",
}


def settings(folder):
    found = json.loads((folder / "run.json").read_text())
    return found["device"], found["gpu_layers"], found["threads"]


@pytest.fixture(scope="module")
def findings():
    done = command("doctor", "--json", "--model", shop().model, "--device", "cpu", "--threads", 2)
    return {finding["what"]: finding for finding in json.loads(done.out)}


@pytest.mark.slow
def test_a_run_notes_where_its_model_ran_resume_keeps_it_and_threads_change_no_candidate(tmp_path):
    options = ["--device", "cpu", "--gpu-layers", "0", "--threads", "2", "--ensemble", "none", "--seed", "3"]
    assert (command(*run_arguments(tmp_path / "run", *options)).code, finished_run().code) == (0, 0)
    assert command("resume", tmp_path / "run").code == 0
    assert settings(tmp_path / "run") == ("cpu", 0, 2)
    assert settings(finished_folder()) == ("auto", "all", 1)
    assert told(tmp_path / "run") == told(finished_folder())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, ("cuda", 20, 8)),
        ({"device": "cpu", "gpu_layers": "all", "threads": 0}, ("cpu", "all", 0)),
        ({"gpu_layers": 0}, ("cuda", 0, 8)),
    ],
)
def test_resume_may_move_the_model(given, kept):
    before = RunSettings(data=Path("d"), target="y", out=Path("o"), device="cuda", gpu_layers=20, threads=8)
    nothing = dict.fromkeys(("device", "gpu_layers", "threads", "workers", "trials"))
    after = changed(before, nothing | given)
    assert (after.device, after.gpu_layers, after.threads) == kept


@pytest.mark.parametrize(("options", "code", "message"), BAD_PLACES, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("name", ["run", "resume"])
def test_a_place_that_does_not_exist_is_refused_and_nothing_changed(tmp_path, name, options, code, message):
    folder = tmp_path / "run"
    if name == "resume":
        before = (copy_of_run(folder) / "run.json").read_bytes()
    done = command(*(run_arguments(folder) if name == "run" else ["resume", folder]), *options)
    assert (done.code, done.out) == (code, "")
    assert re.fullmatch(f"error: {message}", done.last_line), done.last_line
    assert (folder / "run.json").read_bytes() == before if name == "resume" else not folder.exists()


@pytest.mark.parametrize("options", [("--device", "cuda"), ("--device", "metal"), ("--gpu-layers", "4")])
def test_an_accelerator_that_the_build_lacks_is_refused(tmp_path, options):
    from offline_tune.llm.backend import build

    if build().accelerators:
        pytest.skip("llama.cpp was built for an accelerator")
    done = command(*run_arguments(tmp_path / "run", *options))
    assert done.code == 7
    assert re.fullmatch(
        rf"error: {' '.join(options)} needs a llama.cpp built for it, got one for cpu; .*", done.last_line
    )


def test_the_doctor_says_what_the_build_can_do(findings):
    assert re.fullmatch(
        r"llama-cpp-python 0\.3\.36, up to 256 sequences(, mmap)?(, mlock)?", told_of(findings, "llama.cpp")
    )
    assert {"processor features", "accelerator"} <= set(findings)
    assert told_of(findings, "idle threads") == "sleep (OMP_WAIT_POLICY=PASSIVE)"


def test_the_doctor_says_where_the_model_runs(findings):
    assert told_of(findings, "placement").startswith("cpu, flash attention off")
    assert re.fullmatch(r"2 of \d+ cores", told_of(findings, "threads"))


def test_the_doctor_has_checked_llama_cpp(findings):
    checked = {what: finding for what, finding in findings.items() if what.startswith("checked ")}
    assert list(checked) == ["checked sequences", "checked fork", "checked repeat"]
    assert all(finding["ok"] and finding["required"] for finding in checked.values())


@pytest.mark.parametrize("name", DAMAGED)
def test_a_doctor_of_a_model_that_cannot_be_used_says_why_and_fails(tmp_path, name):
    path, sound = tmp_path / f"{name}.gguf", shop().model.read_bytes()
    if name != "none":
        path.write_bytes(sound[: len(sound) // 2] if name == "half" else b"once upon a time " * 99)
    done = command("doctor", "--model", path)
    assert (done.code, done.err) == (1, "")
    assert re.search(rf"^NO    model: {DAMAGED[name]}$", done.out, re.MULTILINE), done.out
    assert "checked" not in done.out


@pytest.mark.parametrize("name", WITHOUT)
def test_a_doctor_without_a_usable_llama_cpp_says_how_to_install_it(name):
    arguments = ["doctor", "--json", "--model", str(shop().model)]
    code = f"import sys\n{WITHOUT[name]}\nfrom offline_tune.cli import run_command\nsys.exit(run_command({arguments}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert not found["llama.cpp"]["ok"] and not found["model"]["ok"]
    assert re.match(REFUSALS[name], told_of(found, "llama.cpp"))


@pytest.mark.skipif(not any((f / "models.toml").is_file() for f in MODEL_FOLDERS), reason="no model is shipped yet")
def test_the_shipped_model_passes_its_checks():
    done = command("doctor", "--json")
    assert all(finding["ok"] for finding in json.loads(done.out) if finding["what"].startswith("checked "))


def told_of(findings, what):
    return findings[what]["detail"]
