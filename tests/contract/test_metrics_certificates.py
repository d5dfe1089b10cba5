"""Do pages for others go on when certificates change: renewed ones, and those that earlier builds have made?

Covers: the coordinator's and a node's. Does not cover: who reads (test_metrics_access.py), renewal as such
(test_mesh_trust.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.trust.certificates import has_metrics_name, to_pem
from common.trust.identity import Identity, load_identity
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import IDENTITY_DIRECTORY, join_mesh
from shardnode.run import RunningNode
from tests.support.free_ports import free_place
from tests.support.mesh_members import LIMIT_SECONDS, token_of
from tests.support.scraping import observer_of, observing, scrape
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until
from tests.support.watched_mesh import EVERYWHERE, Watched, status_of, wait_for, watched_mesh


@pytest.fixture
def watched(tmp_path: Path, sliced: SlicedModel) -> Iterator[Watched]:
    """Return a mesh of one node, both with pages for others."""
    with watched_mesh(tmp_path, sliced) as made:
        yield made


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
        earlier.setattr("common.trust.signing.METRICS_NAME", "nobody.asks.shardmesh")
        earlier.setattr("coordinator.membership.state.has_metrics_name", lambda certificate: True)
        init_mesh(tmp_path / "state", "home")
        coordinator = Coordinator(tmp_path / "state", free_place())
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
