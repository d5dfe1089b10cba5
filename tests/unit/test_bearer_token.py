"""Does a token in a file open what it should, and nothing else, also after the file has changed?

Covers: common/trust/bearer_token.py, options of common/trust/metrics_place.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.errors import InputError, NotTrusted
from common.trust.bearer_token import BearerToken
from common.trust.metrics_place import is_for_others, metrics_place

TOKEN, OTHER = "abcdefghijklmnop", "0123456789abcdef0123"


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    """Put a token in place as an operator does: a new file under the old name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    os.replace(new, path)
    return path


def test_a_token_is_shown_whole_and_by_its_scheme(tmp_path: Path) -> None:
    """The scheme's name has any case, as HTTP has it."""
    token = BearerToken(written(tmp_path / "token", f"{TOKEN}\n"))
    assert token.is_shown(f"Bearer {TOKEN}")
    assert token.is_shown(f"bearer  {TOKEN} ")
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[1:]}",
        "Bearer é",
    ):
        assert not token.is_shown(wrong), wrong


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 15, "two words of a token", "aaaaaaaaaaaaaaaa\nbbbb", "x" * 5000, "é" * 20]
)
def test_what_is_no_token_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    """Too short, too long, several lines, what no header carries."""
    with pytest.raises(InputError, match="at least 16"):
        BearerToken(written(tmp_path / "token", text))


@pytest.mark.parametrize(
    ("mode", "is_good"), [(0o600, True), (0o400, True), (0o640, True), (0o644, False), (0o660, False)]
)
def test_a_token_that_others_read_is_refused(tmp_path: Path, mode: int, is_good: bool) -> None:
    """A service's group may read it, nobody else, and only its owner may change it."""
    path = written(tmp_path / "token", TOKEN, mode)
    if is_good:
        assert BearerToken(path).is_shown(f"Bearer {TOKEN}")
    else:
        with pytest.raises(NotTrusted, match="chmod 600"):
            BearerToken(path)


def test_a_missing_token_is_told(tmp_path: Path) -> None:
    """Also a directory under its name."""
    with pytest.raises(InputError, match="No such file"):
        BearerToken(tmp_path / "token")
    with pytest.raises(InputError, match="Is a directory"):
        BearerToken(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no file"):
        BearerToken(tmp_path / "pipe")


def test_a_new_token_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """Without a restart."""
    path = written(tmp_path / "token", TOKEN)
    token = BearerToken(path)
    written(path, OTHER)
    assert (token.is_shown(f"Bearer {TOKEN}"), token.is_shown(f"Bearer {OTHER}")) == (False, True)


def test_a_token_that_was_taken_away_is_worth_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Removed, or open to everybody: that is said once, and what is put there next is good."""
    path = written(tmp_path / "token", TOKEN)
    token = BearerToken(path)
    path.unlink()
    with caplog.at_level("INFO"):
        assert not token.is_shown(f"Bearer {TOKEN}")
        written(path, TOKEN, 0o644)
        assert not token.is_shown(f"Bearer {TOKEN}")
    assert caplog.text.count("no token is good") == 1
    written(path, TOKEN)
    assert token.is_shown(f"Bearer {TOKEN}")
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("port", "listen", "has_token", "has_mesh", "wrong"),
    [
        (9400, "0.0.0.0:9400", False, True, "leave one of them out"),
        (9400, "", True, True, "nobody is asked for a token"),
        (None, "127.0.0.1:9400", True, True, "nobody is asked for a token"),
        (None, "0.0.0.0:9400", False, False, "join a mesh first"),
        (None, "9400", False, True, "write host:port"),
        (70000, "", False, True, "--metrics-port is 70000"),
    ],
)
def test_options_that_contradict_each_other_are_told(
    port: int | None, listen: str, has_token: bool, has_mesh: bool, wrong: str
) -> None:
    """Before anything listens."""
    with pytest.raises(InputError, match=wrong):
        metrics_place(port, listen, Path("token") if has_token else None, has_mesh=has_mesh)


def test_only_this_machines_own_addresses_are_plain() -> None:
    """Names that may mean anything, and all networks, are for others."""
    for listen, is_others in {
        "127.0.0.1:1": False, "[::1]:1": False, "localhost:1": False, "127.8.8.8:1": False,
        "0.0.0.0:1": True, "[::]:1": True, "192.168.1.2:1": True, "kitchen:1": True,
    }.items():  # fmt: skip
        place = metrics_place(None, listen, None)
        assert place is not None
        assert is_for_others(place) == is_others, listen
    assert metrics_place(None, "", None) is None
