"""Is a model that this process may not read refused with its user, what is in the way, and a place that works?

Covers: coordinator/models/model_path.py, also where root runs it, who may read everything. Does not cover: a true
service, which sees no /home (tests/systemd/test_answers.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from coordinator.models import model_path
from coordinator.models.model_path import check_readable, readable_place, user_name
from tests.support.tiny_checkpoint import write_tiny_checkpoint

FILES = ("model.safetensors", "config.json", "tokenizer.json")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model that can be read."""
    return write_tiny_checkpoint(tmp_path / "model")


def forbid(monkeypatch: pytest.MonkeyPatch, forbidden: Path) -> None:
    """Have the system refuse a file or a directory."""
    scan, opened = os.scandir, Path.open

    def refusing(call: Any) -> Any:
        def called(path: Any, *rest: Any, **more: Any) -> Any:
            if Path(path) == forbidden:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *rest, **more)

        return called

    monkeypatch.setattr(os, "scandir", refusing(scan))
    monkeypatch.setattr(Path, "open", refusing(opened))


def test_a_model_that_can_be_read_passes(model: Path) -> None:
    """A directory, and a file of it."""
    check_readable(model)
    check_readable(model / "model.safetensors")


@pytest.mark.parametrize("name", ["", *FILES])
def test_what_is_in_the_way_is_named(model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory, or one file in it that only its owner may read."""
    forbid(monkeypatch, model / name)
    with pytest.raises(InputError) as refused:
        check_readable(model)
    assert f"runs as the user {user_name()}, who cannot read {model / name} (Permission denied)" in str(refused.value)
    assert str(refused.value).endswith(f": {readable_place() / 'model'}")


def test_a_file_that_is_not_the_models_may_be_anybodys(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads it."""
    (model / "training.log").touch()
    forbid(monkeypatch, model / "training.log")
    check_readable(model)


def test_the_place_that_is_named_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of several, one that is not there or is forbidden left out."""
    for name in ("forbidden", "srv"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(model_path, "PLACES", [str(tmp_path / name) for name in ("nowhere", "forbidden", "srv")])
    forbid(monkeypatch, tmp_path / "forbidden")
    assert readable_place() == tmp_path / "srv"


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000_000)
    assert user_name() == "#4000000000"
