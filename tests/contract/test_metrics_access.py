"""Who reads metrics beyond this machine, and who does not? A real coordinator and a real node, TLS on real sockets.

Covers: observers and tokens on both pages, strangers of every kind, removal, renewal, certificates of earlier builds,
connections that only hold a place. Does not cover: what an observer may call (test_observers_call_nothing.py), which
series there are (test_metrics_page.py), the server's limits (tests/unit/test_page_server.py).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from common.errors import NameTaken, NoSuchNode
from common.trust.certificates import COORDINATOR, NODE, OBSERVER, PeerName, has_metrics_name, make_authority, to_pem
from common.trust.identity import Identity, load_identity
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import IDENTITY_DIRECTORY, join_mesh
from shardnode.run import RunningNode
from tests.support.mesh_members import LIMIT_SECONDS, forged, state_of, token_of
from tests.support.scraping import observer_of, observing, scrape, showing, trusting
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until

TOKEN = "correct-horse-battery-staple"
EVERYWHERE = "0.0.0.0:0"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A mesh of one node whose metrics are read from elsewhere."""

    coordinator: Coordinator
    node: RunningNode
    state: Path
    data: Path

    @property
    def ports(self) -> dict[str, int]:
        page = self.coordinator.metrics_page
        assert page is not None
        return {"coordinator": page.port, "node": self.node.metrics_port}

    @property
    def authority(self) -> bytes:
        return state_of(self.state).authority.certificate


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, sliced: SlicedModel) -> Iterator[Watched]:
    """Return a mesh of one node, both with pages for others, which take a token too."""
    directory = tmp_path_factory.mktemp("watched")
    state, data, token = directory / "state", directory / "data", directory / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    init_mesh(state, "home")
    coordinator = Coordinator(state, "127.0.0.1:0", metrics_listen=EVERYWHERE, metrics_token_file=token)
    node = None
    try:
        join_mesh(token_of(state), "kitchen", data, "127.0.0.1:0")
        node = RunningNode(sliced.node_config(
            coordinator=coordinator.address, data_directory=data, metrics_listen=EVERYWHERE, metrics_token_file=token,
        ))  # fmt: skip
        yield Watched(coordinator=coordinator, node=node, state=state, data=data)
    finally:
        if node is not None:
            node.close()
        coordinator.close()


def status_of(port: int, context: ssl.SSLContext, token: str = "") -> int | str:
    """Return a page's status, or the kind of error by which nobody came to see it."""
    try:
        return scrape(port, context, token).status
    except OSError as error:
        return type(error).__name__


def wait_for(port: int, context: ssl.SSLContext, status: int) -> None:
    """Wait for the next heartbeat, by which a node hears who may read."""
    wait_until(lambda: status_of(port, context) == status, limit_seconds=LIMIT_SECONDS, what=f"status {status}")


def test_an_observer_reads_every_page_by_one_name(watched: Watched, tmp_path: Path) -> None:
    """With the files as they are written, which nobody else reads; a node believes it from its next heartbeat on."""
    files = observer_of(watched.state, "prometheus", tmp_path / "observer")
    for path in (files.key, files.certificate, files.authority):
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert files.directory.stat().st_mode & 0o777 == 0o700
    context = observing(files)
    assert "shardmesh_coordinator_rss_bytes" in scrape(watched.ports["coordinator"], context).text
    wait_for(watched.ports["node"], context, 200)
    assert "shardmesh_node_rss_bytes" in scrape(watched.ports["node"], context).text
    for port in watched.ports.values():
        with pytest.raises(ssl.SSLCertVerificationError):
            scrape(port, context, name="elsewhere.shardmesh")


def test_a_token_reads_every_page_and_another_one_none(watched: Watched) -> None:
    """The caller is told how to show one; whatever is wrong with it is told alike."""
    context = trusting(watched.authority)
    for port in watched.ports.values():
        assert scrape(port, context, TOKEN).status == 200
        for wrong in ("", TOKEN[:-1], f"{TOKEN}x", "x" * 4000, "\x7f"):
            answer = scrape(port, context, wrong)
            assert (answer.status, "shardmesh_" in answer.text) == (401, False)
            assert "mesh invite --observer" in answer.text


