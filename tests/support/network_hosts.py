"""Several hosts on one machine: network namespaces with links of limited rate, and memory groups of their own.

    with NetworkHosts(["desk", "kitchen"]) as hosts:
        shell.start("shardnode", ..., inside=hosts.inside("kitchen"))
        hosts.cut("kitchen"), hosts.mend("kitchen")

Covers: addresses (of IPv4, of IPv6 alone, or of IPv6 that mean something on one link alone), rate (tbf on both ends),
links that are cut or swallow packets, bytes that have passed, memory groups of version 1, processes of ours that move
to a host (`enter_network`).
Does not cover: delay, which this kernel has no queue for (delay_relay.py).
Everything lies in namespaces of our own; nothing of the machine's own network is touched, and all is removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

Kind = Literal["ipv4", "ipv6", "link"]
CLONE_NEWNET = 0x40000000
GROUPS = Path("/sys/fs/cgroup/memory")
TOOLS = ("ip", "tc", "bridge", "nsenter")
RATE_MBIT = 100


def why_not() -> str:
    """Return why there can be no such hosts here; empty when there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed (iproute2, util-linux)"
    probe = f"smp{uuid.uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return "this machine lets nobody make network namespaces"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return ""


def enter_network(path: str) -> None:
    """Move this thread to a host's network, and what it starts from now on. Raises: OSError."""
    with open(path) as there:
        _enter(there.fileno())


@contextlib.contextmanager
def _thread_in(path: str) -> Iterator[None]:
    """Have this thread in another network for a while."""
    with open("/proc/thread-self/ns/net") as own:
        enter_network(path)
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the host's network")


