"""Does a mesh work where there is no IPv4, and where addresses mean something on one link alone?

Covers: real programs on hosts of their own, with nothing but IPv6, all on 0.0.0.0 as documents say, and with nothing
but fe80 addresses of a link that each host calls otherwise: from mesh init to the right tokens, in frames and over
gRPC.
Does not cover: how addresses are read and written (tests/unit/test_addresses.py), a real model (tests/golden).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EXIT_NODE, EXIT_OK
from tests.support.mesh_of_hosts import DESK, NODE_PORT, MeshOfHosts
from tests.support.network_hosts import why_not
from tests.support.random_models import save
from tests.support.reference_models import TWO

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be hosts")

MODEL = TWO[0]
NODES = ("attic", "kitchen")
METRICS_PORT = 9400
OBSERVED = dict.fromkeys(NODES, ("--metrics-listen", f"0.0.0.0:{METRICS_PORT}"))
UNIFORM = ("--split-strategy", "uniform")
FRAMES, GRPC = ("--rounds", "frames"), ("--rounds", "grpc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model on disk whose answer is known."""
    return save(MODEL.build(), tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def mesh() -> Iterator[MeshOfHosts]:
    """Return a coordinator that takes rounds in frames only, and two nodes, on hosts that have no IPv4."""
    with MeshOfHosts(NODES, kind="ipv6", everywhere=True, options=OBSERVED, coordinator_options=FRAMES) as made:
        yield made
    assert made.hosts.left() == []


@pytest.fixture(scope="module")
def link() -> Iterator[MeshOfHosts]:
    """Return the same on hosts that have an fe80 address each and nothing else, and listen there."""
    with MeshOfHosts(NODES, kind="link", coordinator_options=FRAMES) as made:
        yield made
    assert made.hosts.left() == []


def address_here(mesh: MeshOfHosts, name: str) -> str:
    """Return a node's address as the coordinator writes it: on a link, by what that is called on desk."""
    host = mesh.hosts.address(name).replace(mesh.hosts.device(name), mesh.hosts.device(DESK))
    return f"{host}:{NODE_PORT}"


def listed(mesh: MeshOfHosts) -> dict[str, str]:
    """Return where each node is, as `nodes --json` says it."""
    return {node["name"]: node["address"] for node in json.loads(mesh.cli("nodes", "--json").out)["nodes"]}


def test_devices_without_ipv4_answer_what_transformers_does(mesh: MeshOfHosts, model: Path) -> None:
    """They join by a token that names the coordinator's address; it is asked over TLS, with rounds in frames."""
    said = mesh.load(model, *UNIFORM)
    assert "ask it: coordinator-cli generate --coordinator 127.0.0.1:29500" in said  # 0.0.0.0 is both kinds
    assert mesh.answer(MODEL.prompt, length=MODEL.length) == MODEL.token_ids
    assert listed(mesh) == {name: address_here(mesh, name) for name in NODES}


def test_prometheus_is_told_where_pages_are_in_brackets(mesh: MeshOfHosts) -> None:
    """A page on 0.0.0.0 is reached where the node's heartbeats come from, and listens there."""
    groups = json.loads((Path(mesh.state) / "prometheus" / "targets.json").read_text())
    assert [group["targets"] for group in groups] == [[f"{mesh.hosts.address(name)}:{METRICS_PORT}"] for name in NODES]
    for (target,) in [group["targets"] for group in groups]:
        host, _, port = target.rpartition(":")
        mesh.hosts.connect(DESK, int(port), 5.0, host).close()


def test_a_node_without_ipv4_that_is_cut_off_is_named(mesh: MeshOfHosts) -> None:
    """Within five seconds, in frames; once it is back it is asked again."""
    asking = mesh.start_cli(*mesh.ask("1 2 3", 2000))
    asking.wait_for_text()
    mesh.hosts.partition("kitchen")
    seconds, finished = mesh.seconds_to_end(asking)
    mesh.hosts.heal("kitchen")
    assert "kitchen" in finished.error_line("coordinator-cli", EXIT_NODE)
    assert seconds < 5.0
    mesh.wait_until_alive()
    assert mesh.answer_here(MODEL.prompt, length=MODEL.length) == MODEL.token_ids


def test_rounds_go_over_grpc_without_ipv4_too(mesh: MeshOfHosts) -> None:
    """Where the coordinator is told so."""
    assert mesh.stop(DESK).code == EXIT_OK
    mesh.start_coordinator(*GRPC)
    mesh.wait_until_alive()
    assert mesh.answer_here(MODEL.prompt, length=MODEL.length) == MODEL.token_ids


def test_devices_of_one_link_find_each_other_and_answer_what_transformers_does(link: MeshOfHosts, model: Path) -> None:
    """By tokens without an address, since the coordinator's means nothing elsewhere; each calls the link otherwise."""
    invited = link.cli("mesh", "invite")
    assert "finds it by looking around" in invited.err
    joined = (link.data("attic") / "shardnode.toml").read_text()
    assert f'coordinator = "{link.hosts.address(DESK).replace("%eth0", "%eth1")}:29500"' in joined
    link.load(model, *UNIFORM)
    assert link.answer(MODEL.prompt, length=MODEL.length) == MODEL.token_ids
    assert listed(link) == {name: address_here(link, name) for name in NODES}