def strangers(watched: Watched) -> dict[str, tuple[Identity, int | None]]:
    """Return who is turned away, and by which status; None: in the handshake."""
    authority, known = state_of(watched.state).authority, watched.authority

    def of(role: str, name: str, mesh: str = "home", **settings: timedelta) -> Identity:
        return forged(authority, PeerName(mesh=mesh, role=role, name=name), known, **settings)

    observer = PeerName(mesh="home", role=OBSERVER, name="prometheus")
    return {
        "another authority": (forged(make_authority("home"), observer, known), None),
        "an observer whose time is over": (of(OBSERVER, "prometheus", ends=timedelta(seconds=-60)), None),
        "an observer that nobody let in": (of(OBSERVER, "ghost"), 403),
        "another certificate of an observer": (of(OBSERVER, "prometheus"), 403),
        "an observer of another mesh": (of(OBSERVER, "prometheus", mesh="work"), 403),
        "the node": (load_identity(watched.data / IDENTITY_DIRECTORY), 403),
        "another node": (of(NODE, "attic"), 403),
        "the coordinator": (state_of(watched.state).identity(), 403),
        "a coordinator": (of(COORDINATOR, "x"), 403),
    }


def test_strangers_are_turned_away(watched: Watched, tmp_path: Path) -> None:
    """Also members: who computes has nothing to read there. None of them sees a series."""
    for port in watched.ports.values():
        for what, (identity, expected) in strangers(watched).items():
            try:
                answer = scrape(port, showing(identity, tmp_path))
                assert (answer.status, "shardmesh_" in answer.text) == (expected, False), what
            except OSError:
                assert expected is None, what


def test_nobody_is_answered_without_tls(watched: Watched) -> None:
    """Plain text, an older TLS, bytes that mean nothing: no byte of a page."""
    for port in watched.ports.values():
        for said in (b"GET /metrics HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"x" * 500, b""):
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS) as plain:
                plain.sendall(said)
                plain.shutdown(socket.SHUT_WR)
                heard = b""
                try:
                    while part := plain.recv(4096):
                        heard += part
                except ConnectionResetError:
                    pass
                assert b"HTTP" not in heard
                assert b"shardmesh" not in heard
        older = trusting(watched.authority)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError, match=r"(?i)alert|protocol|reset|eof"):
            scrape(port, older, TOKEN)


def test_who_was_removed_reads_nothing_more(watched: Watched, tmp_path: Path) -> None:
    """The coordinator refuses at once, a node with its next heartbeat, and one that starts anew still does."""
    files = observer_of(watched.state, "former", tmp_path / "former")
    context = observing(files)
    wait_for(watched.ports["node"], context, 200)
    with OwnerClient(watched.state) as owner:
        assert "former" in [observer.name for observer in owner.nodes().observers]
        owner.remove("former")
        assert "former" not in [observer.name for observer in owner.nodes().observers]
        with pytest.raises(NoSuchNode):
            owner.remove("former")
    assert status_of(watched.ports["coordinator"], context) == 403
    wait_for(watched.ports["node"], context, 403)


def test_a_node_that_starts_without_its_coordinator_knows_its_observers(
    watched: Watched, sliced: SlicedModel, tmp_path: Path
) -> None:
    """By what it heard last: who was let in reads, who was removed does not."""
    coordinator = Coordinator(_mesh_in(tmp_path / "state"), "127.0.0.1:0")
    data = tmp_path / "data"
    join_mesh(token_of(tmp_path / "state"), "attic", data, "127.0.0.1:0")
    config = sliced.node_config(coordinator=coordinator.address, data_directory=data, metrics_listen=EVERYWHERE)
    good = observing(observer_of(tmp_path / "state", "good", tmp_path / "good"))
    removed = observing(observer_of(tmp_path / "state", "removed", tmp_path / "removed"))
    node = RunningNode(config)
    try:
        wait_for(node.metrics_port, removed, 200)
        with OwnerClient(tmp_path / "state") as owner:
            owner.remove("removed")
        wait_for(node.metrics_port, removed, 403)
    finally:
        coordinator.close()
        node.close()
    node = RunningNode(config)
    try:
        assert (status_of(node.metrics_port, good), status_of(node.metrics_port, removed)) == (200, 403)
    finally:
        node.close()


def _mesh_in(directory: Path) -> Path:
    init_mesh(directory, "other")
    return directory


