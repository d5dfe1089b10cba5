"""A mesh of one node whose metrics are read from elsewhere: coordinator and node in this process, TLS on real sockets.

Does not cover: scrapes themselves (scraping.py).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import join_mesh
from shardnode.run import RunningNode
from tests.support.mesh_members import LIMIT_SECONDS, state_of, token_of
from tests.support.scraping import scrape
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


@contextmanager
def watched_mesh(directory: Path, sliced: SlicedModel) -> Iterator[Watched]:
    """Have a mesh of one node, both with pages for others, which take a token too."""
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
