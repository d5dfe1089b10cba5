"""Are addresses of IPv6 written as each reader of them wants it, and is a link's name never another device's?

Covers: zones, what sockets and gRPC take, where calls come from, where a node is reached, hosts of one network.
Does not cover: what is an address at all, and leave to listen (test_rpc_addresses.py), Prometheus' targets
(test_scrape_targets.py).
"""

from __future__ import annotations

import socket

import pytest

from common.errors import InputError, NodeLost
from common.program.listening import listening_socket
from common.program.places import network_of
from common.wire.addresses import (
    grpc_address,
    host_of_caller,
    host_port,
    is_link_local,
    is_number,
    socket_address,
    split_host_port,
)
from coordinator.membership.metrics_url import metrics_url
from coordinator.membership.node_address import node_address
from coordinator.membership.reach import MeshAccess
from coordinator.ranks.transports.arrivals import Arrivals
from coordinator.ranks.transports.framed_tcp import connect_framed
from protos.shardmesh.v1 import mesh_pb2
from tests.support.mesh_identities import MeshIdentities

INDEX, LOOPBACK = next((number, name) for number, name in socket.if_nameindex() if name.startswith("lo"))
KITCHEN = f"ipv6:%5Bfe80::7%25{INDEX}%5D:4711"
"""As gRPC names a caller on a link: percent-encoded, and the link by its number here."""


def test_sockets_have_no_brackets_and_grpc_has_its_percent_signs_encoded() -> None:
    """Else gRPC reads what follows one as a number: %eb0 and %12 are one letter each."""
    assert socket_address("[::1]:80") == ("::1", 80)
    assert socket_address(f"[fe80::1%{LOOPBACK}]:80") == (f"fe80::1%{LOOPBACK}", 80)
    assert socket_address("pi4.local:80") == ("pi4.local", 80)
    assert grpc_address(f"[fe80::1%{LOOPBACK}]:80") == f"[fe80::1%25{LOOPBACK}]:80"
    assert grpc_address(f"[fe80::1%{INDEX}]:80") == f"[fe80::1%25{INDEX}]:80"
    assert grpc_address("unix:/run/100%.sock") == "unix:/run/100%.sock"


@pytest.mark.parametrize("zone", ["nothere9", "4000000", "99999999999999999999"])
def test_a_link_that_this_device_does_not_have_is_named_beside_those_that_it_has(zone: str) -> None:
    """By whoever would use the address, not by whoever is told of it."""
    address = f"[fe80::1%{zone}]:80"
    for use in (socket_address, grpc_address):
        with pytest.raises(InputError, match=rf"there is no interface {zone}; there are: .*{LOOPBACK}"):
            use(address)
    assert split_host_port(address) == (f"[fe80::1%{zone}]", 80)


def test_an_address_of_a_link_without_its_name_is_refused_with_what_to_write() -> None:
    """No system connects to it."""
    with pytest.raises(InputError, match=r"of which link fe80::1 is, .*\[fe80::1%eth0\]:80"):
        split_host_port("[fe80::1]:80")


@pytest.mark.parametrize(
    ("caller", "host"),
    [
        ("ipv4:10.0.0.2:4711", "10.0.0.2"),
        ("ipv6:%5B2001:db8::7%5D:4711", "[2001:db8::7]"),
        (KITCHEN, f"[fe80::7%{LOOPBACK}]"),
        ("ipv6:%5Bfe80::7%254000000%5D:4711", "[fe80::7%4000000]"),
        ("ipv6:%5Bfe80::7%25wlan0%5D:4711", "[fe80::7%wlan0]"),
        ("unix:", ""),
    ],
)
def test_where_a_call_comes_from_is_read_as_people_write_it(caller: str, host: str) -> None:
    """A link by its name, which stays when numbers change."""
    assert host_of_caller(caller) == host


def test_a_host_gets_brackets_where_a_port_would_be_part_of_it() -> None:
    """--master-ip and --advertise take a host with or without."""
    assert [host_port(host, 80) for host in ("::", "[::]", "10.0.0.1", "desk", "fe80::1%eth0")] == [
        "[::]:80", "[::]:80", "10.0.0.1:80", "desk:80", "[fe80::1%eth0]:80",
    ]  # fmt: skip
    with pytest.raises(InputError, match="in brackets"):
        split_host_port(host_port("desk:29500", 29501))


