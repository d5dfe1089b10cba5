"""Is a person asked before something is lost, and does nothing happen where nobody can be asked?

Covers: asking, what goes with a node or a model. Does not cover: whole verbs (tests/contract/test_warned_before.py).
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest

from common.errors import InputError
from common.program.state_files import remove_state
from coordinator.cli.consent import ask_first, loss_of_model, loss_of_node

STATE = Path(__file__).resolve().parents[1] / "contract" / "made_by_e3cc05c" / "state"


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """See io."""
        return True


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a mesh with one node, kitchen, and a loaded model, tiny."""
    return Path(shutil.copytree(STATE, tmp_path / "state"))


def test_without_a_terminal_one_line_says_what_would_be_lost_and_how_to_go_on() -> None:
    """Nothing waits for an answer that nobody can give."""
    with pytest.raises(InputError, match="all of it is lost; to do it all the same, pass --yes"):
        ask_first("all of it is lost", kept="it stays", yes=False)
    ask_first("all of it is lost", kept="it stays", yes=True)


@pytest.mark.parametrize(
    ("typed", "is_done"), [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_on_a_terminal_only_a_yes_is_a_yes(monkeypatch: pytest.MonkeyPatch, typed: str, is_done: bool) -> None:
    """The loss and the question are on stderr; stdout stays what was asked for."""
    asked = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stderr", asked)
    if is_done:
        ask_first("all of it is lost", kept="it stays", yes=False)
    else:
        with pytest.raises(InputError, match="it stays: nothing was changed"):
            ask_first("all of it is lost", kept="it stays", yes=False)
    assert asked.getvalue() == "all of it is lost.\nDo it all the same? [y/N] "


def test_what_goes_with_a_node_is_every_model_that_needs_it(state: Path) -> None:
    """Also one whose load was interrupted; nothing goes with a node that none needs."""
    assert "kitchen holds a part of the model tiny (rank 0 of " in loss_of_node("kitchen", state)
    assert loss_of_node("attic", state) == ""
    models = state / "models"
    shutil.copytree(models / "tiny", models / "half")
    remove_state(models / "half" / "model.json")
    assert "models tiny (rank 0 of 1), half (rank 0 of 1): without kitchen they cannot" in loss_of_node(
        "kitchen", state
    )


def test_a_record_that_cannot_be_read_is_a_reason_to_ask_and_not_to_fail(state: Path) -> None:
    """A device that was stolen has to be removed whatever else is broken."""
    for name in ("model.json", "model.json.copy"):
        (state / "models" / "tiny" / name).write_text("{")
    assert "cannot be told" in loss_of_node("kitchen", state)


def test_a_model_whose_files_are_gone_is_the_only_copy(state: Path, tmp_path: Path) -> None:
    """One that can be loaded again, or was never there, is not."""
    record = state / "models" / "tiny" / "model.json"
    assert "is not there any more: what the nodes hold may be the only copy" in loss_of_model("tiny", state)
    assert loss_of_model("none", state) == ""
    source = record.read_text().split('"source": "')[1].split('"')[0]
    record.write_text(record.read_text().replace(f'"source": "{source}"', f'"source": "{tmp_path}"'))
    assert loss_of_model("tiny", state) == ""