def test_an_observer_that_is_invited_again_has_no_gap(watched: Watched, tmp_path: Path) -> None:
    """The certificate before stays good, the one before that does not; a restart changes nothing of it."""
    contexts = [observing(observer_of(watched.state, "often", tmp_path / str(number))) for number in range(3)]
    assert [status_of(watched.ports["coordinator"], context) for context in contexts] == [403, 200, 200]
    kept = state_of(watched.state).observers
    assert len([serial for observer in kept.all() if observer.name == "often" for serial in observer.serials]) == 2


def test_a_name_belongs_to_a_node_or_to_an_observer(watched: Watched, tmp_path: Path) -> None:
    """`mesh remove NAME` means one of them."""
    with pytest.raises(NameTaken, match="there is a node called kitchen"):
        observer_of(watched.state, "kitchen", tmp_path / "observer")
    observer_of(watched.state, "eyes", tmp_path / "eyes")
    with pytest.raises(NameTaken, match="there is an observer called eyes"):
        join_mesh(token_of(watched.state), "eyes", tmp_path / "data", "127.0.0.1:0")


def test_a_renewed_certificate_is_shown_without_a_restart(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the next handshake."""
    context = observing(observer_of(watched.state, "renewing", tmp_path / "observer"))
    before = scrape(watched.ports["coordinator"], context).shown
    assert scrape(watched.ports["coordinator"], context).shown == before
    monkeypatch.setattr("coordinator.membership.state.needs_renewal", lambda pem: pem == to_pem(before))
    after = scrape(watched.ports["coordinator"], context)
    assert (after.status, after.shown != before) == (200, True)
    assert to_pem(after.shown) == load_identity(watched.state).own.certificate


def test_certificates_of_earlier_builds_get_the_name_by_themselves(
    tmp_path: Path, sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator's at its next handshake, a node's with its first heartbeat, and neither is made twice."""
    with monkeypatch.context() as earlier:
        earlier.setattr("common.trust.certificates.METRICS_NAME", "nobody.asks.shardmesh")
        earlier.setattr("coordinator.membership.state.has_metrics_name", lambda certificate: True)
        init_mesh(tmp_path / "state", "home")
        coordinator = Coordinator(tmp_path / "state", "127.0.0.1:0")
        join_mesh(token_of(tmp_path / "state"), "kitchen", tmp_path / "data", "127.0.0.1:0")
        coordinator.close()
    identities: list[Callable[[], Identity]] = [
        lambda: load_identity(tmp_path / "state"), lambda: load_identity(tmp_path / "data" / IDENTITY_DIRECTORY),
    ]  # fmt: skip
    assert not any(has_metrics_name(identity().own.certificate) for identity in identities)
    coordinator = Coordinator(tmp_path / "state", "127.0.0.1:0", metrics_listen=EVERYWHERE)
    node = RunningNode(sliced.node_config(
        coordinator=coordinator.address, data_directory=tmp_path / "data", metrics_listen=EVERYWHERE,
    ))  # fmt: skip
    try:
        context = observing(observer_of(tmp_path / "state", "prometheus", tmp_path / "observer"))
        assert coordinator.metrics_page is not None
        assert status_of(coordinator.metrics_page.port, context) == 200
        wait_for(node.metrics_port, context, 200)
        made = [identity() for identity in identities]
        silent = scrape(node.metrics_port, context).shown
        with OwnerClient(tmp_path / "state") as owner:
            wait_until(
                lambda: owner.nodes().nodes[0].silent_seconds < 0.5, limit_seconds=LIMIT_SECONDS, what="a heartbeat"
            )
        assert [identity() for identity in identities] == made
        assert scrape(node.metrics_port, context).shown == silent
    finally:
        node.close()
        coordinator.close()


def test_connections_that_only_hold_a_place_keep_no_observer_away(watched: Watched, tmp_path: Path) -> None:
    """Hundreds without a handshake, or with half of one."""
    context = observing(observer_of(watched.state, "patient", tmp_path / "observer"))
    wait_for(watched.ports["node"], context, 200)
    for port in watched.ports.values():
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        for connection in idle[::2]:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert [status_of(port, context) for _ in range(5)] == [200] * 5
        for connection in idle:
            connection.close()
