"""A mesh of real programs that is attacked by processes of their own, and how it fares meanwhile.

    with BesiegedMesh(directory) as mesh, mesh.siege():
        mesh.watch(5.0)

Covers: a coordinator and a node under the usual soft limit of open files, a member that attacks, one that was removed.
Does not cover: attacks (crowd.py).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import grpc
import psutil

from common.trust.certificates import fingerprint
from common.trust.identity import load_identity
from common.wire.addresses import host_port
from common.wire.rpc import channel_options
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import SOCKET_FILE, init_mesh
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc
from shardnode.membership.join import CONFIG_FILE, IDENTITY_DIRECTORY
from tests.support.free_ports import free_port_pair
from tests.support.loaded_here import load_here
from tests.support.mesh_members import joined
from tests.support.random_models import build, save
from tests.support.waiting import wait_until

SOFT_LIMIT = 1024
"""Of open files, as systems give it."""
LIMIT_SECONDS = 30.0
NODE, GUEST, GONE = "kitchen", "guest", "gone"
ENDLESS = 20_000
HEARTBEAT, JOIN = "/shardmesh.v1.MeshService/Heartbeat", "/shardmesh.v1.JoinService/Join"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How a mesh fared for a while."""

    longest_command_seconds: float
    longest_silence_seconds: float
    """Of the node's heartbeats."""
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a program holds."""

    descriptors: int
    threads: int
    megabytes: float


class BesiegedMesh:
    """A coordinator, and a node with a model, as programs."""

    def __init__(self, directory: Path, python: str = sys.executable) -> None:
        self._python, self._closing = python, ExitStack()
        self.state, self.data = directory / "state", directory / NODE
        port = free_port_pair()
        self.coordinator, self.joining = host_port("127.0.0.1", port), host_port("127.0.0.1", port + 1)
        init_mesh(self.state, "home")
        try:
            self._begin(directory, port)
        except BaseException:
            self._closing.close()
            raise

    def _begin(self, directory: Path, port: int) -> None:
        log = self._closing.enter_context((directory / "log").open("wb"))
        self.log = directory / "log"
        self.desk = self._program(log, "coordinator.cli.coordinator", "--master-ip", "127.0.0.1",
                                  "--master-port", str(port), "--state-dir", str(self.state))  # fmt: skip
        wait_until((self.state / SOCKET_FILE).exists, limit_seconds=LIMIT_SECONDS, what="a coordinator")
        for name in (NODE, GUEST, GONE):
            joined(self.state, name, directory / name)
        self.kitchen = self._program(log, "shardnode.cli", "--config", str(self.data / CONFIG_FILE))
        wait_until(lambda: 0 <= self.silence() < 2, limit_seconds=LIMIT_SECONDS, what="a heartbeat")
        model = build(
            hidden_size=256, intermediate_size=1024, layers=4, vocab_size=300, max_position_embeddings=2 * ENDLESS
        )
        load_here(self.state, save(model, directory / "model"), [NODE])
        with OwnerClient(self.state) as owner:
            owner.remove(GONE)
            self.node = next(node.address for node in owner.nodes().nodes if node.name == NODE)

    def _program(self, log: BinaryIO, module: str, *arguments: str) -> psutil.Process:
        """Start a program under the usual soft limit."""
        limited = f'ulimit -Sn {SOFT_LIMIT}; exec "$0" -c "$@"'
        command = ["bash", "-c", limited, self._python, f"from {module} import main; main()", *arguments]
        started = self._closing.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        self._closing.callback(started.kill)
        return psutil.Process(started.pid)

    def identity(self, name: str) -> str:
        """Return where a member's identity lies."""
        return str(self.state.parent / name / IDENTITY_DIRECTORY)

    @property
    def stranger(self) -> str:
        """What a crowd of strangers is told, who know the mesh and have no certificate."""
        authority = load_identity(Path(self.identity(NODE))).authority
        return f"-home:{fingerprint(authority).hex()}"

    @contextmanager
    def siege(self) -> Iterator[None]:
        """Have all kinds of attacks at once while the context lasts; a token is open meanwhile."""
        with OwnerClient(self.state) as owner, self._crowds(self.coordinator, self.joining, self.node):
            owner.invite(600)
            yield

    @contextmanager
    def siege_elsewhere(self) -> Iterator[None]:
        """Have the same attackers, and a token, but at ports that are no mesh's: they take processor time alone."""
        command = [sys.executable, "-m", "tests.attacks.decoy"]
        pipe = subprocess.PIPE
        with (
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as decoy,
            OwnerClient(self.state) as owner,
        ):
            try:
                ports = decoy.stdout.readline().split()  # type: ignore[union-attr] # it is a pipe
                owner.invite(600)
                with self._crowds(*(host_port("127.0.0.1", int(port)) for port in ports)):
                    yield
            finally:
                decoy.kill()

    @contextmanager
    def _crowds(self, coordinator: str, joining: str, node: str) -> Iterator[None]:
        kinds = (
            ("silent", coordinator, 1100), ("silent", joining, 200), ("silent", node, 1100),
            ("stalled", coordinator, 48, self.identity(GUEST), HEARTBEAT),
            ("stalled", coordinator, 48, self.identity(GONE), HEARTBEAT),
            ("stalled", joining, 48, self.stranger, JOIN),
            ("renewals", coordinator, 8, self.identity(GUEST)),
        )  # fmt: skip
        with ExitStack() as crowds:
            for process in [crowds.enter_context(self._crowd(*kind)) for kind in kinds]:
                process.stdout.readline()  # type: ignore[union-attr] # it is a pipe
            yield

    @contextmanager
    def _crowd(self, kind: str, address: str, count: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Have a process attack while the context lasts; it says a line once it has begun."""
        command = [sys.executable, "-m", "tests.attacks.crowd", kind, address, str(count), *more]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    def silence(self) -> float:
        """Return for how long the node has not been heard; negative: never."""
        with OwnerClient(self.state) as owner:
            return next(node.silent_seconds for node in owner.nodes().nodes if node.name == NODE)

    def held(self) -> tuple[Held, Held]:
        """Return what coordinator and node hold."""
        return _held(self.desk), _held(self.kitchen)

    def watch(self, seconds: float) -> Seen:
        """Have an answer go on, and ask the owner's questions, for so long."""
        address = f"unix:{self.state / SOCKET_FILE}"
        with grpc.insecure_channel(address, options=channel_options()) as channel:
            request = generation_pb2.GenerateRequest(
                prompt="1 2 3", length=ENDLESS, temperature=0, top_p=1, ignore_eos=True
            )
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            answer = stub.Generate(request, timeout=LIMIT_SECONDS + seconds)
            for part in answer:
                if part.WhichOneof("part") == "token":
                    break
            began, tokens, longest, silent, asked = time.monotonic(), 0, 0.0, 0.0, 0.0
            for part in answer:
                now = time.monotonic()
                tokens += part.WhichOneof("part") == "token"
                if now - began > seconds:
                    break
                if now - asked > 0.5:
                    silent, asked = max(silent, self.silence()), now
                    longest = max(longest, time.monotonic() - now)
            took = time.monotonic() - began
            answer.cancel()
        return Seen(longest_command_seconds=longest, longest_silence_seconds=silent, tokens_per_second=tokens / took)

    def __enter__(self) -> BesiegedMesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self.kitchen, self.desk):
            process.terminate()
        psutil.wait_procs([self.kitchen, self.desk], timeout=LIMIT_SECONDS)
        self._closing.close()


def _held(program: psutil.Process) -> Held:
    return Held(
        descriptors=program.num_fds(), threads=program.num_threads(), megabytes=program.memory_info().rss / 1e6
    )  # fmt: skip
