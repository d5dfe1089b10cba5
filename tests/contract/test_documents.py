"""Do `status nodes models plan doctor why --json` print the documented keys and nothing else, of a mesh that runs?

Covers: every key of README.md's table and no other, units and types, what is not known, a hostile member, failures.
Does not cover: how tables read (tests/unit/test_screens.py), generate's document (tests/e2e/test_output.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import EXIT_INPUT, EXIT_MODEL
from common.model.plan import make_plan
from common.wire.rpc import PROTOCOL_VERSION
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import owner_access
from coordinator.models.records import LoadedModel, LoadedModels
from protos.shardmesh.v1 import mesh_pb2
from tests.support import mesh_members
from tests.support.cli import Finished, run_here
from tests.support.documented_keys import documented, keys
from tests.support.planned_models import DESCRIPTION
from tests.support.scraping import observer_of
from tests.support.shipped_slices import NAME, ShippingMesh
from tests.support.source_files import REPOSITORY
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until

HOSTILE = "[/]\x1b[2J\u202e[bold]"
DEVICES = REPOSITORY / "deploy" / "config" / "devices.toml"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShippingMesh]:
    """Return a mesh of a real node that is heard, a hostile one that has beaten once, and a model that lacks a node."""
    patch = pytest.MonkeyPatch()
    with ShippingMesh(tmp_path_factory.mktemp("mesh")) as made:
        device = mesh_pb2.Device(protocol_version=PROTOCOL_VERSION, core_count=1, version=HOSTILE)
        patch.setattr(mesh_members, "DEVICE", device)
        identity = mesh_members.joined(made.state_directory, "attic", made.data.parent / "attic")
        assert mesh_members.beat(made.coordinator, identity) is None
        patch.undo()
        observer_of(made.state_directory, "prometheus", made.data.parent / "observer")
        records = LoadedModels(made.state_directory)
        directory = records.directory / "broken"
        directory.mkdir(parents=True)
        description = replace(DESCRIPTION, plan=make_plan(DESCRIPTION.spec, "uniform", 2))
        records.save(LoadedModel(
            name="broken", directory=directory, source="x", description=description, node_names=(NAME, "cellar")
        ))  # fmt: skip

        def heard() -> bool:
            with OwnerClient(made.state_directory) as owner:
                return all(node.silent_seconds >= 0 for node in owner.nodes().nodes)

        wait_until(heard, limit_seconds=mesh_members.LIMIT_SECONDS, what="both are heard")
        yield made


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs `coordinator-cli` in this process; a node that is not there is not waited for."""
    monkeypatch.setattr("coordinator.membership.reach.REACH_SECONDS", 1.0)

    def run(*words: str) -> Finished:
        return run_here("coordinator-cli", list(words), monkeypatch, capsys)

    return run


def document(finished: Finished) -> Any:
    """Return what stands on stdout: one document, in one line of ASCII."""
    assert finished.code == 0, finished.err
    assert finished.out.count("\n") == 1
    assert finished.out.isascii()
    return json.loads(finished.out)


@pytest.mark.parametrize("verb", ["status", "nodes", "models"])
def test_a_verb_prints_the_documented_keys(mesh: ShippingMesh, typed: Any, verb: str) -> None:
    """All of them, also of what is not known, and none besides; nothing on stderr."""
    finished = typed(verb, "--json", "--state-dir", str(mesh.state_directory))
    assert keys(json.loads(finished.out)) == documented(verb)
    assert (finished.out.count("\n"), finished.err) == (1, "")


def test_the_doctor_prints_the_documented_keys(mesh: ShippingMesh, typed: Any) -> None:
    """What it does goes to stderr meanwhile; a model that lacks a node has no speed."""
    wait_until(
        lambda: len(owner_access(mesh.state_directory).alive()) == 1, limit_seconds=mesh_members.LIMIT_SECONDS,
        what="nobody counts on the one that has beaten once",
    )  # fmt: skip
    finished = typed("doctor", "--no-measure", "--json", "--state-dir", str(mesh.state_directory))
    found = document(finished)
    assert keys(found) == documented("doctor")
    assert found["model"]["missing_node_names"] == ["cellar"]
    assert found["model"]["tokens_per_second"] is None
    assert (found["not_heard"], "measuring" in finished.err) == (["attic"], True)


def test_before_anybody_has_asked_why_is_a_document_too(mesh: ShippingMesh, typed: Any) -> None:
    """It says so, and what there is to do; tests/observed/test_why.py has all keys."""
    found = document(typed("why", "--json", "--state-dir", str(mesh.state_directory)))
    assert keys(found) < documented("why")
    assert (found["model"], found["sweep_count"], found["advice"]) == (None, 0, [])
    assert "ask one" in found["said"]


def test_a_plan_prints_the_documented_keys(typed: Any, tmp_path: Path) -> None:
    """Without a mesh, and with a config.json alone."""
    model = write_tiny_checkpoint(tmp_path / "tiny")
    found = document(typed("plan", str(model), "--devices", str(DEVICES), "--json"))
    assert keys(found) == documented("plan")
    assert found["devices"][0]["slice_bytes"] > 0


def test_units_and_types_are_what_the_names_say(mesh: ShippingMesh, typed: Any) -> None:
    """Bytes and counts are whole numbers, seconds are not negative, what is not known is null."""
    found = document(typed("nodes", "--json", "--state-dir", str(mesh.state_directory)))
    (observer,), nodes = found["observers"], found["nodes"]
    assert observer["certificate_expiry_timestamp_seconds"] > time.time() + 364 * 86400
    by_name = {node["name"]: node for node in nodes}
    kitchen, attic = by_name[NAME], by_name["attic"]
    for node in nodes:
        assert all(isinstance(value, int) for key, value in node.items() if key.endswith(("_bytes", "_count")))
        assert node["silent_seconds"] >= 0
    assert kitchen["is_alive"] is True
    assert kitchen["rank"] is None
    assert attic["version"].startswith("[/]")


def test_a_member_with_a_hostile_version_breaks_no_screen(mesh: ShippingMesh, typed: Any) -> None:
    """A device that joined with `[/]` as its version broke `nodes` for good."""
    for verb in ("nodes", "status", "models"):
        finished = typed(verb, "--state-dir", str(mesh.state_directory))
        assert finished.code in (0, 5), finished.err  # a mesh of which no model can answer may say so
        assert (finished.out + finished.err).replace("\n", "").isprintable()
    assert "[/][2J[bold]" in typed("nodes", "--state-dir", str(mesh.state_directory)).out


def test_a_failure_leaves_stdout_empty(typed: Any, tmp_path: Path) -> None:
    """One line on stderr and the exit code tell, as ever."""
    for verb in ("status", "nodes", "doctor", "why"):
        finished = typed(verb, "--json", "--state-dir", str(tmp_path / "none"))
        finished.error_line("coordinator-cli", EXIT_INPUT)
        assert finished.out == ""
    finished = typed("plan", str(tmp_path / "none"), "--json")
    finished.error_line("coordinator-cli", EXIT_MODEL)
    assert finished.out == ""


def test_a_mesh_of_nothing_is_a_document_too(typed: Any, tmp_path: Path) -> None:
    """Scripts need not know the sentence that people read."""
    assert document(typed("models", "--json", "--state-dir", str(tmp_path))) == {"models": []}
