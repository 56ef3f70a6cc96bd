"""What holds the project together: versions, constraints, layers, and what its text may say."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import offline_tune

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]

# in pieces, so that this file does not find itself
FORBIDDEN = [
    r"(?<![\w.~*])/" + "(work|root|home|tmp)/",  # folders of one machine
    r"\bpy" + r"pi\.org|python" + r"hosted\.|npm" + r"js\.|debian" + r"\.org",  # package registries
]


def constraints():
    """The exact version of each constrained package, by normalised name."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    pairs = [line.split("==") for line in lines if line]
    assert len({name for name, _ in pairs}) == len(pairs), "a package is constrained twice"
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def requirements():
    """Every requirement that pyproject.toml states, extras included."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return sorted({text for group in groups for text in group})


def text_files():
    """The files that git keeps or would keep, which are text."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def test_the_versions_agree():
    newest = re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert PROJECT["version"] == offline_tune.__version__ == newest[1]


@pytest.mark.parametrize("text", requirements())
def test_the_constraint_satisfies_the_requirement(text):
    requirement = Requirement(text)
    version = constraints()[canonicalize_name(requirement.name)]
    assert version in requirement.specifier
    assert version.local is None


def test_what_is_installed_here_and_constrained_is_what_the_constraints_say():
    from importlib.metadata import distributions

    constrained = constraints()
    installed = {canonicalize_name(found.name): Version(found.version) for found in distributions()}
    differing = {
        name: (str(version), str(constrained[name]))
        for name, version in installed.items()
        if name in constrained and version.public != constrained[name].public
    }
    assert not differing


@pytest.mark.parametrize("pattern", FORBIDDEN, ids=["folders of one machine", "registries"])
def test_no_text_names_a_machine_or_a_registry(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not found


def test_the_import_contracts_hold():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as lint; lint()",
        "--no-cache",
        "--no-logo",
    ]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


def test_help_starts_without_a_model_or_a_learning_library():
    if not hasattr(pytest.importorskip("offline_tune.cli"), "main"):
        pytest.skip("the command line is not written yet")
    heavy = {"torch", "llama_cpp", "sklearn", "pandas", "xgboost", "lightgbm", "catboost", "outlines"}
    code = (
        "import sys\nfrom offline_tune.cli import main\n"
        f"try:\n    main()\nfinally:\n    print({heavy} & set(sys.modules))"
    )
    helped = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (helped.returncode, helped.stdout.splitlines()[-1]) == (0, "set()"), helped.stderr


def test_every_make_target_is_described():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)", makefile, flags=re.MULTILINE)[1].split()
    described = re.findall(r"^([a-z-]+):.* ## ", makefile, flags=re.MULTILINE)
    assert {name for name in phony if not name.startswith("$")} == set(described)
