"""Do the log, `status` and a node itself say how the mesh is now, and never a word of what was asked?

Covers: entries of requests and nodes, `status` and its exit code, what a node says that it serves. Does not cover: the
entry's form (tests/unit/test_logs.py), when a node counts as lost (tests/unit/test_node_watch.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from common.errors import EXIT_NODE, EXIT_OK, InputError, ModelNotFound, NodeError, PromptTooLong, ShardmeshError
from tests.support.cli import Finished, run_here
from tests.support.loaded_mesh import LoadedMesh
from tests.support.shipped_slices import NAME, ShippingMesh
from tests.support.waiting import wait_until

SECRET = "mysecretword"
Status = Callable[[], Finished]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[LoadedMesh]:
    """Return a mesh that has a model, called tiny."""
    with LoadedMesh(tmp_path) as made:
        yield made


@pytest.fixture
def status(mesh: LoadedMesh, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Status:
    """Return what runs `status`."""
    return lambda: run_here("coordinator-cli", ["status", "--state-dir", str(mesh.state)], monkeypatch, capfd)


def messages(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """Return the entries of one kind."""
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(event)]


def test_an_answer_is_an_entry_of_names_and_numbers(mesh: LoadedMesh, caplog: pytest.LogCaptureFixture) -> None:
    """Whose, of which model, how many tokens; not a word of it."""
    caplog.set_level(logging.INFO)
    mesh.answer(SECRET, length=5)
    (entry,) = messages(caplog, "request ended")
    for word in ('who="the mesh\'s owner"', "model=tiny", "answer_tokens=5", "reason=length", "seconds="):
        assert word in entry
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"length": 1 << 20}, PromptTooLong, ("request failed", "reason=PROMPT_TOO_LONG")),
        ({"model": "nix"}, ModelNotFound, ("request failed", "reason=MODEL_NOT_FOUND")),
        ({"length": 0}, InputError, ("request failed", "reason=BAD_INPUT")),
    ],
    ids=["too long", "no such model", "no length"],
)
def test_a_request_that_fails_is_an_entry_with_its_reason(
    mesh: LoadedMesh, caplog: pytest.LogCaptureFixture, asked: dict[str, object], error: type[ShardmeshError],
    words: tuple[str, ...],
) -> None:  # fmt: skip
    """Whatever it was; of what was wrong with its words none is told."""
    with pytest.raises(error):
        mesh.answer(SECRET, **asked)  # type: ignore[arg-type] # two kinds of values
    (entry,) = messages(caplog, "request failed")
    assert all(word in entry for word in words)
    assert SECRET not in caplog.text


def test_a_node_that_is_gone_is_told_by_the_log_and_by_status_at_once(
    mesh: LoadedMesh, status: Status, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not answer is not alive, however lately it was heard; and no model can answer then: exit code 5."""
    caplog.set_level(logging.INFO)
    before = status()
    assert before.code == EXIT_OK
    assert "1 of 1 node" in before.out
    mesh.node.close()
    monkeypatch.setattr("coordinator.membership.reach.REACH_SECONDS", 1.0)  # trying longer proves no more
    after = status()
    assert (after.code, "0 of 1 node" in after.out, "not reached" in after.out) == (EXIT_NODE, True, True)
    wait_until(lambda: messages(caplog, f"node lost node={NAME}"), limit_seconds=10, what="an entry")
    with (
        mock.patch("coordinator.ranks.transports.connecting.STATS_TIMEOUT_SECONDS", 1.0),
        pytest.raises(NodeError, match=NAME),
    ):
        mesh.answer(SECRET)
    (entry,) = messages(caplog, "request failed")
    assert "reason=NODE_LOST" in entry
    assert NAME in entry
    mesh.restart()
    mesh.wait_until_heard()
    assert status().code == EXIT_OK
    wait_until(lambda: messages(caplog, f"node back node={NAME}"), limit_seconds=10, what="an entry")
    assert SECRET not in caplog.text


def test_a_mesh_without_a_model_has_nothing_that_could_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing was promised: exit code 0, and a node that says what it serves."""
    with ShippingMesh(tmp_path) as mesh:
        command = ["status", "--state-dir", str(mesh.state_directory)]
        assert run_here("coordinator-cli", command, monkeypatch, capfd).code == EXIT_OK
        assert mesh.node.served == "no slice yet"


def test_a_node_that_is_started_again_says_what_it_serves(mesh: LoadedMesh) -> None:
    """It is what it served before."""
    before = mesh.node.served
    mesh.restart()
    assert mesh.node.served == before
    assert "rank 0 of 1" in before
