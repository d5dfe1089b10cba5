"""Makes the mesh in tests/contract/made_by_e3cc05c/mesh, with that commit's programs; and puts a copy of it to use.

    python -m tests.support.mesh_of_e3cc05c CHECKOUT     # one of e3cc05c, with kernels and an environment in .venv
    copy_mesh(directory, coordinator_port)               # what a test starts from

Covers: a coordinator's and two nodes' directories with keys, certificates, configuration and slices of format 1 in
bfloat16, what that build has answered, its units and configuration files.
Certificates end ten years after they were made, and have begun so long before that a node renews its own at once: for
that alone lifetimes in the programs' memory are other ones; nothing else of them is. So it is good until November 2036.
Does not cover: slices in float32 (slices.json beside it). The keys open nothing but this mesh.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.support.cli import Finished, Name, Running, Shell
from tests.support.free_ports import free_port_pair
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until

MADE = Path(__file__).resolve().parents[1] / "contract" / "made_by_e3cc05c" / "mesh"
NODES = ("attic", "kitchen")
STATE = "state"
ASK = ("--prompt", "1 2 3", "--length", "16", "--temperature", "0", "--ignore-eos", "--json")
ANSWER = "answer.json"
LIMIT_SECONDS = 60.0
_HOME, _PORT = "HOME", "PORT"
"""Stand where the machine's directory and the coordinator's port were."""
_MAINS = {
    "coordinator": "coordinator.start", "coordinator-cli": "coordinator.cli.start", "shardnode": "shardnode.start"
}  # fmt: skip
_LONG_LIFE = """
import sys
from datetime import timedelta
from importlib import import_module
from common.trust import certificates
certificates.AUTHORITY_LIFETIME = timedelta(days=3650)
certificates.certify.__kwdefaults__["lifetime"] = timedelta(days=3640)
certificates.SLACK, certificates.RENEW_AT = timedelta(days=8000), 10
sys.argv = {arguments!r}
import_module({main!r}).main()
"""


def copy_mesh(directory: Path, port: int) -> dict[str, list[int]]:
    """Copy the mesh, as its owner's, with a coordinator at this port of 127.0.0.1; return what it has answered."""
    shutil.copytree(MADE, directory, dirs_exist_ok=True)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)  # git keeps neither
    for path in _naming_the_machine(directory):
        path.write_text(path.read_text().replace(_HOME, str(directory)).replace(f":{_PORT}", f":{port}"))
    answer: dict[str, list[int]] = json.loads((directory / ANSWER).read_text())
    return answer


def _naming_the_machine(directory: Path) -> list[Path]:
    """Return the files that say where the mesh was, or how its coordinator is reached."""
    return [*directory.glob("*/shardnode.toml"), *directory.glob(f"{STATE}/models/*/model.json")]


class _OlderBuild:
    """Its programs, on this machine."""

    def __init__(self, checkout: Path) -> None:
        self.shell = Shell(checkout)
        self.shell.allow_torch()
        self._python = checkout / ".venv" / "bin" / "python"
        self.state, self.port = str(self.shell.home / STATE), free_port_pair()

    def start(self, program: Name, *arguments: str) -> Running:
        code = _LONG_LIFE.format(arguments=[program, *arguments], main=_MAINS[program])
        return self.shell.start_command([str(self._python), "-c", code])

    def run(self, program: Name, *arguments: str) -> Finished:
        finished = self.start(program, *arguments).finish()
        assert finished.code == 0, finished.err
        return finished

    def cli(self, *arguments: str) -> Finished:
        return self.run("coordinator-cli", *arguments, "--state-dir", self.state)

    def start_until(self, text: str, program: Name, *arguments: str) -> None:
        running = self.start(program, *arguments)
        wait_until(lambda: text in running.err or running.process.poll() is not None, limit_seconds=LIMIT_SECONDS,
                   what=text)  # fmt: skip
        assert running.process.poll() is None, running.err

    def join(self, name: str) -> None:
        token = self.cli("mesh", "invite").out.split()[-1]
        self.run(
            "shardnode", "join", token, "--name", name, "--listen", "127.0.0.1:0", "--no-measure",
            "--data-dir", str(self.shell.home / name),
        )  # fmt: skip


def make(checkout: Path) -> None:
    """Make all of it anew."""
    build = _OlderBuild(checkout)
    home = build.shell.home
    try:
        build.cli("mesh", "init", "--name", "home")
        build.start_until("mesh ", "coordinator", "--state-dir", build.state, "--master-port", str(build.port))
        for name in NODES:
            build.join(name)
        for name in NODES:
            build.start_until("serving ", "shardnode", "--config", str(home / name / "shardnode.toml"))
        wait_until(lambda: build.cli("nodes").out.count("alive") == len(NODES), limit_seconds=LIMIT_SECONDS, what="all")
        model = str(write_tiny_checkpoint(home / "model"))
        build.cli("load", model, "--split-strategy", "ratio:3,1", "--weights-dtype", "bfloat16")
        answer = json.loads(build.cli("generate", "--coordinator", f"127.0.0.1:{build.port}", *ASK).out)
        for running in build.shell.running():
            running.process.terminate()
            running.finish()
        _keep(checkout, build, {key: answer[key] for key in ("prompt_token_ids", "token_ids")})
    finally:
        build.shell.close()


def _keep(checkout: Path, build: _OlderBuild, answer: dict[str, list[int]]) -> None:
    shutil.rmtree(MADE, ignore_errors=True)
    for name in (STATE, *NODES):
        shutil.copytree(build.shell.home / name, MADE / name)
    for path in _naming_the_machine(MADE):
        path.write_text(path.read_text().replace(str(build.shell.home), _HOME).replace(f":{build.port}", f":{_PORT}"))
    for folder in ("systemd", "config"):
        shutil.copytree(checkout / "deploy" / folder, MADE / "deploy" / folder)
    (MADE / ANSWER).write_text(json.dumps(answer) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
