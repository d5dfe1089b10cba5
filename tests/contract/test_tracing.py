"""Does `trace` write what a running mesh does, while somebody asks and not otherwise, with no word of it?

Covers: the verb over the owner's socket, refusals, several at once. Does not cover: the file's form
(tests/unit/test_trace_file.py).
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EXIT_INPUT, EXIT_OK, InputError, ResourceError
from coordinator.membership.owner_client import OwnerClient
from coordinator.program import tracing
from tests.support.cli import run_here
from tests.support.loaded_mesh import LoadedMesh
from tests.support.shipped_slices import NAME
from tests.support.trace_rules import broken_rules
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedMesh]:
    """Return a mesh of one node that has a model, called tiny."""
    with LoadedMesh(tmp_path_factory.mktemp("mesh")) as made:
        made.answer("1 2 3", length=2)  # it is open from now on
        yield made


def test_a_trace_has_the_sweeps_of_its_time(
    mesh: LoadedMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All tokens of an answer, each with rounds of the node; the file is whole, and has nothing that was said."""
    out = tmp_path / "trace.json"
    watch = mesh.coordinator._generator.trace
    asking = threading.Thread(target=lambda: (
        wait_until(lambda: watch._listeners, limit_seconds=10, what="a trace"), mesh.answer("secretword", length=9)
    ))  # fmt: skip
    asking.start()
    command = ["trace", "--seconds", "2", "--out", str(out), "--state-dir", str(mesh.state)]
    done = run_here("coordinator-cli", command, monkeypatch, capfd)
    asking.join()
    assert (done.code, done.out) == (EXIT_OK, ""), done.err
    assert "sweeps; open it in ui.perfetto.dev" in done.err
    text = out.read_text()
    events = json.loads(text)["traceEvents"]
    assert broken_rules(events) == []
    sweeps = [event for event in events if event["name"] == "sweep"]
    assert len(sweeps) >= 9
    (request,) = {name for event in sweeps for name in event["args"]["rows"]}
    assert len(request) == 16
    assert NAME in [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert [event for event in events if event["name"] == "kernels"]
    assert "secretword" not in text
    assert list(tmp_path.iterdir()) == [out]


def test_nothing_is_written_down_while_nobody_asks(mesh: LoadedMesh) -> None:
    """And who asks while nothing runs is told so by a file with nothing in it."""
    mesh.answer("1 2 3", length=4)
    watch = mesh.coordinator._generator.trace
    assert (watch._listeners, watch._rounds) == ((), [])
    with OwnerClient(mesh.state) as owner:
        responses = list(owner.trace(0.1))
    assert [len(response.sweeps) for response in responses] == [0]


@pytest.mark.parametrize("seconds", ["0", "-1", "601", "nan"])
def test_a_time_that_cannot_be_is_refused(
    mesh: LoadedMesh, tmp_path: Path, seconds: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With what can; no file is left."""
    command = ["trace", "--seconds", seconds, "--out", str(tmp_path / "x.json"), "--state-dir", str(mesh.state)]
    done = run_here("coordinator-cli", command, monkeypatch, capfd)
    assert done.code == EXIT_INPUT
    assert "above 0 and at most 600" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_is_refused_before_anything_is_traced(
    mesh: LoadedMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A directory, or in one that is not there; a name that is too long; a pipe, which stays one, as /dev/null must."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for out in (tmp_path, tmp_path / "none" / "x.json", tmp_path / ("x" * 300), pipe):
        command = ["trace", "--out", str(out), "--state-dir", str(mesh.state)]
        run_here("coordinator-cli", command, monkeypatch, capfd).error_line("coordinator-cli", EXIT_INPUT)
    assert [one for one in tmp_path.iterdir() if not one.is_fifo()] == []
    assert pipe.is_fifo()


def test_a_trace_that_is_told_to_end_leaves_nothing(
    mesh: LoadedMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By SIGTERM, or by a terminal that closes; the file that was there stays as it was.

    The signal comes where we choose: one that comes within gRPC can leave a lock of it held by this thread for good,
    which ends with a program, and here once held up whichever thread collected its garbage.
    """
    out, watch, trace = tmp_path / "x.json", mesh.coordinator._generator.trace, OwnerClient.trace
    out.write_text("before")

    def told_to_end(owner: OwnerClient, seconds: float) -> Iterator[object]:
        for response in trace(owner, seconds):
            yield response  # and it is written
            signal.raise_signal(number)

    monkeypatch.setattr(OwnerClient, "trace", told_to_end)
    for number in (signal.SIGTERM, signal.SIGHUP):
        wait_until(lambda: not watch._listeners, limit_seconds=10, what="the end of the one before")
        asking = threading.Thread(target=lambda: (
            wait_until(lambda: watch._listeners, limit_seconds=10, what="a trace"), mesh.answer("1 2 3", length=2)
        ))  # fmt: skip
        asking.start()
        command = ["trace", "--seconds", "60", "--out", str(out), "--state-dir", str(mesh.state)]
        assert run_here("coordinator-cli", command, monkeypatch, capfd).code == 128 + number
        asking.join()
        assert [one.name for one in tmp_path.iterdir()] == ["x.json"]
        assert out.read_text() == "before"


def test_too_many_at_once_are_refused(mesh: LoadedMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """And who has gone leaves room."""
    with OwnerClient(mesh.state) as owner:
        running = [owner.trace(30) for _ in range(tracing.MOST_LISTENERS)]
        takers = [threading.Thread(target=_end_of, args=(one,)) for one in running]
        for taker in takers:
            taker.start()
        watch = mesh.coordinator._generator.trace
        wait_until(lambda: len(watch._listeners) == tracing.MOST_LISTENERS, limit_seconds=10, what="all of them")
        with pytest.raises(ResourceError, match="traces are being made already"):
            list(owner.trace(1))
    for taker in takers:
        taker.join()
    wait_until(lambda: not watch._listeners, limit_seconds=10, what="the end of all")
    with OwnerClient(mesh.state) as owner, pytest.raises(InputError):
        list(owner.trace(0))


def _end_of(responses: Iterator[object]) -> None:
    try:
        list(responses)
    except Exception:  # noqa: BLE001 - the channel is closed under it: that is the test
        return
