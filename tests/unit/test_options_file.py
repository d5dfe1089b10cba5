"""Do options from a file count as flags do, and is what is none of them refused?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import run_here


@pytest.fixture
def options(tmp_path: Path) -> Path:
    """Return where a file of options is to be."""
    return tmp_path / "shardnode.toml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slice-dirr = 'x'", "has 'slice-dirr', which is no option; there are:"),
        ("slice-dir = [1]", "is a table or a list"),
        ("[a]\nb = 1", "is a table or a list"),
        ("slice-dir = ", "is no TOML"),
        ("config = 'x'", "which is no option"),
        ("slice-dir = 'x'\nthreads = 'many'", "Invalid value for '--threads'"),
        ("slice-dir = 'x'\nthreads = -1", "--threads is -1"),
        ("slice-dir = '/nowhere/at/all'", "/nowhere/at/all"),
        ("", "--slice-dir is missing"),
    ],
)
def test_what_a_file_gets_wrong_is_one_line(
    options: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a flag's mistakes are."""
    options.write_text(text)
    finished = run_here("shardnode", ["--config", str(options)], monkeypatch, capsys)
    assert finished.code != 0
    assert words in finished.err
    assert len(finished.err.strip().splitlines()) == 1


def test_a_flag_goes_before_the_file(
    options: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both spellings of a name are known in a file too."""
    options.write_text("slice_dir = '/of/the/file'\nthreads = 2\n")
    arguments = ["--config", str(options), "--slice-dir", "/of/the/flag"]
    assert "/of/the/flag" in run_here("shardnode", arguments, monkeypatch, capsys).err


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that is no file of options at all."""
    assert "/nowhere.toml" in run_here("shardnode", ["--config", "/nowhere.toml"], monkeypatch, capsys).err
    assert "/tmp" in run_here("shardnode", ["--config", "/tmp"], monkeypatch, capsys).err
