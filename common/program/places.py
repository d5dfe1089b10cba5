"""What is a connection at a port, how many may be there, and under which name is its host counted?

Covers: what is known of a connection, limits. Does not cover: whose place goes (seats.py), whose turn it is to be
looked at (turns.py), connections themselves (callers.py).
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from dataclasses import dataclass

from common.program.pace import MOST_NAMES

NETWORK_BITS = 64
"""Of an address of IPv6 those that a device cannot choose; RFC 4291, 2.5.1."""


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
    who: str = ""
    """What he has shown to be called, if he has; his connections are counted under it."""
    serial: str = ""
    """Of the certificate that he has shown, if he has."""
    certified_at: float = 0.0
    """When that was made, seconds since 1970 by the clock of who made it."""
    place: int = 0
    """Which one it was to come, counted from the first."""
    counted_as: str = ""
    """Under what the processor time is counted that it takes until it is let in, from when it has sent something on."""

    def __post_init__(self) -> None:
        self.network = network_of(self.host)


@dataclass(frozen=True, kw_only=True)
class Places:
    """How many may be there, and for how long."""

    connections: int
    waiting: int = 0
    """How many of those may be there that have sent nothing yet; half as many that have, and are not let in; 0: all."""
    threads: int
    """Those of connections that have just lost their place among them."""
    seconds: float
    """From being accepted to the end, or to being let in for good (`Callers.stay`)."""
    close_seconds: float = 2.0
    """How long who is let in may go on once the port closes."""
    at_once: int = 0
    """How many connections one network may open in a moment, this machine's own apart; 0: as many as it likes."""
    a_second: float = 0.0
    """How many more of those it may open with each second."""
    in_vain_seconds: float = 0.0
    """Processor time that connections of one network may take at once and not be let in, or have others of their peer
    sent away; 0: any. Who comes beyond it waits for his turn."""
    in_vain_a_second: float = 0.0
    """How much more of it with each second."""
    set_aside_seconds: float = 0.003
    """What one of those is taken to cost until that is known; about a handshake and its refusal."""


@functools.lru_cache(MOST_NAMES)
def is_here(host: str) -> bool:
    """Tell whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


@functools.lru_cache(MOST_NAMES)
def network_of(host: str) -> str:
    """Return the network of a number of IPv6, and of any other host itself."""
    try:
        number = int(ipaddress.IPv6Address(host.partition("%")[0]))
    except ValueError:
        return host
    return str(ipaddress.IPv6Address(number >> NETWORK_BITS << NETWORK_BITS))
