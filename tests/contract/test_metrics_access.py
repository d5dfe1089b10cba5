"""Who reads metrics beyond this machine, and who does not? A real coordinator and a real node, TLS on real sockets.

Covers: observers and tokens on both pages, strangers of every kind, removal, connections that are kept, and those that
only hold a place.
Does not cover: certificates that change (test_metrics_certificates.py), what an observer may call
(test_observers_call_nothing.py), which series there are (test_metrics_page.py), the server's limits
(tests/unit/test_page_server.py).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from common.errors import NameTaken, NoSuchNode
from common.program.page_server import MOST_CONNECTIONS
from common.trust import metrics_door
from common.trust.certificates import COORDINATOR, NODE, OBSERVER, PeerName
from common.trust.identity import Identity, keyed_from, load_identity
from common.trust.signing import make_authority
from coordinator.membership.observers import AUTHORITY_FILE
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import IDENTITY_DIRECTORY, join_mesh
from shardnode.run import RunningNode
from tests.support.free_ports import free_place
from tests.support.mesh_members import LIMIT_SECONDS, forged, state_of, token_of
from tests.support.scraping import Scraping, observer_of, observing, scrape, showing, trusting
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until
from tests.support.watched_mesh import EVERYWHERE, TOKEN, Watched, status_of, wait_for, watched_mesh


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, sliced: SlicedModel) -> Iterator[Watched]:
    """Return a mesh of one node, both with pages for others, which take a token too."""
    with watched_mesh(tmp_path_factory.mktemp("watched"), sliced) as made:
        yield made


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
    known = watched.authority
    theirs = keyed_from((watched.state / AUTHORITY_FILE).read_bytes())

    def of(role: str, name: str, mesh: str = "home", **settings: timedelta) -> Identity:
        return forged(theirs, PeerName(mesh=mesh, role=role, name=name), known, **settings)

    observer = PeerName(mesh="home", role=OBSERVER, name="prometheus")
    return {
        "another authority": (forged(make_authority("home", of="observers of "), observer, known), None),
        "an observer whose time is over": (of(OBSERVER, "prometheus", ends=timedelta(seconds=-60)), None),
        "an observer by the members' authority": (forged(state_of(watched.state).authority, observer, known), None),
        "the node": (load_identity(watched.data / IDENTITY_DIRECTORY), None),
        "the coordinator": (state_of(watched.state).identity(), None),
        "an observer that nobody let in": (of(OBSERVER, "ghost"), 403),
        "another certificate of an observer": (of(OBSERVER, "prometheus"), 403),
        "an observer of another mesh": (of(OBSERVER, "prometheus", mesh="work"), 403),
        "a node by the observers' authority": (of(NODE, "attic"), 403),
        "a coordinator by the observers' authority": (of(COORDINATOR, "home"), 403),
    }


def test_strangers_are_turned_away(watched: Watched, tmp_path: Path) -> None:
    """Also members: who computes has nothing to read there. None of them sees a series."""
    wait_for(watched.ports["node"], observing(observer_of(watched.state, "prometheus", tmp_path / "observer")), 200)
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
                heard = b""
                with suppress(OSError):  # it may be closed before all is said
                    plain.sendall(said)
                    plain.shutdown(socket.SHUT_WR)
                    while part := plain.recv(4096):
                        heard += part
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
    coordinator = Coordinator(_mesh_in(tmp_path / "state"), free_place())
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


def test_why_an_observer_is_refused_is_logged_and_not_each_time(
    watched: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate that has ended, in the handshake; who asks again and again fills no disk."""
    context = observing(observer_of(watched.state, "prometheus", tmp_path / "observer"))
    ended, _ = strangers(watched)["an observer whose time is over"]
    page = watched.coordinator.metrics_page
    assert page is not None
    page._server._callers._told_at.clear()
    for _ in range(5):
        with pytest.raises(OSError, match=r"(?i)alert|reset|eof"):
            scrape(page.port, showing(ended, tmp_path))
    assert scrape(page.port, context).status == 200
    wait_until(lambda: "has expired" in caplog.text, limit_seconds=LIMIT_SECONDS, what="a line of the log")
    assert caplog.text.count("metrics refused caller=127.0.0.1") == 1


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


def test_an_observer_keeps_his_connection_until_he_is_removed(watched: Watched, tmp_path: Path) -> None:
    """As Prometheus does; at each request it is asked anew who he is, and with a refusal the connection ends."""
    context = observing(observer_of(watched.state, "keeper", tmp_path / "keeper"))
    wait_for(watched.ports["node"], context, 200)
    with ExitStack() as kept:
        scrapings = [kept.enter_context(Scraping(port, context)) for port in watched.ports.values()]
        for one in scrapings:
            answers = [one.scrape() for _ in range(3)]
            assert [(answer.status, answer.is_kept) for answer in answers] == [(200, True)] * 3
            assert "shardmesh_build_info" in answers[-1].text
        with OwnerClient(watched.state) as owner:
            owner.remove("keeper")
        wait_for(watched.ports["node"], context, 403)
        for one in scrapings:
            refused = one.scrape()
            assert (refused.status, refused.is_kept) == (403, False)
            assert "shardmesh_" not in refused.text
            with pytest.raises(OSError, match=r"(?i)closed|pipe|reset|eof|protocol"):
                one.scrape()


def test_who_keeps_a_connection_is_asked_for_his_token_each_time(watched: Watched) -> None:
    """What one request has shown says nothing of the next one."""
    context = trusting(watched.authority)
    for port in watched.ports.values():
        with Scraping(port, context) as scraping:
            assert [scraping.scrape(TOKEN).status for _ in range(2)] == [200, 200]
            assert scraping.scrape("").status == 401
        for more in ("Connection: close\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"):
            with Scraping(port, context) as scraping:
                assert not scraping.scrape(TOKEN, more).is_kept


def test_each_request_of_a_connection_is_answered_by_its_own_words(watched: Watched) -> None:
    """Whoever asks as he did before is known by that; who asks otherwise is read anew."""
    context = trusting(watched.authority)
    openmetrics = "Accept: application/openmetrics-text;version=1.0.0\r\n"
    for port in watched.ports.values():
        with Scraping(port, context) as scraping:
            texts = [scraping.scrape(TOKEN, more).text for more in ("", "", openmetrics, openmetrics, "")]
            assert [text.endswith("# EOF\n") for text in texts] == [False, False, True, True, False]
            assert not scraping.scrape(TOKEN, "Connection: close\r\n").is_kept


def test_a_connection_that_is_kept_ends_with_the_certificate(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake looks at when it ends, which may have been an hour ago."""
    context = observing(observer_of(watched.state, "ending", tmp_path / "ending"))
    with Scraping(watched.ports["coordinator"], context) as scraping:
        assert scraping.scrape().status == 200
        ended = (datetime.now(timezone.utc) - timedelta(days=1), datetime.now(timezone.utc))
        monkeypatch.setattr(metrics_door, "lifetime_of", lambda certificate: ended)
        refused = scraping.scrape()
        assert (refused.status, "has ended" in refused.text) == (403, True)


def test_connections_that_are_kept_keep_no_other_observer_away(watched: Watched, tmp_path: Path) -> None:
    """Where all places are, whoever has rested longest gives his up; who is told to end does not wait for them."""
    context = observing(observer_of(watched.state, "many", tmp_path / "many"))
    port = watched.ports["coordinator"]
    with ExitStack() as kept:
        for _ in range(MOST_CONNECTIONS + 4):
            assert kept.enter_context(Scraping(port, context)).scrape().is_kept
        assert scrape(port, context).status == 200
