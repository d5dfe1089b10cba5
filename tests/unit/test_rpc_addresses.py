"""Are addresses read right, and is a listener that other devices could reach refused unless asked for?

Covers: the addresses of common/wire/rpc.py and `--nodes`. Does not cover: errors on the wire (tests/contract).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import pytest

from common.errors import AddressInUse, InputError
from common.wire.addresses import is_loopback, split_host_port
from common.wire.rpc import bind, channel_options, check_listen_address, make_server
from coordinator.ranks.transports.connecting import parse_node_list
from shardnode.config import NodeConfig


def has_ipv6() -> bool:
    """Say whether this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            return True
    except OSError:
        return False


@pytest.fixture
def server() -> Iterator[grpc.Server]:
    """Return a server that listens nowhere yet."""
    made = make_server(1)
    yield made
    made.stop(0).wait()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("pi4.local:65535", ("pi4.local", 65535)),
        ("[::1]:80", ("[::1]", 80)),
        ("[fe80::1%eth0]:80", ("[fe80::1%eth0]", 80)),
    ],
)
def test_host_and_port_are_told_apart(address: str, expected: tuple[str, int]) -> None:
    """The last colon divides; an IPv6 host keeps its brackets."""
    assert split_host_port(address) == expected


@pytest.mark.parametrize(
    "address",
    ["", ":", "host", "host:", ":80", "host:port", "host:-1", "host:65536", "host:8 0", "host:²", "host:٣", "::1:80",
     "fe80::1:80", "[::1:80", "::1]:80",
     "[]:80", "[::1%]:80", "[1.2.3.4]:80", "[kitchen]:80", "a[::1]:80", "[::1]80", "[fe80::1]:80", "[::1]:",
     "[12345::1]:80", "http://host:80", "dns:///host:80", "ipv4:1.2.3.4:80", "host:80:90"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_what_to_write(address: str) -> None:
    """The error repeats what was written and shows the form."""
    with pytest.raises(InputError, match=r"is not an address; write"):
        split_host_port(address)
    with pytest.raises(InputError, match=r"is not an address; write"):
        bind(make_server(1), address)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_these_hosts_are_this_machine(host: str) -> None:
    """All of 127/8, ::1 with and without brackets, and the name localhost."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "[::]", "192.168.1.2", "10.0.0.1", "fe80::1", "pi4.local", "localhost.example.org",
             "127.0.0.1.example.org", "", "128.0.0.1", "1"],
)  # fmt: skip
def test_these_hosts_may_be_reached_by_others(host: str) -> None:
    """The wildcard addresses above all, and names that only look like loopback."""
    assert not is_loopback(host)


@pytest.mark.parametrize("address", ["unix:/run/node.sock", "127.0.0.1:0", "[::1]:50051", "localhost:1"])
def test_listening_on_this_machine_needs_no_leave(address: str) -> None:
    """Unix sockets and loopback work out of the box."""
    check_listen_address(address, insecure=False)


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "192.168.1.2:50051", "pi4.local:50051"])
def test_listening_where_others_reach_us_needs_leave(address: str) -> None:
    """Without TLS and without --insecure such an address is refused, with both ways out named."""
    with pytest.raises(InputError, match=r"127\.0\.0\.1 or unix:/path, or pass --insecure"):
        check_listen_address(address, insecure=False)
    check_listen_address(address, insecure=True)


def test_insecure_does_not_make_nonsense_an_address() -> None:
    """--insecure is leave to listen, not leave to guess."""
    with pytest.raises(InputError):
        check_listen_address("unix-abstract:x", insecure=True)


def test_port_0_becomes_the_port_that_was_given(server: grpc.Server) -> None:
    """The address that is returned can be dialled."""
    host, port = split_host_port(bind(server, "127.0.0.1:0"))
    assert host == "127.0.0.1"
    assert port > 0
    server.start()
    with grpc.insecure_channel(f"{host}:{port}", options=channel_options()) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_an_ipv6_address_stays_in_brackets(server: grpc.Server) -> None:
    """The address that is returned is one that split_host_port reads."""
    host, port = split_host_port(bind(server, "[::1]:0"))
    assert (host, port > 0) == ("[::1]", True)
    server.start()  # only a server that ran lets go of its port when it is stopped


def test_a_port_belongs_to_one_server(server: grpc.Server) -> None:
    """A second listener is refused: with SO_REUSEPORT both would believe that they own the port."""
    address = bind(server, "127.0.0.1:0")
    server.start()
    second = make_server(1)
    with pytest.raises(AddressInUse, match=f"cannot listen on {address}"):
        bind(second, address)
    second.stop(0).wait()


def test_a_port_of_another_program_is_refused(server: grpc.Server) -> None:
    """The same for a plain socket that has the port already."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(AddressInUse):
            bind(server, f"127.0.0.1:{other.getsockname()[1]}")


def test_nodes_are_a_list_of_addresses() -> None:
    """Spaces and empty entries do not matter, the order does."""
    assert parse_node_list("127.0.0.1:2, unix:/b ,,127.0.0.1:1", insecure=False) == [
        "127.0.0.1:2", "unix:/b", "127.0.0.1:1",
    ]  # fmt: skip
    assert parse_node_list("pi:1", insecure=True) == ["pi:1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no address"), (" , ", "no address"), ("127.0.0.1:1,127.0.0.1:1", "twice"), ("pi:1", "--insecure"),
     ("127.0.0.1", "not an address")],
)  # fmt: skip
def test_a_node_list_that_cannot_be_is_refused(text: str, words: str) -> None:
    """Nothing, something twice, another device without leave, no address."""
    with pytest.raises(InputError, match=words):
        parse_node_list(text, insecure=False)


@pytest.mark.parametrize("option", ["advertise", "coordinator"])
def test_a_node_is_told_at_once_that_an_address_of_its_mesh_is_none(option: str) -> None:
    """Not by heartbeats that nobody hears, for ever; a config file may say `coordinator = true`."""
    with pytest.raises(InputError, match="'True' is not an address"):
        NodeConfig(**{"slice_directory": None, "listen": "127.0.0.1:0", "coordinator": "x:1", option: "True"})  # type: ignore[arg-type] # one kind of values
