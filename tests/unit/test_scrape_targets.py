"""Is Prometheus told where each node's metrics are, and of nothing that it could not read or that nobody vouches for?

Covers: the file and the page of discovery, what a node may say of its page. Does not cover: a real Prometheus
(tests/observed).
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from common.errors import InputError
from coordinator.membership.metrics_url import metrics_url
from coordinator.membership.moves import APART_SECONDS
from coordinator.program import targets
from coordinator.program.targets import ScrapeTargets, target_groups
from protos.shardmesh.v1 import mesh_pb2
from tests.support.kept_mesh import PI, KeptMesh

ELSEWHERE = "ipv4:192.0.2.7:4711"
HERE = "ipv4:127.0.0.1:4711"


def node(name: str, metrics: str, silent_seconds: float = 0.1) -> mesh_pb2.Node:
    """Return what the mesh knows of a node."""
    return mesh_pb2.Node(name=name, metrics=metrics, silent_seconds=silent_seconds)


def test_each_node_with_a_page_is_a_target_by_its_name() -> None:
    """Also one that is silent, or nobody would see that it is down; in one order whoever was heard first."""
    nodes = [
        node("kitchen", "https://192.0.2.7:9400", silent_seconds=900), node("attic", "http://127.0.0.1:9400"),
        node("shed", ""),
    ]  # fmt: skip
    assert target_groups("home", nodes) == [
        {"targets": ["127.0.0.1:9400"], "labels": {"mesh": "home", "node": "attic", "__scheme__": "http"}},
        {"targets": ["192.0.2.7:9400"], "labels": {"mesh": "home", "node": "kitchen", "__scheme__": "https"}},
    ]


@pytest.fixture
def known() -> list[mesh_pb2.Node]:
    """Return what the mesh knows, to be changed."""
    return [node("kitchen", "https://192.0.2.7:9400")]


def test_the_file_follows_nodes_and_is_written_only_when_it_changes(tmp_path: Path, known: list[mesh_pb2.Node]) -> None:
    """Whoever watches the file is woken for news and for nothing else; a restart is no news either."""
    path = tmp_path / "prometheus" / "targets.json"
    told = ScrapeTargets("home", path, lambda: known)
    told.begin()
    first = path.stat().st_mtime_ns
    told.update(known)
    ScrapeTargets("home", path, lambda: known).begin()
    assert path.stat().st_mtime_ns == first
    known[0].metrics = "https://192.0.2.8:9400"
    told.update(known)
    assert path.stat().st_mtime_ns != first
    assert json.loads(path.read_bytes())[0]["targets"] == ["192.0.2.8:9400"]
    known.clear()
    told.update(known)
    assert json.loads(path.read_bytes()) == []
    assert os.listdir(path.parent) == ["targets.json"]


def test_a_file_that_somebody_changes_or_takes_away_is_there_again_at_the_next_look(
    tmp_path: Path, known: list[mesh_pb2.Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And while nobody does it is not read: once a second, for as long as the coordinator runs."""
    path = tmp_path / "targets.json"
    told = ScrapeTargets("home", path, lambda: known)
    told.begin()
    told.update(known)
    expected = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", lambda path: pytest.fail("it is read"))
        told.update(known)
    path.write_bytes(b"[]")
    told.update(known)
    assert path.read_bytes() == expected
    path.unlink()
    told.update(known)
    assert path.read_bytes() == expected


def test_others_may_read_the_file_under_any_umask(tmp_path: Path, known: list[mesh_pb2.Node]) -> None:
    """Prometheus is another user, and our units let files be read by nobody else."""
    path = tmp_path / "prometheus" / "targets.json"
    before = os.umask(0o077)
    try:
        ScrapeTargets("home", path, lambda: known).begin()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_a_service_writes_where_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under systemd that is its cache, without a word in a configuration; only its own user enters its state."""
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    assert targets.default_file(tmp_path) == tmp_path / "prometheus" / "targets.json"
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/shardmesh-coordinator")
    assert targets.default_file(tmp_path) == Path("/var/cache/shardmesh-coordinator/targets.json")


def test_the_page_says_what_the_file_says(tmp_path: Path, known: list[mesh_pb2.Node]) -> None:
    """For a Prometheus on another machine."""
    path = tmp_path / "targets.json"
    told = ScrapeTargets("home", path, lambda: known)
    told.begin()
    content_type, content = told.page()
    assert (content_type, content) == ("application/json", path.read_bytes())


def test_a_place_that_cannot_be_written_to_is_told_at_the_start(tmp_path: Path, known: list[mesh_pb2.Node]) -> None:
    """It would be as wrong next time."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "targets.json", tmp_path / "no" / "such" / "targets.json"):
        with pytest.raises(InputError, match="--discovery-file"):
            ScrapeTargets("home", path, lambda: known).begin()


