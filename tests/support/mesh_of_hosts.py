"""A whole mesh on hosts of its own: a coordinator on desk, a node on each of the others, as people would start them.

    with MeshOfHosts(["kitchen", "attic"], model) as mesh:
        mesh.load("--split-strategy", "ratio:2,1")
        mesh.answer("hello", length=8)

Covers: init, invite, join, starting and stopping, asking; with programs of another checkout, of which nothing but the
command line is known. Does not cover: the hosts themselves (network_hosts.py).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from common.errors import ShardmeshError
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import is_alive
from coordinator.membership.state import init_mesh
from tests.support.cli import Finished, Running, Shell
from tests.support.network_hosts import Kind, NetworkHosts
from tests.support.owner_asking import OwnerAsking
from tests.support.waiting import wait_until

DESK, PORT, NODE_PORT, RELAYED_PORT = "desk", 29500, 50051, 50061
LIMIT_SECONDS = 60.0
TOKEN_SECONDS = 600
JUST_SECONDS = 1.5
"""Heartbeats come every second."""
REPOSITORY = Path(__file__).resolve().parents[2]


class MeshOfHosts:
    """Programs on hosts. Close it."""

    def __init__(
        self, nodes: Sequence[str], *, memory_bytes: int | None = None, rate_mbit: float = 100,
        delays: dict[str, float] | None = None, options: Mapping[str, Sequence[str]] | None = None,
        cores: Mapping[str, int] | None = None, coordinator_options: Sequence[str] = (),
        checkout: Path | None = None, kind: Kind = "ipv4", everywhere: bool = False,
    ) -> None:  # fmt: skip
        """Start everything.

        Args: delays: milliseconds, each way, by node; options: further flags of shardnode, by node; cores: the one
        that a node may use; coordinator_options: its further flags; checkout: whose programs, if not this one's;
        kind: of addresses; everywhere: have all listen on 0.0.0.0, as documents say, and not on their addresses.
        """
        self._everywhere = "0.0.0.0" if everywhere else ""
        self._cores = cores or {}
        self.nodes = list(nodes)
        self.shell, self._is_other = Shell(checkout), checkout is not None
        if self._is_other:
            self.shell.allow_torch()  # that programs do without it is this checkout's promise
        self.hosts = NetworkHosts([DESK, *nodes], memory_bytes=memory_bytes, rate_mbit=rate_mbit, kind=kind)
        self._delays, self._options = delays or {}, dict(options or {})
        self._coordinator_options = coordinator_options
        self.state = str(self.shell.home / "state")
        self.running: dict[str, Running] = {}
        try:
            self._make_mesh()
            self.start_coordinator()
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(self._join, self.nodes))
                for name in self.nodes:
                    self._start_relay(name)
                list(pool.map(self.start_node, self.nodes))
            self.wait_until_alive()
        except BaseException:
            self.close()
            raise

    def cli(self, *arguments: str) -> Finished:
        """Run a verb of coordinator-cli on desk that has to work."""
        finished = self.try_cli(*arguments)
        assert finished.code == 0, finished.err
        return finished

    def try_cli(self, *arguments: str) -> Finished:
        """Run a verb of coordinator-cli on desk."""
        return self.start_cli(*arguments).finish()

    def start_cli(self, *arguments: str) -> Running:
        """Start a verb of coordinator-cli on desk."""
        return self.shell.start("coordinator-cli", *arguments, "--state-dir", self.state, inside=self._on(DESK))

    def start_coordinator(self, *options: str) -> None:
        """Start the coordinator, and wait until it listens. Args: options: besides its own."""
        running = self.shell.start(
            "coordinator", "--state-dir", self.state, "--master-ip", self._everywhere or self.hosts.address(DESK),
            *self._coordinator_options, *options, inside=self._on(DESK),
        )  # fmt: skip
        self._wait_for(running, "mesh ")
        self.running[DESK] = running

    def start_node(self, name: str, options: Sequence[str] = (), environment: Sequence[str] = ()) -> None:
        """Start a node, and wait until it listens. Args: options: besides its own; environment: such as TZ=UTC."""
        more = [*self._options.get(name, ()), *options]
        if name in self._delays:
            more += ["--advertise", f"{self.hosts.address(name)}:{RELAYED_PORT}"]
        config = f"{self.data(name)}/shardnode.toml"
        inside = [*self._on(name), *(["env", *environment] if environment else [])]
        running = self.shell.start("shardnode", "--config", config, "--threads", "1", *more, inside=inside)
        self._wait_for(running, "serving ")
        self.running[name] = running

    def set_options(self, name: str, *options: str) -> None:
        """Start a node with other flags from now on."""
        self._options[name] = options

    def stop(self, name: str) -> Finished:
        """Have a program end as systemd would."""
        self.running[name].process.terminate()
        return self.running[name].finish()

    def kill(self, name: str) -> None:
        """End a program at once."""
        self.running[name].process.kill()
        self.running[name].process.wait()

    def data(self, name: str) -> Path:
        """Return a node's data directory."""
        return self.shell.home / name

    def wait_until_alive(self) -> None:
        """Wait until the coordinator has just heard every node; one whose cable was mended may not be heard yet.

        Asked from here and on one channel, since a program, or a channel, for each look delays them.
        """
        if self._is_other:
            wait_until(self._all_are_listed, limit_seconds=LIMIT_SECONDS, what="all nodes listed as alive")
            return
        with OwnerClient(Path(self.state)) as owner:
            wait_until(lambda: _alive(owner) == len(self.nodes), limit_seconds=LIMIT_SECONDS, what="all nodes alive")

    def load(self, model: Path, *options: str) -> str:
        """Load a model; return what was said."""
        return self.cli("load", str(model), *options).err

    def answer(self, prompt: str, *, length: int, options: Sequence[str] = ()) -> list[int]:
        """Return the tokens that the coordinator answers."""
        document: dict[str, Any] = json.loads(self.cli(*self.ask(prompt, length), "--json", *options).out)
        tokens: list[int] = document["token_ids"]
        return tokens

    def answer_here(self, prompt: str, *, length: int, model: str = "") -> list[int]:
        """Return the tokens that the coordinator answers its owner, for whom no program has to start."""
        return OwnerAsking(Path(self.state)).answer(prompt, length=length, model=model).token_ids

    def is_silent(self, name: str) -> bool:
        """Tell whether the coordinator misses a node."""
        with OwnerClient(Path(self.state)) as owner:
            return not any(node.name == name and is_alive(node) for node in owner.nodes().nodes)

    def ask(self, prompt: str, length: int) -> list[str]:
        """Return the command line that asks the coordinator."""
        address = f"{self.hosts.address(DESK)}:{PORT}"
        return [
            "generate", "--coordinator", address, "--prompt", prompt, "--length", str(length), "--temperature", "0",
            "--ignore-eos",
        ]  # fmt: skip

    def seconds_to_end(self, asking: Running) -> tuple[float, Finished]:
        """Return how long a run takes to end from now on, and how it did."""
        started = time.monotonic()
        finished = asking.finish()
        return time.monotonic() - started, finished

    def close(self) -> None:
        """End everything and remove the hosts."""
        for running in self.running.values():
            if running.process.poll() is None:
                running.process.kill()
        self.shell.close()
        self.hosts.close()

    def _all_are_listed(self) -> bool:
        """Return whether the other checkout's programs list every node as alive."""
        return sum("alive" in line.split() for line in self.cli("nodes").out.splitlines()) == len(self.nodes)

    def _make_mesh(self) -> None:
        if self._is_other:
            self.cli("mesh", "init")
        else:
            init_mesh(Path(self.state), "home")

    def _token(self) -> str:
        if self._is_other:
            return self.cli("mesh", "invite").out.split()[-1]
        with OwnerClient(Path(self.state)) as owner:
            return owner.invite(TOKEN_SECONDS).token

    def _join(self, name: str) -> None:
        token = self._token()
        joined = self.shell.run(
            "shardnode", "join", token, "--name", name, "--data-dir", str(self.data(name)), "--listen",
            f"{self._everywhere or self.hosts.address(name)}:{NODE_PORT}", "--no-measure", inside=self._on(name),
        )  # fmt: skip
        assert joined.code == 0, joined.err

    def _start_relay(self, name: str) -> None:
        if name in self._delays:
            here = self.hosts.address(name)
            program = [sys.executable, str(REPOSITORY / "tests" / "support" / "delay_relay.py")]
            command = [*program, f"{here}:{RELAYED_PORT}", f"{here}:{NODE_PORT}", str(self._delays[name])]
            running = self.shell.start_command([*self.hosts.inside(name), *command])
            self._wait_for(running, "relaying")
            self.running[f"{name}'s relay"] = running

    def _on(self, name: str) -> list[str]:
        pinned = ["taskset", "-c", str(self._cores[name])] if name in self._cores else []
        return [*self.hosts.inside(name), *pinned]

    def _wait_for(self, running: Running, text: str) -> None:
        wait_until(
            lambda: text in running.err or running.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what=text
        )
        assert running.process.poll() is None, running.err

    def __enter__(self) -> MeshOfHosts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _alive(owner: OwnerClient) -> int:
    """Return how many nodes the coordinator has just heard; 0 while it does not answer."""
    with suppress(ShardmeshError):
        return sum(is_alive(node) and node.silent_seconds < JUST_SECONDS for node in owner.nodes().nodes)
    return 0
