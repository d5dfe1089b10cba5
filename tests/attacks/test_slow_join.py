"""Does an address that answers slowly keep a device from joining at the next one?

Covers: the first address of a token dripping a byte at a time, and passing a coordinator's words on but no answer.
Does not cover: addresses where nobody listens (tests/contract/test_mesh_trust.py).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import NodeLost
from common.trust.join_token import parse_token
from common.trust.tls import read_authority
from common.wire.addresses import host_port
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from shardnode.membership import join
from tests.support.free_ports import free_place
from tests.support.mesh_members import token_of

PAUSE_SECONDS = 0.05


@contextmanager
def dripping() -> Iterator[str]:
    """Yield an address where whoever comes gets the beginning of a long record of TLS, a byte at a time."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                record = b"\x16\x03\x03\x40\x00" + bytes(0x4000)
                for byte in record:
                    if over.wait(PAUSE_SECONDS):
                        return
                    try:
                        connection.sendall(bytes([byte]))
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield host_port("127.0.0.1", listener.getsockname()[1])
        over.set()
        thread.join(5.0)


def test_an_address_that_drips_ends_with_its_limit_however_many_bytes_come() -> None:
    """A limit for each byte would never end."""
    with dripping() as address:
        began = time.monotonic()
        with pytest.raises(NodeLost, match="no answer in time"):
            read_authority(address, bytes(32), limit_seconds=0.5)
    assert time.monotonic() - began < 2.0


def test_a_device_joins_at_the_next_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One limit holds for all addresses, and each has its share."""
    monkeypatch.setattr(join, "CONNECT_SECONDS", 0.5)
    init_mesh(tmp_path / "state", "home")
    coordinator = Coordinator(tmp_path / "state", free_place())
    try:
        token = parse_token(token_of(tmp_path / "state"))
        with dripping() as first:
            both = type(token)(
                addresses=(first, *token.addresses), authority_fingerprint=token.authority_fingerprint,
                secret=token.secret,
            )  # fmt: skip
            made = join.join_mesh(both.text, "kitchen", tmp_path / "data", "127.0.0.1:0")
        assert (made.mesh, made.name) == ("home", "kitchen")
    finally:
        coordinator.close()
