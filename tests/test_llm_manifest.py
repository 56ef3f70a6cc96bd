"""The manifest says which model file is meant; a file with another digest is refused."""

import hashlib
import tomllib

import pytest

from offline_tune.errors import ModelError
from offline_tune.llm.manifest import read_manifest, sha256_of, shipped_model, verify

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def entry(file="a.gguf", sha256=DIGEST, licence="MIT", dialect="compact", more=""):
    return f'[[model]]\nfile = "{file}"\nsha256 = "{sha256}"\nlicence = "{licence}"\ndialect = "{dialect}"\n{more}\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.gguf").write_bytes(CONTENT)
    (tmp_path / "models.toml").write_text(entry())
    return tmp_path


def test_an_entry_is_read(folder):
    (folder / "models.toml").write_text(entry(more="training = {steps = 5}\ndefault = true"))
    (found,) = read_manifest(folder / "models.toml")
    assert (found.file, found.sha256, found.licence, found.dialect) == ("a.gguf", DIGEST, "MIT", "compact")
    assert (found.training, found.default) == ({"steps": 5}, True)


def test_a_listed_file_with_its_digest_is_vouched_for(folder):
    assert verify(folder / "a.gguf", folders=()).file == "a.gguf"


def test_an_unlisted_file_is_the_users_own(folder):
    (folder / "mine.gguf").write_bytes(b"other")
    assert verify(folder / "mine.gguf", folders=()) is None


def test_a_copy_of_the_shipped_model_is_known_by_its_digest(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("elsewhere") / "copy.gguf"
    copy.write_bytes(CONTENT)
    assert verify(copy, folders=(folder,)).file == "a.gguf"


def test_a_listed_file_with_another_digest_is_refused(folder):
    (folder / "a.gguf").write_bytes(b"changed")
    found = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(ModelError, match=f"must have the sha256 {DIGEST} of .*models.toml, got {found}; .*restore it"):
        verify(folder / "a.gguf", folders=())


def test_a_known_digest_is_not_computed_again(folder):
    with pytest.raises(ModelError, match=f"got {'1' * 64}"):
        verify(folder / "a.gguf", sha256="1" * 64, folders=())


def test_the_first_entry_is_shipped_unless_one_is_marked(folder):
    (folder / "b.gguf").write_bytes(b"b")
    (folder / "models.toml").write_text(entry() + entry("b.gguf", "2" * 64))
    assert shipped_model([folder]).name == "a.gguf"
    (folder / "models.toml").write_text(entry() + entry("b.gguf", "2" * 64, more="default = true"))
    assert shipped_model([folder]).name == "b.gguf"


def test_the_first_folder_with_a_manifest_is_used(folder, tmp_path_factory):
    assert shipped_model([tmp_path_factory.mktemp("empty"), folder]) == folder / "a.gguf"


def test_no_manifest_anywhere_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"a shipped model must lie in .*, got no models.toml; reinstall"):
        shipped_model([tmp_path])


def test_a_missing_shipped_file_is_an_error(folder):
    (folder / "a.gguf").unlink()
    with pytest.raises(ModelError, match=r"the shipped model must lie at .*a.gguf, got no file there"):
        shipped_model([folder])


def test_a_missing_file_has_no_digest(tmp_path):
    with pytest.raises(ModelError, match=r"the model file must be readable, got .*no.gguf' \(No such file"):
        sha256_of(tmp_path / "no.gguf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[model", "must be TOML, got"),
        ("x = 1", r"must hold at least one \[\[model\]\], got 1 other keys"),
        ("model = [3]", r"must hold \[\[model\]\] tables, got '3'"),
        (entry() * 2, "must list each file once, got 2 entries with repeats"),
        (entry(file="../a.gguf"), "must give each model a file like .*, got '../a.gguf'"),
        (entry(sha256="A" * 64), "must give each model a sha256 like .*, got 'AAAA"),
        (entry(dialect="verse"), r"must give each model a dialect like chat\|compact, got 'verse'"),
        (entry().replace('licence = "MIT"\n', ""), "must give each model a licence like .*, got 'None'"),
    ],
)
def test_a_malformed_manifest_is_refused(folder, text, message):
    (folder / "models.toml").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_manifest(folder / "models.toml")


def test_an_unreadable_manifest_is_refused(tmp_path):
    with pytest.raises(ModelError, match="must be readable, got No such file"):
        read_manifest(tmp_path / "models.toml")
    (tmp_path / "models.toml").write_bytes(b"\xff")
    with pytest.raises(ModelError, match=r"must be TOML, got .*invalid start byte"):
        read_manifest(tmp_path / "models.toml")


def test_the_documented_example_is_a_manifest(tmp_path):
    from offline_tune.llm import manifest

    example = manifest.__doc__.partition("[[model]]")[2].partition("\n\nKnows")[0]
    text = "[[model]]" + example.replace("    ", "").replace("64 hexadecimal digits", DIGEST)
    assert tomllib.loads(text)["model"][0]["file"] == "compact.gguf"
    (tmp_path / "models.toml").write_text(text)
    assert read_manifest(tmp_path / "models.toml")[0].licence == "Apache-2.0"
