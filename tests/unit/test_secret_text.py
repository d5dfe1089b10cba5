"""Can a prompt and a token be given so that no other user of the machine reads them?

Covers: files and stdin, of `generate` and of `shardnode join`. Does not cover: what comes of them.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import InputError
from common.program.secret_text import MOST_BYTES, text_from
from shardnode.cli import _token


def on_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Have this process read that from stdin."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_a_text_is_read_whole_from_a_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the shell's $(cat FILE) has it: lines within stay, those that only end it go."""
    path = tmp_path / "prompt"
    path.write_bytes("Grüße,\n  zwei Zeilen \n\n".encode())
    assert text_from(path, "--prompt-file") == "Grüße,\n  zwei Zeilen "
    on_stdin(monkeypatch, b"from a pipe\n")
    assert text_from(Path("-"), "--prompt-file") == "from a pipe"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (MOST_BYTES + 1), None], ids=["bytes", "endless", "missing"])
def test_what_is_no_text_is_told_by_option_and_file(tmp_path: Path, content: bytes | None) -> None:
    """In one line."""
    path = tmp_path / "prompt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^--prompt-file: .*{path}"):
        text_from(path, "--prompt-file")


def test_a_token_comes_from_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument, a file, or stdin in either writing; none and two are told."""
    path = tmp_path / "token"
    path.write_text("shardmesh-abc\n")
    on_stdin(monkeypatch, b"shardmesh-piped\n")
    assert _token("shardmesh-typed", None) == "shardmesh-typed"
    assert _token("", path) == "shardmesh-abc"
    assert _token("-", None) == "shardmesh-piped"
    for typed, place in (("", None), ("shardmesh-typed", path)):
        with pytest.raises(InputError, match="which token"):
            _token(typed, place)
