"""Does a mesh that commit e3cc05c has made go on under the programs of today, and nobody types anything?

Covers: real programs on directories, configuration and units' commands of that build
(tests/support/mesh_of_e3cc05c.py): tokens, slices, certificates and their renewal, loading again; with
SHARDMESH_THOROUGH=1 (.ci/run) nodes that are killed, and another plan too.
Does not cover: the units' other lines (`make test-systemd` runs those of today); slices in float32
(tests/contract/test_made_by_earlier_builds.py).
"""

from __future__ import annotations

import hashlib
import json
import shlex
from datetime import datetime, timedelta, timezone
from pathlib import Path

from common.trust.certificates import LEAF_LIFETIME, lifetime_of, serial_of
from common.trust.identity import Identity, load_identity
from coordinator.membership.book import Book
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import is_alive
from shardnode.membership.join import IDENTITY_DIRECTORY
from tests.e2e.conftest import RunHere
from tests.support.cli import Name, Running, Shell
from tests.support.free_ports import free_port_pair
from tests.support.mesh_of_e3cc05c import ASK, NODES, STATE, copy_mesh
from tests.support.thorough import THOROUGH
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until

LIMIT_SECONDS = 30.0
READY: dict[Name, str] = {"coordinator": "mesh home on", "shardnode": "serving "}


class OlderMesh:
    """The mesh, and today's programs on it."""

    def __init__(self, shell: Shell, here: RunHere) -> None:
        self._shell, self._here, self._port = shell, here, free_port_pair()
        self.home = shell.home / "mesh"
        self.answered = copy_mesh(self.home, self._port)["token_ids"]
        self.state = self.home / STATE

    def start(self, program: Name, *more: str, config: Path | None = None) -> Running:
        """Start what the unit says. Args: config: the file it names, if not that of the build; more: flags after it."""
        unit = (self.home / "deploy" / "systemd" / f"{program}.service").read_text()
        (command,) = [line.removeprefix("ExecStart=") for line in unit.splitlines() if line.startswith("ExecStart=")]
        installed, flag, place = shlex.split(command)
        assert (Path(installed).name, flag, Path(place).name) == (program, "--config", f"{program}.toml")
        file = config or self.home / "deploy" / "config" / f"{program}.toml"
        running = self._shell.start(program, flag, str(file), *more)
        wait_until(lambda: READY[program] in running.err or running.process.poll() is not None,
                   limit_seconds=LIMIT_SECONDS, what=READY[program])  # fmt: skip
        assert running.process.poll() is None, running.err
        return running

    def start_coordinator(self) -> Running:
        """Start it on its directory."""
        here = ("--master-ip", "127.0.0.1", "--master-port", str(self._port), "--state-dir", str(self.state))
        return self.start("coordinator", *here)

    def start_kitchen(self) -> Running:
        """Start a node as deploy/README.md said: by the file of the build, with what differs here."""
        return self.start(
            "shardnode", "--coordinator", f"127.0.0.1:{self._port}", "--listen", "127.0.0.1:0", "--metrics-port", "0",
            "--data-dir", str(self.home / "kitchen"), "--memory-budget", "300MB",
        )  # fmt: skip

    def start_attic(self) -> Running:
        """Start a node by the file that `shardnode join` wrote."""
        return self.start("shardnode", config=self.home / "attic" / "shardnode.toml")

    def wait_until_alive(self) -> None:
        """Wait until the coordinator hears both."""
        with OwnerClient(self.state) as owner:
            wait_until(lambda: sum(map(is_alive, owner.nodes().nodes)) == len(NODES), limit_seconds=LIMIT_SECONDS,
                       what="both nodes alive")  # fmt: skip

    def cli(self, *arguments: str) -> tuple[str, str]:
        """Run a verb that has to work; return what it wrote."""
        finished = self._here("coordinator-cli", *arguments, "--state-dir", str(self.state))
        assert finished.code == 0, finished.err
        return finished.out, finished.err

    def answer(self) -> list[int]:
        """Return what the model says that is loaded."""
        tokens: list[int] = json.loads(self.cli("generate", "--coordinator", f"127.0.0.1:{self._port}", *ASK)[0])[
            "token_ids"
        ]
        return tokens

    def identity(self, name: str) -> Identity:
        """Return what a node has on its disk now."""
        return load_identity(self.home / name / IDENTITY_DIRECTORY)

    def weights(self) -> dict[str, str]:
        """Return the SHA-256 of every file of weights."""
        return {
            str(path.relative_to(self.home)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.home.rglob("*.safetensors"))
        }


def wait_until_only(mesh: OlderMesh, name: str, serial: str) -> None:
    """Wait until no other certificate of a node is good."""
    wait_until(lambda: Book(mesh.state).kept.members[name].serials == (serial,), limit_seconds=LIMIT_SECONDS,
               what="the one of before is retired")  # fmt: skip


def test_a_mesh_of_an_earlier_build_answers_the_same_and_its_certificates_renew(shell: Shell, here: RunHere) -> None:
    """From its slices as they lie there; certificates of before are worth nothing then, and nothing is sent again."""
    mesh = OlderMesh(shell, here)
    weights, before = mesh.weights(), {name: mesh.identity(name) for name in NODES}
    mesh.start_coordinator()
    attic, kitchen = mesh.start_attic(), mesh.start_kitchen()
    mesh.wait_until_alive()
    assert mesh.answer() == mesh.answered
    wait_until(lambda: all(mesh.identity(name) != before[name] for name in NODES), limit_seconds=LIMIT_SECONDS,
               what="two new certificates")  # fmt: skip
    for name in NODES:
        identity = mesh.identity(name)
        assert (identity.authority, identity.peer) == (before[name].authority, before[name].peer)
        ends = lifetime_of(identity.own.certificate)[1]
        assert timedelta(0) < datetime.now(timezone.utc) + LEAF_LIFETIME - ends < timedelta(hours=1)
        wait_until_only(mesh, name, serial_of(identity.own.certificate))
    # The model's files were gone all the while. Where they are again, nothing is sent again.
    model = str(write_tiny_checkpoint(shell.home / "model"))
    again = mesh.cli("load", model, "--split-strategy", "ratio:3,1", "--weights-dtype", "bfloat16")
    assert again[1].count("all was there") == 2
    assert mesh.weights() == weights
    if THOROUGH:
        for node in (attic, kitchen):
            node.process.kill()
            node.finish()
        mesh.start_attic(), mesh.start_kitchen()
        mesh.wait_until_alive()
        assert mesh.answer() == mesh.answered
        mesh.cli("load", model, "--split-strategy", "uniform", "--weights-dtype", "bfloat16")
        assert mesh.answer() == mesh.answered
    for running in shell.running():
        running.process.terminate()
        assert running.finish().code == 0, running.err
