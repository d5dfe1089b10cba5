"""Do a node of 64-bit Arm and one of this processor, in one mesh, answer what transformers does?

Covers: the Arm node is whole and emulated, from joining by a token to the tokens of a real model, with rounds in frames
and over gRPC. Does not cover: its kernels by themselves (tests/kernels), speed, other processors.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EXIT_OK
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import is_alive
from tests.golden.smollm2_prompts import GOLDEN, PROMPTS
from tests.support.arm_device import ArmDevice, arm_device, why_not
from tests.support.cli import Finished, Running, Shell
from tests.support.fetched_packages import Unreachable
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be such a device")

HERE, ARM = "desk", "pi"
PLAN = ("--split-strategy", "ratio:2,1", "--nodes", f"{HERE},{ARM}")
"""An emulated processor is slow."""
PROMPT, LENGTH = "english", 8
LIMIT_SECONDS = 150.0
"""For what an emulated program does on a busy machine."""
TOKEN_SECONDS = 900


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> ArmDevice:
    """Return an emulated device."""
    try:
        return arm_device(tmp_path_factory.mktemp("arm"))
    except Unreachable as reason:
        pytest.skip(str(reason))


class MixedMesh:
    """A coordinator and a node of this processor, and a node of another."""

    def __init__(self, shell: Shell, device: ArmDevice) -> None:
        self.shell = shell
        self.state = shell.home / "state"
        self.cli("mesh", "init")
        self.coordinator = shell.start(
            "coordinator", "--state-dir", str(self.state), "--master-port", "0", "--rounds", "frames"
        )
        said = self._said(self.coordinator, "mesh ")
        self.address = said.split(" on ")[1].split(";")[0]
        shardnode = str(shell.program("shardnode"))
        self.nodes = {name: self._joined(name, command) for name, command in
                      ((HERE, [shardnode]), (ARM, device.shardnode()))}  # fmt: skip
        for name, node in self.nodes.items():
            self._said(node, f"INFO shardnode.run: node has started node={name}")
        wait_until(lambda: self._alive() == len(self.nodes), limit_seconds=LIMIT_SECONDS, what="both nodes are heard")

    def cli(self, *arguments: str) -> Finished:
        """Run a verb of coordinator-cli that has to work."""
        finished = self.shell.start("coordinator-cli", *arguments, "--state-dir", str(self.state)).finish(LIMIT_SECONDS)
        assert finished.code == EXIT_OK, finished.err
        return finished

    def answer(self, *through: str) -> list[int]:
        """Return the tokens of an answer. Args: through: how it is asked."""
        asked = ("--prompt", PROMPTS[PROMPT], "--length", str(LENGTH), "--temperature", "0", "--json")
        tokens: list[int] = json.loads(self.cli("generate", *through, *asked).out)["token_ids"]
        return tokens

    def close(self) -> None:
        """Have all end as systemd would."""
        for running in (*self.nodes.values(), self.coordinator):
            running.process.send_signal(signal.SIGTERM)
        for running in (*self.nodes.values(), self.coordinator):
            finished = running.finish(LIMIT_SECONDS)
            assert (finished.code, "Traceback" in finished.err) == (EXIT_OK, False), finished.err

    def _joined(self, name: str, command: list[str]) -> Running:
        """Let a node in and start it."""
        with OwnerClient(self.state) as owner:
            token = owner.invite(TOKEN_SECONDS).token
        data = self.shell.home / name
        joining = self.shell.start_command(
            [*command, "join", token, "--name", name, "--data-dir", str(data), "--listen", "127.0.0.1:0",
             "--no-measure"]
        )  # fmt: skip
        finished = joining.finish(LIMIT_SECONDS)
        assert finished.code == EXIT_OK, finished.err
        return self.shell.start_command([*command, "--config", str(data / "shardnode.toml"), "--threads", "1"])

    def _alive(self) -> int:
        with OwnerClient(self.state) as owner:
            return sum(map(is_alive, owner.nodes().nodes))

    def _said(self, running: Running, text: str) -> str:
        wait_until(
            lambda: text in running.err or running.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what=text
        )
        assert running.process.poll() is None, running.err
        return running.err


@pytest.fixture(scope="module")
def mesh(device: ArmDevice) -> Iterator[MixedMesh]:
    """Return the mesh; all of it ends by itself when it is told to."""
    shell = Shell()
    try:
        made = MixedMesh(shell, device)
        yield made
        made.close()
        assert shell.leftovers() == []
    finally:
        shell.close()


def test_nodes_of_two_processors_answer_what_transformers_does(mesh: MixedMesh, demo_model: Path) -> None:
    """The same tokens, in frames and over gRPC, of slices that were cut on one processor and read on the other."""
    entries = json.loads(GOLDEN.read_text(encoding="utf-8"))["prompts"]
    (expected,) = [entry["token_ids"][:LENGTH] for entry in entries if entry["name"] == PROMPT]
    mesh.cli("load", str(demo_model), *PLAN)
    assert mesh.answer("--coordinator", mesh.address) == expected
    own = ("--model", str(demo_model), "--save-dir", str(mesh.shell.home / "own"))
    assert mesh.answer(*own, *PLAN, "--rounds", "grpc") == expected
