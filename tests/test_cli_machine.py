"""The commands about this machine and its models, and the help of all of them."""

import json
import re
import subprocess
import sys

import pytest
from small_runs import ROOT, command, finished, program, shop, tiny_model

from offline_tune.cli.models import line_of, shipped
from offline_tune.errors import ModelError
from offline_tune.llm.manifest import MODEL_FOLDERS, sha256_of

COMMANDS = [[], ["run"], ["resume"], ["report"], ["predict"], ["doctor"], ["models"]]
COMMANDS += [["models", name] for name in ("list", "verify", "info")]
HEAVY = {"torch", "llama_cpp", "llguidance", "outlines", "sklearn", "pandas", "numpy", "optuna", "xgboost", "rich"}
HELP_ALONE = f"""
import sys
from offline_tune.cli import run_command
for arguments in {COMMANDS}:
    assert run_command([*arguments, "--help"]) == 0
print(sorted({HEAVY} & set(sys.modules)))
"""
has_shipped = pytest.mark.skipif(
    not any((folder / "models.toml").is_file() for folder in MODEL_FOLDERS), reason="no model is shipped yet"
)


@pytest.fixture(scope="module")
def findings():
    done = finished(program("doctor", "--json", "--model", shop().model))
    return done, {finding["what"]: finding for finding in json.loads(done.out)}


def test_the_help_of_every_command_needs_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP_ALONE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("Usage: offline-tune") == len(COMMANDS)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_option_and_command_is_described(arguments):
    done = command(*arguments, "--help")
    assert (done.code, done.err) == (0, "")
    described = re.split(r"^(?:Options|Commands):$", done.out, flags=re.MULTILINE)[1]
    entries = re.split(r"^  (?=\S)", described, flags=re.MULTILINE)[1:]
    assert all(re.search(r"\S {2,}\S|\n {10,}\S", entry) for entry in entries), entries


def test_the_program_tells_its_version():
    done = command("--version")
    assert (done.code, re.fullmatch(r"offline-tune, version \d+\.\d+\.\d+\n", done.out) is not None) == (0, True)


def test_no_command_at_all_shows_the_help():
    done = command()
    assert done.code == 2
    assert "Usage: offline-tune" in done.out + done.err


def test_the_doctor_finds_a_sound_machine_sound(findings):
    done, found = findings
    assert (done.code, done.err) == (0, "")
    assert all(finding["ok"] for finding in found.values() if finding["required"])
    assert {"sklearn", "xgboost", "lightgbm", "catboost", "optuna", "audit hook", "network namespace"} <= set(found)


def test_the_doctor_has_tried_to_leave(findings):
    tried = {what: finding["detail"] for what, finding in findings[1].items() if what.startswith("tried ")}
    assert list(tried) == ["tried urllib", "tried connect", "tried send", "tried lookup", "tried subprocess"]
    assert all(detail == "stopped by the audit hook" for detail in list(tried.values())[:4])


def test_the_doctor_has_loaded_the_model(findings):
    assert findings[1]["model"]["detail"] == "tiny.gguf, 0.2 M parameters, dialect compact, 4096 tokens"


def test_a_doctor_in_a_process_with_an_open_network_says_so(tmp_path):
    """Here, in the tests' own process, neither the hook nor the namespace holds."""
    done = command("doctor", "--model", tmp_path / "none.gguf")
    assert (done.code, done.err) == (1, "")
    assert re.search(r"^NO    audit hook: ", done.out, re.MULTILINE)
    assert re.search(r"^NO    model: the model file must exist, got '.*'; check --model$", done.out, re.MULTILINE)
    assert re.search(r"^ok    sklearn: \d", done.out, re.MULTILINE)


def test_a_model_that_nobody_vouches_for_is_sound_but_unlisted():
    digest = sha256_of(shop().model)
    done = command("models", "verify", shop().model)
    assert done.out == f"tiny.gguf is in no manifest; its header is sound; sha256 {digest}\n"
    assert json.loads(command("models", "verify", shop().model, "--json").out) == {
        "file": "tiny.gguf",
        "sha256": digest,
        "listed": False,
    }


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    digest = sha256_of(tiny_model(folder / "tuner.gguf"))
    entry = {"file": "tuner.gguf", "sha256": digest, "licence": "Apache-2.0", "dialect": "compact"}
    (folder / "models.toml").write_text("[[model]]\n" + "\n".join(f'{key} = "{entry[key]}"' for key in entry))
    return folder


def test_a_listed_model_is_as_its_manifest_says(manifest):
    done = command("models", "verify", manifest / "tuner.gguf")
    assert done.out.startswith("tuner.gguf is as its manifest says; sha256 ")


def test_the_shipped_models_are_listed_with_their_size(manifest):
    (entry,) = shipped([manifest])
    assert (entry["file"], entry["dialect"], entry["licence"], entry["mib"]) == (
        "tuner.gguf", "compact", "Apache-2.0", 0.5,
    )  # fmt: skip
    assert line_of(entry) == f"tuner.gguf  compact  0.5 MiB  Apache-2.0  sha256 {entry['sha256']}"


def test_a_folder_without_a_manifest_ships_nothing(tmp_path):
    with pytest.raises(ModelError, match=r"a shipped model must lie in .*, got no models\.toml; reinstall, or give .*"):
        shipped([tmp_path])


def test_a_model_says_what_it_is():
    done = command("models", "info", shop().model)
    lines = dict(line.split(None, 1) for line in done.out.splitlines())
    assert (lines["general.architecture"], lines["offline_tune.dialect"]) == ("llama", "compact")
    facts = json.loads(command("models", "info", shop().model, "--json").out)
    assert (facts["llama.context_length"], facts["offline_tune.training"]) == (4096, "untrained")


@pytest.mark.parametrize("name", ["info", "verify"])
def test_a_model_that_is_not_there_has_nothing_to_say(tmp_path, name):
    done = command("models", name, tmp_path / "none.gguf")
    assert (done.code, done.out) == (7, "")
    assert re.fullmatch(r"error: the model file must exist, got '.*none\.gguf'; check --model\n", done.err)


@has_shipped
def test_the_shipped_model_is_sound():
    assert command("models", "verify").code == 0
    (first, *_) = json.loads(command("models", "list", "--json").out)
    assert first["dialect"] == "compact"
    assert first["mib"] < 16
