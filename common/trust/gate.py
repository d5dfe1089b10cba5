"""The gate before a gRPC server: who may connect, how many and how fast is decided here, before gRPC hears of anybody.

Covers: a port in front of a server that listens on a private socket; connections of members, and of strangers with a
token. Does not cover: places (common/program/callers.py), the bytes (relay.py), calls (common/wire/call_limits.py).
Threads: those of Callers.

gRPC in Python limits no address, and knows who calls only once a call has a worker. So TLS ends here: who is no member,
or not any more, gets no further than the handshake, and whoever is removed is cut off within his calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import grpc

from common.errors import AddressInUse, NotTrusted
from common.program.callers import Callers
from common.program.places import Caller, Places
from common.trust.behind_gate import Shown, inside
from common.trust.call_pace import CallPace
from common.trust.private_place import PrivatePlace
from common.trust.refusal import refuse_calls
from common.trust.relay import relay
from common.trust.tls_connection import TlsConnection
from common.wire.addresses import host_port, split_host_port
from common.wire.rpc import bind, status_of
from common.wire.tcp_limits import prepare_tcp

TELL_SECONDS = 2.0
"""Who is refused may not call again for so long, and then has to connect again."""


class Door(Protocol):
    """Who may come in; asked by several threads."""

    def let_in(self, caller: Caller) -> tuple[TlsConnection, Shown]:
        """Shake hands, and note in `caller` what has been shown; whether he may come in is another question.

        Raises: PermissionError: in words, why he is not believed; OSError: he has gone, or speaks no TLS.
        """

    def refusal(self, caller: Caller) -> str:
        """Return why somebody may not be here, at the beginning or any more; empty: he may."""

    def most(self, shown: Shown) -> int:
        """Return how many connections he may have; 0: he may not stay longer than a handshake."""


class Gate:
    """Stands before one server. Raises on construction: AddressInUse, InputError."""

    def __init__(
        self, server: grpc.Server, address: str, door: Door, places: Places, *, name: str,
        count: Callable[[str], None] = lambda reason: None, calls: CallPace | None = None,
    ) -> None:  # fmt: skip
        """Have a server be reached at `address` through a door.

        Args: name: of the port; count: as Callers; calls: how fast a peer may open calls; None: as fast as it likes.
        """
        self._door, self._calls = door, calls
        host, port = split_host_port(address)
        self._place = PrivatePlace()
        event = "connection refused"
        try:
            bind(server, f"unix:{self._place.path}")
            self._place.listens()
            self._callers = Callers(
                host, port, places, self._answer, name=name, refused=event,
                failed=f"a connection at the port for {name} failed", count=count,
            )  # fmt: skip
        except OSError as error:
            self._place.close()
            raise AddressInUse(f"cannot listen on {address}: another process has this address, or it is not this "
                               "device's; choose another one") from error  # fmt: skip
        except BaseException:
            self._place.close()
            raise
        self.address = host_port(host, self._callers.port)

    def look_again(self) -> None:
        """End the connections of who is no member any more. From any thread."""
        self._callers.look_again(lambda caller: not self._door.refusal(caller))

    def count(self) -> int:
        """Return how many connections there are."""
        return self._callers.count()

    def take_nobody(self) -> None:
        """Listen no more; who is there may go on."""
        self._callers.take_nobody()

    def close(self) -> None:
        """Listen no more and end all connections; the server has ended already. May be called twice."""
        self._callers.close()
        self._place.close()

    def _answer(self, caller: Caller) -> None:
        prepare_tcp(caller.connection)
        connection, shown = self._door.let_in(caller)
        if why := self._door.refusal(caller):
            self._callers.tell(caller.host, why)
            caller.connection.settimeout(TELL_SECONDS)
            refuse_calls(connection, status_of(NotTrusted(why)))
            return
        if not self._stays(caller, shown):
            return
        with self._place.connection(caller.place) as (inner, name), inside(name, shown):
            inner.connect(self._place.path)
            relay(connection, inner, None if self._calls is None else self._calls.of(caller.who or caller.network))

    def _stays(self, caller: Caller, shown: Shown) -> bool:
        """Let somebody in; tell False if he was cut, or removed, meanwhile."""
        most = self._door.most(shown)
        # Looked at again: he may have been removed in between, when he was not looked for yet.
        return not most or (self._callers.stay(caller, most) and not self._door.refusal(caller))