class NetworkHosts:
    """Hosts on one switch. Close it."""

    def __init__(
        self, names: Sequence[str], *, rate_mbit: float = RATE_MBIT, memory_bytes: int | None = None,
        kind: Kind = "ipv4",
    ) -> None:  # fmt: skip
        """Args: memory_bytes: limit of each host's memory group; None: no groups; kind: of the addresses that hosts
        have; with `link` each host calls the link otherwise.
        """
        self._mark, self._kind = f"sm{uuid.uuid4().hex[:6]}", kind
        self._names = list(names)
        self._has_groups = memory_bytes is not None
        try:
            self._make_hub()
            for name in names:
                self._make_host(name, rate_mbit)
                if memory_bytes is not None:
                    self._make_group(name, memory_bytes)
        except BaseException:
            self.close()
            raise

    def address(self, name: str) -> str:
        """Return a host's address, as a port may follow it; on one link: as that host itself writes it."""
        number = self._names.index(name) + 1
        return {
            "ipv4": f"10.77.0.{number}",
            "ipv6": f"[fd77::{number}]",
            "link": f"[fe80::77:{number}%{self.device(name)}]",
        }[self._kind]

    def device(self, name: str) -> str:
        """Return what a host calls its link."""
        return f"eth{self._names.index(name) if self._kind == 'link' else 0}"

    def inside(self, name: str) -> list[str]:
        """Return what goes before a command so that it runs on a host, and in its memory group."""
        enter = ["nsenter", f"--net=/run/netns/{self._space(name)}", "--"]
        if not self._has_groups:
            return enter
        return ["sh", "-c", f'echo $$ > {self._group(name)}/cgroup.procs && exec "$@"', "sh", *enter]

    def connect(self, name: str, port: int, limit_seconds: float, host: str = "127.0.0.1") -> socket.socket:
        """Return a connection from a host to a port, of its own unless one is named. Raises: OSError: nobody takes it.

        Args: host: in brackets if it is a number of IPv6.
        """
        with _thread_in(self.network(name)):
            return socket.create_connection((host.strip("[]"), port), limit_seconds)

    @contextlib.contextmanager
    def taken(self, name: str, port: int) -> Iterator[None]:
        """Have somebody listen on a host's port. Raises: OSError: somebody does."""
        with open("/proc/thread-self/ns/net") as own:
            enter_network(self.network(name))
            try:
                listener = socket.create_server(("", port))
            finally:
                _enter(own.fileno())
        with listener:
            yield

    def add_address(self, name: str, address: str) -> None:
        """Give a host one more address, such as 10.78.0.1/24."""
        _run("ip", "-n", self._space(name), "address", "add", address, "dev", self.device(name))

    def drop_address(self, name: str, address: str) -> None:
        """Take such an address from a host; whoever listens there is not told."""
        _run("ip", "-n", self._space(name), "address", "delete", address, "dev", self.device(name))

    def set_rate(self, name: str, rate_mbit: float, *, burst: str = "", latency: str = "100ms") -> None:
        """Limit a host's link, each way, to another rate.

        Args: burst: what it takes at once, as tc says it, such as 32kb; empty: 5 ms of its rate; latency: how long a
        packet waits at most.
        """
        burst = burst or str(max(3200, int(rate_mbit * 1e6 / 8 / 200)))
        limit = ["root", "tbf", "rate", f"{rate_mbit}mbit", "burst", burst, "latency", latency]
        _run("ip", "netns", "exec", self._space(name), "tc", "qdisc", "replace", "dev", self.device(name), *limit)
        _run("ip", "netns", "exec", self._hub, "tc", "qdisc", "replace", "dev", self._port(name), *limit)

    def cut(self, name: str) -> None:
        """Pull a host's cable: its link is down."""
        _run("ip", "netns", "exec", self._hub, "ip", "link", "set", self._port(name), "down")

    def mend(self, name: str) -> None:
        """Put the cable back."""
        _run("ip", "netns", "exec", self._hub, "ip", "link", "set", self._port(name), "up")

    def partition(self, name: str) -> None:
        """Have the switch swallow a host's packets; the host sees a link that is up."""
        _run("ip", "netns", "exec", self._hub, "bridge", "link", "set", "dev", self._port(name), "state", "0")

    def heal(self, name: str) -> None:
        """Have the switch forward again."""
        _run("ip", "netns", "exec", self._hub, "bridge", "link", "set", "dev", self._port(name), "state", "3")

    def bytes_to(self, name: str) -> int:
        """Return how many bytes have gone to a host so far, frames included."""
        return self._counted(name)[8]  # what its port has sent

    def bytes_from(self, name: str) -> int:
        """Return how many bytes have come from a host so far, frames included."""
        return self._counted(name)[0]

    def network(self, name: str) -> str:
        """Return the path of a host's network, for `enter_network`."""
        return f"/run/netns/{self._space(name)}"

    def peak_memory_bytes(self, name: str) -> int:
        """Return the most that everything on a host has taken, page cache included."""
        return int((self._group(name) / "memory.max_usage_in_bytes").read_text())

    def close(self) -> None:
        """Remove everything; programs must have ended."""
        for name in [*self._names, ""]:
            space = self._space(name) if name else self._hub
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)
            if name and self._has_groups:
                with contextlib.suppress(OSError):
                    self._group(name).rmdir()

    def left(self) -> list[str]:
        """Name what is left of these hosts on this machine."""
        spaces = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line.startswith(self._mark)]
        groups = [str(path) for path in GROUPS.glob(f"{self._mark}*")]
        links = [line for line in _run("ip", "-o", "link").splitlines() if self._mark in line]
        return [*spaces, *groups, *links]

    def _make_hub(self) -> None:
        _run("ip", "netns", "add", self._hub)
        _run("ip", "netns", "exec", self._hub, "ip", "link", "add", "br0", "type", "bridge")
        _run("ip", "netns", "exec", self._hub, "ip", "link", "set", "br0", "up")

    def _make_host(self, name: str, rate_mbit: float) -> None:
        space, port, device = self._space(name), self._port(name), self.device(name)
        _run("ip", "netns", "add", space)
        _run("ip", "-n", self._hub, "link", "add", port, "type", "veth", "peer", "name", device, "netns", space)
        _run("ip", "-n", self._hub, "link", "set", port, "master", "br0", "up")
        _run("ip", "-n", space, "link", "set", "lo", "up")
        if self._kind == "ipv4":
            _run("ip", "-n", space, "address", "add", f"{self.address(name)}/24", "dev", device)
            _run("ip", "-n", space, "link", "set", device, "up")
            _run("ip", "-n", space, "route", "add", "default", "dev", device)
        else:  # no other address than this one, and that at once
            number = self.address(name)[1:-1].partition("%")[0]
            _run("ip", "-n", space, "link", "set", device, "addrgenmode", "none")
            _run("ip", "-n", space, "address", "add", f"{number}/64", "dev", device, "nodad")
            _run("ip", "-n", space, "link", "set", device, "up")
        self.set_rate(name, rate_mbit)

    def _make_group(self, name: str, memory_bytes: int) -> None:
        self._group(name).mkdir()
        (self._group(name) / "memory.limit_in_bytes").write_text(str(memory_bytes))

    def _counted(self, name: str) -> list[int]:
        """Return what the switch has counted at a host's port; asked many times a second, so no program is started."""
        with _thread_in(f"/run/netns/{self._hub}"):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        (counted,) = [line.partition(":")[2] for line in lines if line.strip().startswith(f"{self._port(name)}:")]
        return [int(number) for number in counted.split()]

    @property
    def _hub(self) -> str:
        return f"{self._mark}-hub"

    def _space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _port(self, name: str) -> str:
        return f"port{self._names.index(name)}"

    def _group(self, name: str) -> Path:
        return GROUPS / f"{self._mark}-{name}"

    def __enter__(self) -> NetworkHosts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
