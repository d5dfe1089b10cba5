"""Does every program do without torch, which takes two seconds and 200 MB, and import nothing before it needs it?

Covers: all modules but the two that are torch's; generate with a node of this machine, of a GGUF file; split;
the verbs that only ask or tell a mesh something; mistakes. Does not cover: what programs do (tests/e2e, whose shells
have no torch either).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EXIT_INPUT, EXIT_INTERNAL
from coordinator.membership.state import init_mesh
from tests.support.cli import Shell
from tests.support.mesh import sliced
from tests.support.random_models import build, save
from tests.support.tiny_checkpoint import write_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent.parent
VERBS = ("nodes", "models", "doctor", "status", "why", "unload small", "mesh invite", "mesh remove attic",
         "generate --coordinator 127.0.0.1:1 --prompt x", "generate --model nowhere --prompt x",
         "load nowhere", "load --cancel small")  # fmt: skip
PROGRAM = """
import sys
from common.program.command_line import run_program
from coordinator.cli.main import program as cli
from coordinator.cli.coordinator import app as daemon

state = ["--state-dir", sys.argv[1]]
ended = []
for app, words in [(daemon, []), *((cli(verb.split()), verb.split()) for verb in sys.argv[2:])]:
    sys.argv = ["program", *words, *state]
    try:
        run_program(app, "program")
    except SystemExit as end:
        ended.append(end.code)
    assert "torch" not in sys.modules, words
print(ended)
"""
MISTAKES = (
    *(f"coordinator-cli generate --model {{model}} {words}" for words in (
        "--k -1", "--p 2", "--temperature nan", "--seed 99999999999999999999999", "--length 0", "--world-size 0",
        "--world-size 3 --split-strategy ratio:1,2", "--split-strategy fair", "--weights-dtype int3",
        "--wire-dtype int3", "--kv-budget-bytes 1XB", "--memory-budget much", "--memory-window 1",
        "--window-bytes 0", "--read-bytes 5", "--page-cache never", "--metrics-port 70000",
        "--master-ip 0.0.0.0 --master-port 1", "--nodes nowhere:x", "--nodes 192.0.2.1:1",
        "--nodes 127.0.0.1:1 --use-gpu", "--backend cuda", "--nodes 127.0.0.1:1 --memory-budget 1GB", "--nodes kitchen",
        "--stop=", "--top-p 0", "--no-such",
    )),
    "coordinator-cli generate --prompt x", "coordinator-cli generate --model {model}/nowhere --prompt x",
    "coordinator-cli generate --model {model}/config.json", "coordinator-cli generate --coordinator x --world-size 2",
    "coordinator-cli split --model {model}/nowhere", "coordinator-cli split --model {model} --world-size 0",
    "coordinator-cli split --model {model} --split-strategy fair",
    "coordinator-cli split --model {model} --weights-dtype x",
    "coordinator-cli plan {model}/nowhere", "coordinator-cli plan {model} --devices nowhere.toml",
    "coordinator-cli plan {model} --split-strategy fair", "coordinator-cli plan {model} --weights-dtype int3",
    "coordinator-cli plan {model} --wire-dtype int3", "coordinator-cli load {model}/nowhere",
    "coordinator-cli run x", "coordinator-cli mesh invite --lifetime x", "coordinator-cli mesh remove",
    "coordinator --wire-dtype int3", "coordinator --backend cuda",
    "coordinator --metrics-port x", "coordinator --metrics-listen 9400", "coordinator --metrics-token-file {model}",
    "coordinator --metrics-port 1 --metrics-listen 127.0.0.1:1", "coordinator-cli mesh invite --observer prometheus",
    "coordinator-cli mesh invite --observer Prom --out {model}", "coordinator-cli mesh invite --out {model}",
    "shardnode --slice-dir {model} --metrics-listen 0.0.0.0:1", "shardnode join no-token --metrics-listen x",
    "coordinator --state-dir {model}/nowhere",
    "shardnode", "shardnode --slice-dir {model}", "shardnode --slice-dir {model}/nowhere",
    "shardnode --memory-budget x --slice-dir {model}", "shardnode --threads -1 --slice-dir {model}",
    "shardnode join no-token", "shardnode join no-token --listen nowhere", "shardnode --coordinator nowhere",
)  # fmt: skip
EARLY = """
import json, shlex, sys
from common.program.command_line import run_program
from coordinator.cli.coordinator import app as coordinator
from coordinator.cli.main import program as cli
from shardnode.cli import app as shardnode

apps = {"coordinator": coordinator, "shardnode": shardnode}
for line in json.load(sys.stdin):
    sys.argv = shlex.split(line)
    try:
        run_program(apps.get(sys.argv[0]) or cli(sys.argv[1:]), sys.argv[0])
    except SystemExit as end:
        print(json.dumps([line, end.code, "torch" in sys.modules]), flush=True)
"""
LOOK = """
import json, os, sys

class Look:
    told = []
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            self.told.append(os.environ.get("GRPC_VERBOSITY"))

