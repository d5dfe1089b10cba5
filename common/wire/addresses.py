"""What is an address, who reaches it, and how do sockets and gRPC want it written?

    split_host_port("[fe80::1%eth0]:50051")     # "[fe80::1%eth0]", 50051
    socket_address("[fe80::1%eth0]:50051")      # "fe80::1%eth0", 50051
    grpc_address("[fe80::1%eth0]:50051")        # "[fe80::1%25eth0]:50051"

A number of IPv6 stands in brackets wherever a port may follow. One that begins with fe80 means something on one link
alone, so a zone says on which: the name of an interface of the device that uses it, which is another one on the peer.
Covers: reading, checking and writing addresses, also those that gRPC says calls came from.
Does not cover: listening and connecting (rpc.py, common/program/callers.py), which addresses this machine has.
Source: RFC 4007 (zones), RFC 3986 (percent signs, which gRPC decodes).
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from urllib.parse import unquote

from common.errors import InputError

EVERYWHERE = ("0.0.0.0", "::", "[::]")
"""Hosts by which a program listens on all addresses of a machine, of IPv4 and of IPv6."""
MAX_PORT = 65535
METADATA = ("169.254.169.254", "fd00:ec2::254")
"""Where clouds tell a machine its secrets, by requests that come from that machine."""


def split_host_port(address: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`; the host keeps its brackets.

    Raises: InputError: it is something else, or an address of one link without its zone.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not (port.isascii() and port.isdecimal()) or int(port) > MAX_PORT:
        raise InputError(f"'{address}' is not an address; write host:port or unix:/path")
    if ":" in host or "[" in host or "]" in host:
        number = _number(host) if host.startswith("[") and host.endswith("]") else None
        if number is None or number.version != 6:
            raise InputError(f"'{address}' is not an address; write an IPv6 host in brackets, [::1]:50051")
        if number.is_link_local and not zone_of(host):
            raise InputError(f"'{address}' is not an address; write of which link {bare(host)} is, by the name of this "
                             f"device's interface, [{bare(host)}%eth0]:{port}")  # fmt: skip
    return host, int(port)


def host_port(host: str, port: int) -> str:
    """Return a host and a port as one text; a number of IPv6 gets brackets unless it has them."""
    is_bare = ":" in host and not host.startswith("[")
    return f"[{host}]:{port}" if is_bare else f"{host}:{port}"


def bare(host: str) -> str:
    """Return a host without brackets."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def socket_address(address: str) -> tuple[str, int]:
    """Return what sockets take for `host:port`. Raises: InputError: not an address, or of a link that is not here."""
    host, port = split_host_port(address)
    _check_zone(host)
    return bare(host), port


def grpc_address(address: str) -> str:
    """Return what gRPC takes for an address. Raises: InputError: not an address, or of a link that is not here."""
    if address.startswith("unix:"):
        return address
    _check_zone(split_host_port(address)[0])
    return address.replace("%", "%25")


def host_of_caller(caller: str) -> str:
    """Return the host that a peer calls from, in brackets if it is a number of IPv6; empty for a Unix socket.

    Args: caller: as gRPC names the peer, such as ipv4:10.0.0.2:4711 or ipv6:%5Bfe80::1%254%5D:4711.
    """
    return with_link_named(unquote(caller.partition(":")[2].rpartition(":")[0]))


def with_link_named(host: str) -> str:
    """Return a host with its zone by name, which lasts longer than the number that systems tell."""
    zone = zone_of(host)
    with suppress(OSError, OverflowError, ValueError):  # it has none, it has a name already, or the interface has gone
        return host.replace(f"%{zone}", f"%{socket.if_indextoname(int(zone))}")
    return host


def is_loopback(host: str) -> bool:
    """Tell whether `host` names this machine only."""
    number = _number(host)
    return host == "localhost" or (number is not None and number.is_loopback)


def is_number(host: str) -> bool:
    """Tell whether `host` is a number, of IPv4 or IPv6, and no name."""
    return _number(host) is not None


def is_link_local(host: str) -> bool:
    """Tell whether `host` is a number of IPv6 that means something on one link alone."""
    number = _number(host)
    return number is not None and number.version == 6 and number.is_link_local


def why_no_peer(host: str) -> str:
    """Return why no other device is reached at `host`, as in "a group's address"; empty: one may be.

    A name is looked up by whoever connects; a number in another writing is none. Loopback is no matter here.
    """
    number = _number(without_zone(host))
    if number is None:
        last = host.rstrip(".").rpartition(".")[2].lower()
        return "a number as nobody writes it" if last.isdecimal() or last.startswith("0x") else ""
    if number.version == 6 and number.ipv4_mapped is not None:
        return why_no_peer(str(number.ipv4_mapped)) or "an address of IPv4 as nobody writes it"
    if str(number) in METADATA:
        return "where clouds keep a machine's secrets"
    if number.is_multicast:
        return "a group's address"
    if number.is_unspecified or (number.version == 4 and number.is_reserved) or str(number).startswith("0."):
        return "nobody's address"
    return ""


def is_ipv4_link_local(host: str) -> bool:
    """Tell whether `host` is a number that a device of IPv4 gives itself where nobody else gives it one."""
    number = _number(host)
    return number is not None and number.version == 4 and number.is_link_local


def zone_of(host: str) -> str:
    """Return the zone of a number of IPv6, such as eth0; empty: it has none."""
    return bare(host).partition("%")[2]


def without_zone(host: str) -> str:
    """Return a host as other devices may know it: without brackets and zone."""
    return bare(host).partition("%")[0]


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(bare(host))
    except ValueError:
        return None


def _check_zone(host: str) -> None:
    zone = zone_of(host)
    if not zone:
        return
    try:
        if zone.isascii() and zone.isdecimal():
            socket.if_indextoname(int(zone))
        else:
            socket.if_nametoindex(zone)
    except (OSError, OverflowError, ValueError) as error:
        there = ", ".join(name for _, name in socket.if_nameindex())
        raise InputError(f"{host} is of a link that this device does not have: there is no interface {zone}; there "
                         f"are: {there}") from error  # fmt: skip