def test_a_disk_that_is_full_is_told_once_and_ends_nothing(
    tmp_path: Path, known: list[mesh_pb2.Node], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nodes are heard and answers go on; when there is room the file is right again."""
    write: Callable[[Path, bytes], None] = targets.replace_readable

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(targets, "replace_readable", full)
    told = ScrapeTargets("home", tmp_path / "targets.json", lambda: known)
    told.begin()
    told.update(known)
    assert caplog.text.count("No space left on device") == 1
    monkeypatch.setattr(targets, "replace_readable", write)
    told.update(known)
    assert json.loads((tmp_path / "targets.json").read_bytes())[0]["labels"]["node"] == "kitchen"


@pytest.mark.parametrize(
    ("said", "caller", "expected"),
    [
        ("", HERE, ""),
        ("http://127.0.0.1:9400", HERE, "http://127.0.0.1:9400"),
        ("http://127.0.0.1:9400", ELSEWHERE, ""),
        ("http://192.0.2.7:9400", ELSEWHERE, ""),
        ("https://0.0.0.0:9400", ELSEWHERE, "https://192.0.2.7:9400"),
        ("https://[::]:9400", "ipv6:%5B2001:db8::7%5D:4711", "https://[2001:db8::7]:9400"),
        ("https://192.0.2.9:9400", ELSEWHERE, "https://192.0.2.9:9400"),
        ("https://my_kitchen.lan:9400", ELSEWHERE, "https://my_kitchen.lan:9400"),
        ("https://[fe80::7%eth0]:9400", ELSEWHERE, ""),
        ("https://127.0.0.1:9400", ELSEWHERE, ""),
        ("https://127.0.0.1:9400", HERE, "https://127.0.0.1:9400"),
    ],
    ids=["none", "loopback here", "loopback there", "plain beyond loopback", "everywhere", "everywhere, IPv6",
         "one network", "a name", "one link", "TLS on loopback there", "TLS on loopback here"],
)  # fmt: skip
def test_a_page_is_where_the_coordinators_machine_reaches_it(said: str, caller: str, expected: str) -> None:
    """A token must never go over a network in plain, and another device's loopback is not ours."""
    assert metrics_url(said, caller) == expected


def test_a_node_beside_the_coordinator_is_known_by_any_address_of_this_machine() -> None:
    """It may reach its coordinator by the network's address, not by loopback."""
    own = [
        address.address for addresses in psutil.net_if_addrs().values() for address in addresses
        if address.family.name == "AF_INET" and not address.address.startswith("127.")
    ]  # fmt: skip
    for address in own:
        assert metrics_url("http://127.0.0.1:9400", f"ipv4:{address}:4711") == "http://127.0.0.1:9400"


@pytest.mark.parametrize(
    "said",
    ["127.0.0.1:9400", "ftp://a:1", "https://a", "https://a:1/metrics", "https://a:99999", "https://a b:1",
     "https://user@a:1", "https://a:1\n", "https://" + "a" * 100 + ":1"],
)  # fmt: skip
def test_what_is_no_place_of_a_page_is_refused(said: str) -> None:
    """Nothing that a node makes up reaches a file that another program reads."""
    with pytest.raises(InputError):
        metrics_url(said, ELSEWHERE)


def test_where_a_page_is_survives_a_restart_of_the_coordinator(tmp_path: Path) -> None:
    """A node that is down since before that stays a target; one that says of no page any more does not."""
    mesh = KeptMesh(tmp_path)
    mesh.let_in("kitchen", serial="a1")
    mesh.members.hear("kitchen", "192.0.2.7:5", PI, -1, "", metrics="https://192.0.2.7:9400")
    assert KeptMesh(tmp_path).members.get("kitchen").metrics == "https://192.0.2.7:9400"
    for _ in range(2):  # what a node says is written down once it has said so for a while
        mesh.clock.now += APART_SECONDS
        mesh.members.hear("kitchen", "192.0.2.7:5", PI, -1, "", metrics="")
    assert KeptMesh(tmp_path).members.get("kitchen").metrics == ""
