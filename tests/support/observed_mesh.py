"""A mesh that a real Prometheus watches, and people who ask it: for tests of what is to be seen of a mesh.

    with ObservedMesh() as observed:
        with observed.asked(count=2):
            observed.until("shardmesh_num_requests_running > 0")

Covers: a node with a budget, one that streams from its disk, a coordinator, on hosts of their own; pages over TLS, an
observer's certificate, the file of targets; asking in turns; waiting for what Prometheus says.
Does not cover: Prometheus (prometheus_server.py), programs (mesh_of_hosts.py), what is slowed (process_limits.py).
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import grpc

from tests.support.mesh_of_hosts import DESK, MeshOfHosts
from tests.support.network_hosts import GROUPS
from tests.support.network_hosts import why_not as why_no_hosts
from tests.support.owner_asking import OwnerAsking
from tests.support.process_limits import why_not as why_no_limits
from tests.support.prometheus_server import Places, PrometheusServer, why_no_prometheus
from tests.support.random_models import build, save
from tests.support.waiting import wait_until

NODES = ("attic", "kitchen")
METRICS_PORT, NODE_METRICS_PORT = 29510, 9400
METRICS_NAME = "metrics.shardmesh"
MEMORY_BYTES = 2 << 30
LONG_PROMPT = "a long prompt gives kernels work " * 8
LIMIT_SECONDS = 60.0
CROWD = 400
"""Connections at once: more than a port has places for such as say nothing."""


def why_not() -> str:
    """Return why no mesh can be observed here; empty when it can."""
    no_memory = "" if os.access(GROUPS, os.W_OK) else "no control groups of version 1 for memory that may be written"
    return why_no_prometheus() or why_no_hosts() or why_no_limits() or no_memory


class ObservedMesh:
    """Programs, hosts and a Prometheus. Close it."""

    def __init__(self) -> None:
        self._closing = ExitStack()
        try:
            self._start()
        except BaseException:
            self._closing.close()
            raise

    def _start(self) -> None:
        node = ["--metrics-listen", f"0.0.0.0:{NODE_METRICS_PORT}"]
        options = {
            "attic": [*node, "--memory-budget", "400MB"],
            "kitchen": [*node, "--memory-window", "2", "--page-cache", "bypass"],
        }
        self.mesh = self._closing.enter_context(MeshOfHosts(
            NODES, memory_bytes=MEMORY_BYTES, rate_mbit=1000, options=options,
            coordinator_options=["--metrics-listen", f"0.0.0.0:{METRICS_PORT}"],
        ))  # fmt: skip
        self.state = Path(self.mesh.state)
        self.home = self.mesh.shell.home
        self.observer = self.home / "observer"
        self.invite_observer()
        (self.home / "watching").mkdir()
        self.prometheus = self._closing.enter_context(PrometheusServer(
            self.mesh.shell, self.mesh.hosts, DESK, self.home / "watching",
            Places(
                observer=self.observer, targets=self.state / "prometheus" / "targets.json",
                coordinator=f"127.0.0.1:{METRICS_PORT}",
            ),
        ))  # fmt: skip
        self.model = save(
            build(hidden_size=256, intermediate_size=4096, layers=4, vocab_size=320, max_position_embeddings=32768),
            self.home / "small",
        )  # fmt: skip
        self.mesh.load(self.model)

    def invite_observer(self) -> None:
        """Write a new certificate of an observer, where Prometheus looks for it."""
        self.mesh.cli("mesh", "invite", "--observer", "prometheus", "--out", str(self.observer))

    @contextmanager
    def asked(self, count: int = 2, prompt: str = LONG_PROMPT, length: int = 4) -> Iterator[None]:
        """Have so many people ask, each again as soon as it is answered or refused."""
        stopping = threading.Event()
        people = [
            threading.Thread(target=self._ask, args=(stopping, prompt, length), daemon=True) for _ in range(count)
        ]  # fmt: skip
        for one in people:
            one.start()
        try:
            yield
        finally:
            stopping.set()
            for one in people:
                one.join(LIMIT_SECONDS)

    @contextmanager
    def crowded(self, host: str, port: int, *, by: str) -> Iterator[None]:
        """Have another host open connections to a port, and say nothing, as quickly as they are taken."""
        stopping, address = threading.Event(), self.mesh.hosts.address(host)
        # Broken off and not ended: for a minute after that nobody could listen on the ports that it had.
        broken_off = struct.pack("ii", 1, 0)

        def crowd() -> None:
            held: deque[socket.socket] = deque()
            while not stopping.wait(0.01):
                with suppress(OSError):
                    held.append(self.mesh.hosts.connect(by, port, LIMIT_SECONDS, address))
                    held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, broken_off)
                if len(held) > CROWD:
                    held.popleft().close()
            for connection in held:
                connection.close()

        somebody = threading.Thread(target=crowd, daemon=True)
        somebody.start()
        try:
            yield
        finally:
            stopping.set()
            somebody.join(LIMIT_SECONDS)

    def _ask(self, stopping: threading.Event, prompt: str, length: int) -> None:
        asking = OwnerAsking(self.state)
        while not stopping.is_set():
            try:
                asking.answer(prompt, length=length)
            except grpc.RpcError:
                stopping.wait(0.1)

    def until(self, expression: str, limit_seconds: float = LIMIT_SECONDS) -> None:
        """Wait until an expression gives something."""
        wait_until(
            lambda: self.prometheus.query(expression), limit_seconds=limit_seconds,
            what=f"{expression}; firing: {sorted(self.prometheus.all_firing())}",
        )  # fmt: skip

    def until_fires(self, alert: str, limit_seconds: float = LIMIT_SECONDS, **labels: str) -> None:
        """Wait until an alert fires with these labels."""
        seconds = wait_until(
            lambda: self.prometheus.firing(alert, **labels), limit_seconds=limit_seconds, what=f"{alert} fires"
        )
        print(f"{alert} {labels}: fires after {seconds:.1f} s")

    def until_clear(self, alert: str, limit_seconds: float = LIMIT_SECONDS, **labels: str) -> None:
        """Wait until an alert fires no more with these labels."""
        seconds = wait_until(
            lambda: not self.prometheus.firing(alert, **labels), limit_seconds=limit_seconds, what=f"{alert} clears"
        )
        print(f"{alert} {labels}: clear after {seconds:.1f} s")

    def until_quiet(self) -> None:
        """Wait until no alert fires; with times of seconds a node that starts is one for a moment."""
        wait_until(
            lambda: not self.prometheus.all_firing(), limit_seconds=LIMIT_SECONDS,
            what=f"quiet; firing: {sorted(self.prometheus.all_firing())}",
        )  # fmt: skip

    def restart(self, name: str, options: Sequence[str] = (), environment: Sequence[str] = ()) -> None:
        """Start a node anew, with more options than before."""
        self.mesh.stop(name)
        self.mesh.start_node(name, options, environment)
        self.mesh.wait_until_alive()

    def targets(self) -> dict[str, str]:
        """Return where the coordinator says that nodes' pages are, by node."""
        groups = json.loads((self.state / "prometheus" / "targets.json").read_bytes())
        return {group["labels"]["node"]: group["targets"][0] for group in groups}

    def page(self, path: str, *, as_observer: bool = True) -> tuple[int, bytes]:
        """Return status and content of a page of the coordinator's; 0 where it lets nobody in who shows nothing."""
        context = ssl.create_default_context(cafile=str(self.observer / "authority.pem"))
        if as_observer:
            context.load_cert_chain(self.observer / "observer.pem", self.observer / "observer.key")
        connection = http.client.HTTPConnection(METRICS_NAME)
        plain = self.mesh.hosts.connect(DESK, METRICS_PORT, LIMIT_SECONDS)
        try:
            connection.sock = context.wrap_socket(plain, server_hostname=METRICS_NAME)
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (ssl.SSLError, OSError):
            return 0, b""
        finally:
            connection.close()
            plain.close()

    @contextmanager
    def shortened_slice(self, name: str) -> Iterator[None]:
        """Have half of a file of a node's slice be gone, as after a disk's failure; afterwards it is there again."""
        path = max((path for path in self.mesh.data(name).rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
        content = path.read_bytes()
        os.truncate(path, len(content) // 2)
        try:
            yield
        finally:
            path.write_bytes(content)

    @contextmanager
    def unwritable_state(self) -> Iterator[None]:
        """Have the coordinator's disk turn read-only, as a file system does that has found itself damaged."""
        place = str(self.state)
        subprocess.run(["mount", "--bind", place, place], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
            yield
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)

    def close(self) -> None:
        """End everything."""
        self._closing.close()
        assert self.mesh.hosts.left() == []

    def __enter__(self) -> ObservedMesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
