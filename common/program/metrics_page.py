"""Where are a process's Prometheus series read, and what does a scrape get?

Covers: the page at /metrics in the format that is asked for, other pages behind the same door, where it listens.
Does not cover: connections, their number and their time (page_server.py); TLS and who may come in beyond loopback
(common/trust/metrics_door.py); which series there are.
"""

from __future__ import annotations

import gzip
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from common.errors import AddressInUse, InputError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from common.program.page_server import Door, Reply, Request

HOST = "127.0.0.1"
MOST_PORT = 65535
COMPRESSION = 1
"""The page is small and much alike: more takes longer and saves nothing that counts."""

MakePage = Callable[[], tuple[str, bytes]]
"""Returns a page's content type and its bytes."""


@dataclass(frozen=True, kw_only=True)
class MetricsPlace:
    """Where a page listens."""

    port: int
    """0: any free one."""
    host: str = HOST
    flag: str = "--metrics-port"
    """By which it was told, for a person."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= MOST_PORT:
            raise InputError(f"{self.flag} is {self.port}; it must be from 0 to {MOST_PORT}")


class MetricsPage:
    """A page for Prometheus, served by threads of its own until it is closed."""

    def __init__(
        self, registry: CollectorRegistry, place: MetricsPlace, door: Door | None = None,
        pages: Mapping[str, MakePage] | None = None, count: Callable[[str], None] = lambda reason: None,
    ) -> None:  # fmt: skip
        """Listen. Args: door: who may come in; without, the place must be this machine's own; pages: others, by path;
        count: as Callers.

        Raises: InputError: others reach that place, and there is no door; AddressInUse.
        """
        from common.program.page_server import PageServer  # here: it imports http.server

        self._registry, self._pages = registry, dict(pages or {})
        self.is_secure = door is not None
        if door is None and not _is_own(place.host):
            raise InputError(f"{place.host} can be reached by other devices: metrics go there over TLS only")
        try:
            self._server = PageServer(place.host, place.port, self._reply, door, count)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
            raise AddressInUse(f"cannot serve metrics on {place.host}:{place.port}: {reason}; choose another "
                               f"{place.flag}") from error  # fmt: skip
        self.port = self._server.port
        self.address = f"{place.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where a person finds it."""
        return f"{'https' if self.is_secure else 'http'}://{self.address}/metrics"

    def close(self) -> None:
        """Take no more callers, and end when those that are there have gone."""
        self._server.close()

    def _reply(self, request: Request) -> Reply:
        from common.program.page_server import Reply

        try:
            asked = urlsplit(request.path)
        except ValueError:
            return Reply(status=400, content=b"that is no path; ask for /metrics\n")
        if asked.path in self._pages:
            content_type, content = self._pages[asked.path]()
            return Reply(status=200, content_type=content_type, content=content)
        if asked.path not in ("/", "/metrics"):
            return Reply(status=404, content=b"there is nothing here but /metrics\n")
        return self._metrics(parse_qs(asked.query).get("name[]", []), request)

    def _metrics(self, names: list[str], request: Request) -> Reply:
        from common.program.page_server import Reply
        from common.program.written_page import encoder_for

        encode, content_type = encoder_for(request.header("Accept"))
        content = encode(self._registry.restricted_registry(names) if names else self._registry)
        if "gzip" not in request.header("Accept-Encoding"):
            return Reply(status=200, content_type=content_type, content=content)
        return Reply(
            status=200, content_type=content_type, content=gzip.compress(content, COMPRESSION), encoding="gzip"
        )


def _is_own(host: str) -> bool:
    """Tell whether only this machine reaches a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