sys.meta_path.insert(0, Look())
import {program}
print(json.dumps([Look.told, [name for name in {names} if name in sys.modules]]))
"""


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("shardnode.cli", ["zeroconf", "cryptography"]),
        ("shardnode.run, shardnode.membership.membership, shardnode.membership.join", ["zeroconf", "cryptography"]),
        ("coordinator.cli.coordinator, coordinator.program.daemon", ["zeroconf", "cryptography"]),
        ("coordinator.cli.answer_here, coordinator.membership.reach", ["cryptography"]),
    ],
)
def test_a_program_begins_without_what_few_need_and_its_grpc_writes_no_log(program: str, unwanted: list[str]) -> None:
    """gRPC looks when it is imported; a node whose coordinator it does not trust would write a line each second.

    zeroconf, 4 MB, is for devices that join by its help, and for a coordinator that lets them in; cryptography, 10 MB,
    for processes that end: they make certificates for members and coordinators that stay, who only read them.
    """
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(program=program, names=unwanted)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [["NONE"], []]


def test_what_needs_no_model_imports_no_torch(tmp_path: Path) -> None:
    """Each verb runs as far as it can without a mesh, or without a model; the first to import torch is named."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "state"), *VERBS],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    assert len(codes) == 1 + len(VERBS)
    assert EXIT_INTERNAL not in codes, done.stderr


def test_mistakes_are_told_without_torch(tmp_path: Path) -> None:
    """A wrong flag, a missing model, what contradicts itself: nobody waits seconds for a letter."""
    model = write_tiny_checkpoint(tmp_path / "tiny")
    lines = [line.format(model=model) for line in MISTAKES]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-c", EARLY], cwd=REPOSITORY, env=environment, input=json.dumps(lines), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [line for line, _, _ in told] == lines, done.stderr
    assert [line for line, code, _ in told if code not in range(2, 8)] == [], done.stderr
    assert [line for line, _, has_torch in told if has_torch] == []


EVERY_MODULE = """
import importlib, json, pkgutil, sys

for name in ("protos", "common", "shardnode", "coordinator"):
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
        is_ours = not module.name.startswith("common.native.") and not module.name.endswith("__main__")
        if is_ours and module.name not in {allowed!r}:
            importlib.import_module(module.name)
        assert "torch" not in sys.modules, module.name
"""
TORCH_MODULES = ("common.compute.torch_backend",)
SLOW = {
    "torch", "cryptography", "OpenSSL", "gguf", "yaml", "jinja2", "grpc_health.v1.health", "grpc_reflection.v1alpha",
    "rich.progress", "rich.console", "coordinator.program", "coordinator.membership.state", "coordinator.cli.load",
}  # fmt: skip
"""What an answer of nodes of this machine begins without; each takes 10 ms to 200 ms."""
BEGINS = """
import sys
from coordinator.answering.requests import Token
from coordinator.cli import answer_output
from coordinator.cli.main import main

def look(events, screen):
    for event in events:
        if isinstance(event, Token):
            break
    print(*sorted(sys.modules))
    raise SystemExit

answer_output.write_events = look
main()
"""


@pytest.fixture
def shell() -> Iterator[Shell]:
    """Return a shell whose programs find no torch."""
    made = Shell()
    try:
        yield made
    finally:
        made.close()


def test_all_modules_but_torchs_own_are_imported_without_torch() -> None:
    """The whole product, file by file; the first that imports torch is named."""
    code = EVERY_MODULE.format(allowed=TORCH_MODULES)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_model_is_cut_and_answers_without_torch(shell: Shell, tmp_path: Path) -> None:
    """generate cuts a GGUF file, starts a pool with its node and answers; split cuts safetensors."""
    model = save(build(vocab_size=320), tmp_path / "gguf", "gguf")
    done = shell.run(
        "coordinator-cli", "generate", "--model", str(model), "--prompt", "hi", "--length", "3", "--ignore-eos"
    )
    assert (done.code, shell.torch_imports) == (0, ""), done.err
    model = save(build(vocab_size=320), tmp_path / "safetensors")
    done = shell.run("coordinator-cli", "split", "--model", str(model), "--world-size", "2")
    assert (done.code, shell.torch_imports) == (0, ""), done.err


def test_an_answer_begins_before_anything_is_imported_that_it_does_not_need(shell: Shell, tmp_path: Path) -> None:
    """At its first token: no TLS, no screens, no other verbs, no converters of other formats."""
    model = write_tiny_checkpoint(tmp_path / "tiny")
    words = ["generate", "--model", str(model), "--prompt", "hi", "--length", "2"]
    with sliced(model, model / "split", world_size=1):
        pass
    done = shell.start_command([sys.executable, "-c", BEGINS, *words]).finish()
    modules = set(done.out.split())
    assert "coordinator.engine.engine" in modules, done.err
    assert not {name for name in modules if name in SLOW or name.partition(".")[0] in SLOW}


@pytest.mark.parametrize("more", [["--backend", "torch"], ["--use-gpu"]])
def test_torch_that_is_not_there_is_told_in_one_line(shell: Shell, tmp_path: Path, more: list[str]) -> None:
    """With what to install; the answer by our own kernels needs none."""
    model = write_tiny_checkpoint(tmp_path / "tiny")
    done = shell.run("coordinator-cli", "generate", "--model", str(model), "--prompt", "hi", *more)
    assert "shardmesh[torch]" in done.error_line("coordinator-cli", EXIT_INPUT)


def test_a_mesh_is_opened_without_cryptography(tmp_path: Path) -> None:
    """Its certificates are read, and found good, by who is about to ask its nodes."""
    init_mesh(tmp_path / "state", "home")
    opened = (f"import sys, pathlib; from coordinator.membership.state import open_mesh_state\n"
              f"open_mesh_state(pathlib.Path({str(tmp_path / 'state')!r})).identity()\n"
              "assert 'cryptography' not in sys.modules")  # fmt: skip
    subprocess.run([sys.executable, "-c", opened], check=True, cwd=REPOSITORY)