def test_numbers_and_those_of_one_link_are_known() -> None:
    """169.254 has no zone, and sockets do without one."""
    assert [is_number(host) for host in ("::1", "[fd00::1]", "10.0.0.1", "desk", "fd00.local")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert [is_link_local(host) for host in ("fe80::1%eth0", "[febf::1]", "169.254.1.1", "fd00::1", "fe80.local")] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("listen", "caller", "address"),
    [
        ("10.0.0.2:50051", "ipv4:10.0.0.9:4711", "10.0.0.2:50051"),
        ("[fd00::2]:50051", "ipv4:10.0.0.9:4711", "[fd00::2]:50051"),
        ("0.0.0.0:50051", "ipv6:%5Bfd00::2%5D:4711", "[fd00::2]:50051"),
        ("[::]:50051", "ipv4:10.0.0.2:4711", "10.0.0.2:50051"),
        (":50051", "ipv6:%5B::1%5D:4711", "[::1]:50051"),
        ("0.0.0.0:50051", KITCHEN, f"[fe80::7%{LOOPBACK}]:50051"),
        ("[fe80::7%wlan0]:50051", KITCHEN, f"[fe80::7%{LOOPBACK}]:50051"),
    ],
)
def test_a_node_is_reached_where_it_says_or_where_it_calls_from(listen: str, caller: str, address: str) -> None:
    """What it calls its link is never believed to be a link of this machine."""
    assert node_address(listen, caller) == address


@pytest.mark.parametrize("caller", ["ipv6:%5Bfd00::2%5D:4711", "ipv4:10.0.0.2:4711", KITCHEN.replace("::7", "::8")])
def test_a_node_on_a_link_that_nobody_can_tell_is_told_what_to_do(caller: str) -> None:
    """Its log says it: the mesh does not hear this node."""
    with pytest.raises(InputError, match=r"one link alone.*listen on 0\.0\.0\.0:50051, or give it --advertise"):
        node_address("[fe80::7%eth0]:50051", caller)


def test_a_node_whose_link_has_gone_is_lost_and_no_mistake_of_who_asks() -> None:
    """It was heard there; in frames and over gRPC."""
    node = mesh_pb2.Node(name="kitchen", address="[fe80::7%nothere9]:50051", silent_seconds=0.5)
    mesh = MeshAccess(mesh_name="home", identity=MeshIdentities().coordinator, nodes=lambda: [node])
    with pytest.raises(NodeLost, match=r"kitchen is not reachable: .*no interface nothere9"):
        mesh.channel("kitchen")
    with pytest.raises(NodeLost, match=r"kitchen takes no rounds: .*no interface nothere9"):
        connect_framed(node.address, "kitchen", Arrivals(), None)


@pytest.mark.parametrize("listen", ["", "kitchen", "[::1]", "[fe80::7]:1", "a\nb:1", "x" * 101 + ":1", "http://x:1"])
def test_a_node_that_says_nonsense_is_refused(listen: str) -> None:
    """In one line."""
    with pytest.raises(InputError):
        node_address(listen, "ipv4:10.0.0.2:4711")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "[fd00:ec2::254]", "169.254.7.7", "224.0.0.251", "[ff02::fb]", "255.255.255.255", "0.0.0.1",
        "127.0.0.1", "localhost", "[::1]", "[::ffff:169.254.169.254]", "[::ffff:127.0.0.1]", "2130706433", "127.1",
        "0x7f000001", "10.0.0.0x2",
    ],
)  # fmt: skip
def test_a_node_cannot_send_this_machine_where_no_node_is(host: str) -> None:
    """Neither for rounds nor for metrics: to a cloud's secrets, to this machine's own services, to a group."""
    with pytest.raises(InputError, match=r"which is .*listen on 0\.0\.0\.0"):
        node_address(f"{host}:50051", "ipv4:10.0.0.2:4711")
    if host not in {"127.0.0.1", "localhost", "[::1]"}:  # of a page on its loopback nobody is told
        with pytest.raises(InputError, match="which is"):
            metrics_url(f"https://{host}:9400", "ipv4:10.0.0.2:4711")


def test_a_node_on_this_machine_or_on_a_cable_is_where_it_says() -> None:
    """Loopback is this machine's own for who calls from it; two devices without anybody else number themselves."""
    assert node_address("127.0.0.1:50051", "ipv4:127.0.0.1:4711") == "127.0.0.1:50051"
    assert node_address("169.254.7.7:50051", "ipv4:169.254.7.7:4711") == "169.254.7.7:50051"


def test_addresses_that_one_device_can_give_itself_are_one_network() -> None:
    """64 bits of IPv6, and each number of IPv4."""
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") == "2001:db8::"
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth0")
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert [network_of(host) for host in ("10.0.0.1", "10.0.0.2")] == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_everywhere_is_everywhere(host: str) -> None:
    """For our own ports as for gRPC's: on addresses of both kinds, as far as this machine has them."""
    with listening_socket(host, 0) as listener:
        port = listener.getsockname()[1]
        for number in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
            socket.create_connection((number, port), 5.0).close()
