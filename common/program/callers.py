"""How does a port stay there for who may use it, whatever others do to it?

Covers: a bounded number of connections and threads, a limit to how long somebody may take to be let in, whose place is
taken where none is left; who stays between two requests. Does not cover: what is answered (page_server.py,
shardnode/listeners/frames.py), TLS and who may come in (common/trust).
Threads: one that accepts, one for each connection.

Who is not let in yet has a few seconds, handshake included, so one that is idle or slow holds its place no longer.
Where all places are taken, whoever has the most connections loses the oldest of them that is not yet let in: thousands
of them from one host keep no other host away, and of IPv6 neither do those from one network. Where all are let in, the
one goes that has rested longest.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from common.program.logs import entry

BACKLOG = 256
PAUSE_SECONDS = 0.1
END_SECONDS = 2.0
TELL_SECONDS = 60.0
EVERYWHERE = ("0.0.0.0", "::")
MAPPED = "::ffff:"
"""Before a number of IPv4 that calls a socket of both kinds."""
NETWORK_BITS = 64
"""Of an address of IPv6 those that a device cannot choose; RFC 4291, 2.5.1."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Caller:
    """One connection."""

    host: str
    deadline: float
    """Until when it may be there (time.monotonic), let in or not."""
    connection: socket.socket
    is_let_in: bool = False
    is_resting: bool = False
    """Whether it is let in and asks nothing now."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """How many may be there, and for how long."""

    connections: int
    threads: int
    """Those of connections that have just lost their place among them."""
    seconds: float
    """From being accepted to the end, or to being let in for good (`Callers.stay`)."""
    close_seconds: float = 2.0
    """How long who is let in may go on once the port closes."""


class Callers:
    """The connections of one address. Raises on construction: OSError."""

    def __init__(
        self, host: str, port: int, places: Places, answer: Callable[[Caller], None], *, name: str, refused: str,
        failed: str,
    ) -> None:  # fmt: skip
        """Listen.

        Args: answer: called for each connection in a thread of its own; it returns when that is to be closed, and may
        raise PermissionError, in words, for who is not believed; name: of the threads; refused, failed: what
        the log says of that, and of what else goes wrong.
        """
        self._places, self._answer, self._name = places, answer, name
        self._refused, self._failed = refused, failed
        self._callers: set[Caller] = set()
        self._thread_count = 0
        self._lock = threading.Condition()
        self._told_at = -TELL_SECONDS
        self._listener = listening_socket(host, port)
        self.port = int(self._listener.getsockname()[1])
        self._ending, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more and end all connections. May be called twice."""
        self._end.close()
        self._thread.join()
        with self._lock:
            self._cut([caller for caller in self._callers if caller.is_resting or not caller.is_let_in])
            self._lock.wait_for(lambda: not self._thread_count, self._places.close_seconds)
            self._cut(list(self._callers))
            self._lock.wait_for(lambda: not self._thread_count, END_SECONDS)

    def replace(self, caller: Caller, made: Callable[[socket.socket], socket.socket]) -> bool:
        """Put what is made of a connection in its place; tell False if it was cut meanwhile.

        Who cuts a connection has to find it, during the handshake above all.
        """
        with self._lock:
            if caller not in self._callers:
                return False
            caller.connection = made(caller.connection)
            return True

    def stay(self, caller: Caller) -> None:
        """Let somebody in for as long as he likes."""
        with self._lock:
            caller.is_let_in, caller.deadline = True, float("inf")

    def rest(self, caller: Caller, seconds: float) -> bool:
        """Let somebody who is let in wait so long for what he asks next; tell False if he was cut meanwhile."""
        with self._lock:
            caller.is_resting, caller.deadline = True, time.monotonic() + seconds
            caller.connection.settimeout(seconds)
            return caller in self._callers

    def ask(self, caller: Caller) -> bool:
        """Note that he asks, which may take as long as the first time; tell False if he was cut meanwhile."""
        with self._lock:
            caller.is_resting, caller.deadline = False, time.monotonic() + self._places.seconds
            caller.connection.settimeout(self._places.seconds)
            return caller in self._callers

    def tell(self, caller: Caller, why: str) -> None:
        """Log why somebody is refused, not each time that he asks again."""
        if (now := time.monotonic()) - self._told_at >= TELL_SECONDS:
            self._told_at = now
            log.warning("%s", entry(self._refused, caller=caller.host, error=why))

    def _accept(self) -> None:
        """Take callers, and cut those whose time is over; sleep while there are none."""
        with self._listener, self._ending, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ending, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(self._cut_late())]
                if self._ending in ready:
                    return
                if ready:
                    self._accept_one()

    def _accept_one(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError as error:  # he has gone already; or there is no descriptor left just now, and he waits
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(PAUSE_SECONDS)
            return
        self._take(connection, str(address[0]).removeprefix(MAPPED))

    def _cut_late(self) -> float | None:
        """Cut whose time is over, and return in how many seconds the next one's is; None: nobody's ends."""
        with self._lock:
            now = time.monotonic()
            self._cut([caller for caller in self._callers if caller.deadline <= now])
            deadlines = [caller.deadline for caller in self._callers if caller.deadline != float("inf")]
            return min(deadlines) - now if deadlines else None

    def _take(self, connection: socket.socket, host: str) -> None:
        """Give a connection a place and a thread, or close it."""
        places = self._places
        connection.settimeout(places.seconds)
        caller = Caller(host=host, deadline=time.monotonic() + places.seconds, connection=connection)
        with self._lock:
            if len(self._callers) >= places.connections:
                self._make_room()
            if len(self._callers) >= places.connections or self._thread_count >= places.threads:
                connection.close()
                return
            self._callers.add(caller)
            self._thread_count += 1
        threading.Thread(target=self._serve, args=(caller,), name=f"{self._name} caller", daemon=True).start()

    def _make_room(self) -> None:
        """Cut the oldest connection that is not let in, of the host that has the most of these; else who rests longest.

        Networks come before hosts: of IPv6 one device has as many addresses as it likes.
        """
        waiting = [caller for caller in self._callers if not caller.is_let_in]
        resting = [caller for caller in self._callers if caller.is_resting]
        hosts = Counter(caller.host for caller in waiting)
        networks = Counter(network_of(caller.host) for caller in waiting)
        if waiting:
            self._cut([min(
                waiting,
                key=lambda caller: (-networks[network_of(caller.host)], -hosts[caller.host], caller.deadline),
            )])  # fmt: skip
        elif resting:
            self._cut([min(resting, key=lambda caller: caller.deadline)])

    def _cut(self, callers: list[Caller]) -> None:
        """Take their places from some; their threads end, since nothing comes or goes any more."""
        for caller in callers:
            self._callers.discard(caller)
            with suppress(OSError):  # of a TLS connection too: this is the socket's own, and known to the kernel alone
                socket.socket.shutdown(caller.connection, socket.SHUT_RDWR)

    def _serve(self, caller: Caller) -> None:
        try:
            self._answer(caller)
        except PermissionError as error:
            self.tell(caller, str(error))
        except OSError:  # who breaks off, is too slow, or speaks no TLS, has no answer
            pass
        except Exception as error:  # the thread's edge: one that cannot be answered is no reason to end
            log.error("%s", entry(self._failed, caller=caller.host), exc_info=error)
        finally:
            with suppress(OSError):
                caller.connection.close()
            with self._lock:
                self._callers.discard(caller)
                self._thread_count -= 1
                self._lock.notify_all()


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens without blocking; for `::` and 0.0.0.0 on all addresses of both kinds, as gRPC's do.

    Raises: OSError.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if address[0] in EVERYWHERE and socket.has_dualstack_ipv6():
        listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    else:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)  # all of it: of IPv6 it has a link
    listener.setblocking(False)
    return listener


def network_of(host: str) -> str:
    """Return the network of a number of IPv6, and of any other host itself."""
    try:
        number = int(ipaddress.IPv6Address(host.partition("%")[0]))
    except ValueError:
        return host
    return str(ipaddress.IPv6Address(number >> NETWORK_BITS << NETWORK_BITS))
