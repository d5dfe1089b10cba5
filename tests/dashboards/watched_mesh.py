"""A mesh of three nodes on this machine, a real Prometheus that watches it, and people who ask: for pictures.

    with WatchedMesh(model) as mesh:
        mesh.be_asked(seconds=300)
        mesh.url

Covers: programs on loopback, plain metrics pages, a configuration with the labels that deploy/prometheus gives; nodes
of which one streams from its disk and one has little room.
Does not cover: TLS, hosts of their own, alerts (tests/observed).
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import grpc

from common.errors import ShardmeshError
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import is_alive
from tests.support.cli import Running, Shell
from tests.support.free_ports import free_port_pair
from tests.support.owner_asking import OwnerAsking
from tests.support.waiting import wait_until

NODES = {
    "attic": ["--memory-budget", "260MB", "--page-cache", "bypass"],
    "kitchen": ["--memory-budget", "700MB"],
    "shed": ["--memory-budget", "340MB", "--page-cache", "bypass"],
}
"""What each node is told besides."""
LIMIT_SECONDS = 120.0
PHASES = ((0.35, 1), (0.75, 4), (1.0, 2))
"""Until which share of the time how many people ask."""
PROMPTS = ("What is a mesh?", "Tell a story of a fox and a hen. " * 12, "Count to ten.", "Why is the sky blue? " * 30)
TOO_LONG = "word " * 9000


class WatchedMesh:
    """Programs and a Prometheus. Close it."""

    def __init__(self, model: Path, data: Path | None = None) -> None:
        """Start it. Args: data: where Prometheus keeps what it sees, to be looked at again; else it goes with all."""
        self._data = data
        self.shell = Shell()
        self.state = self.shell.home / "state"
        self.port, self.prometheus_port = free_port_pair(), free_port_pair()
        self.pages = {name: free_port_pair() for name in ("coordinator", *NODES)}
        try:
            self._start()
            finished = self.shell.run(
                "coordinator-cli", "load", str(model), "--split-strategy", "uniform", "--state-dir", str(self.state)
            )
            assert finished.code == 0, finished.err
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Return where Prometheus answers."""
        return f"http://127.0.0.1:{self.prometheus_port}"

    def be_asked(self, seconds: float) -> None:
        """Have a few people ask for so long, more of them in the middle; one now and then asks too much."""
        begun = time.monotonic()
        with ThreadPoolExecutor(max(count for _, count in PHASES)) as people:
            for place in range(max(count for _, count in PHASES)):
                people.submit(self._ask, place, begun, seconds)

    def _ask(self, place: int, begun: float, seconds: float) -> None:
        asking, number, pause = OwnerAsking(self.state), 0, threading.Event()
        while (share := (time.monotonic() - begun) / seconds) < 1:
            if place < next(count for until, count in PHASES if share < until):
                number += 1
                with suppress(grpc.RpcError):
                    asking.answer(PROMPTS[(place + number) % len(PROMPTS)], length=24 + 8 * place)
                if place == 1 and number % 5 == 0:
                    with suppress(grpc.RpcError):
                        asking.answer(TOO_LONG, length=8)
            else:
                pause.wait(0.5)

    def _start(self) -> None:
        init = self.shell.run("coordinator-cli", "mesh", "init", "--state-dir", str(self.state))
        assert init.code == 0, init.err
        self._run(
            "coordinator", "mesh ", "--state-dir", str(self.state), "--master-port", str(self.port),
            "--metrics-port", str(self.pages["coordinator"]),
        )  # fmt: skip
        for name, options in NODES.items():
            data = self.shell.home / name
            invited = self.shell.run("coordinator-cli", "mesh", "invite", "--state-dir", str(self.state))
            joined = self.shell.run(
                "shardnode", "join", invited.out.split()[-1], "--name", name, "--data-dir", str(data),
                "--listen", f"127.0.0.1:{free_port_pair()}", "--no-measure",
            )  # fmt: skip
            assert joined.code == 0, joined.err
            self._run(
                "shardnode", "serving ", "--config", str(data / "shardnode.toml"), "--threads", "1",
                "--metrics-port", str(self.pages[name]), *options,
            )  # fmt: skip
        wait_until(self._all_heard, limit_seconds=LIMIT_SECONDS, what="all nodes are heard")
        self._start_prometheus()

    def _run(self, program: str, until: str, *arguments: str) -> Running:
        running = self.shell.start(program, *arguments)  # type: ignore[arg-type]  # a name of ours
        wait_until(
            lambda: until in running.err or running.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what=until
        )
        assert running.process.poll() is None, running.err
        return running

    def _all_heard(self) -> bool:
        with suppress(ShardmeshError), OwnerClient(self.state) as owner:
            return sum(is_alive(node) for node in owner.nodes().nodes) == len(NODES)
        return False

    def _start_prometheus(self) -> None:
        def job(name: str, targets: dict[str, dict[str, str]]) -> dict[str, object]:
            groups = [
                {"targets": [f"127.0.0.1:{self.pages[target]}"], "labels": {"mesh": "home", **labels}}
                for target, labels in targets.items()
            ]
            return {"job_name": name, "static_configs": groups}

        configuration = self.shell.home / "prometheus.yml"
        configuration.write_text(json.dumps({  # JSON is YAML
            "global": {"scrape_interval": "5s"},
            "scrape_configs": [
                job("shardmesh-coordinator", {"coordinator": {}}),
                job("shardmesh-node", {name: {"node": name} for name in NODES}),
            ],
        }))  # fmt: skip
        data = self._data or self.shell.home / "watched"
        self.shell.start_command([
            "prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{self.prometheus_port}",
        ])  # fmt: skip
        wait_until(self._is_ready, limit_seconds=LIMIT_SECONDS, what="Prometheus is ready")

    def _is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
        return False

    def close(self) -> None:
        """End everything."""
        for running in self.shell.running():
            if running.process.poll() is None:
                running.process.terminate()
                running.process.wait(LIMIT_SECONDS)
        self.shell.close()

    def __enter__(self) -> WatchedMesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
