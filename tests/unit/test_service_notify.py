"""Does systemd hear what it should, from the loop alone and from whole programs?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.program.service_notify import IDLE_SECONDS, ServiceNotifier
from tests.support.sliced_models import SlicedModel, slice_model

PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the socket that services are to talk to; the environment names it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        path = f"/tmp/notify-{os.getpid()}"  # pytest's own is too long for a socket
        listening.bind(path)
        listening.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield listening
        os.unlink(path)


def heard(systemd: socket.socket) -> list[str]:
    """Return the lines of the next message."""
    return systemd.recv(4096).decode().split("\n")


def test_a_service_is_ready_then_alive_then_stopping(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at itself three times within the watchdog's time, and is silent when it finds itself dead."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    notifier, stopping = ServiceNotifier(), threading.Event()
    assert notifier.look_seconds == pytest.approx(0.01)
    assert "NOTIFY_SOCKET" not in os.environ
    answers = iter([True, False, True])

    def is_alive() -> bool:
        alive = next(answers, None)
        if alive is None:
            stopping.set()
        return bool(alive)

    notifier.run(stopping, is_alive, "here")
    assert [heard(systemd)[0] for _ in range(4)] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize(
    ("name", "value"), [("WATCHDOG_USEC", "0"), ("WATCHDOG_USEC", "soon"), ("WATCHDOG_PID", "1"), ("", "")]
)
def test_nobody_watches_unless_it_was_asked_of_this_process(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A child of a service is not the service."""
    if name:
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        monkeypatch.setenv(name, value)
    assert ServiceNotifier().look_seconds == IDLE_SECONDS


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing fails; nor does it when the socket is gone."""
    stopping = threading.Event()
    stopping.set()
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ServiceNotifier().run(stopping, lambda: True, "here")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    ServiceNotifier().run(stopping, lambda: True, "here")


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a tiny sliced model."""
    return slice_model(tmp_path_factory.mktemp("notify"))


def test_a_node_tells_systemd_when_it_serves_and_when_it_drains(systemd: socket.socket, sliced: SlicedModel) -> None:
    """It is ready only when it listens; SIGTERM ends it well."""
    process = subprocess.Popen(
        [PROGRAMS / "shardnode", "--slice-dir", str(sliced.slice_directory(0)), "--listen", "127.0.0.1:0"],
        stderr=subprocess.DEVNULL, env={**os.environ, "WATCHDOG_USEC": "300000"},
    )  # fmt: skip
    try:
        ready = heard(systemd)
        assert (ready[0], ready[1].startswith("STATUS=serving on 127.0.0.1:")) == ("READY=1", True)
        assert heard(systemd) == ["WATCHDOG=1"]
        process.send_signal(signal.SIGTERM)
        last = ["WATCHDOG=1"]
        while last == ["WATCHDOG=1"]:
            last = heard(systemd)
        assert (last[0], "EXTEND_TIMEOUT_USEC=30000000" in last) == ("STOPPING=1", True)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
