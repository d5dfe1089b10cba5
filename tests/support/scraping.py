"""Scrapes as Prometheus does: TLS with the files that an observer has, or a token; and as strangers try it.

Does not cover: who may (tests/contract/test_metrics_access.py).
"""

from __future__ import annotations

import gzip
import http.client
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from common.trust.certificates import METRICS_NAME
from common.trust.identity import Identity
from coordinator.membership.observer_files import ObserverFiles, invite_observer
from coordinator.membership.owner_client import OwnerClient

LIMIT_SECONDS = 10.0
PROMETHEUS_HEADERS = (
    "User-Agent: Prometheus/2.53.0\r\n"
    "Accept: application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n"
    "Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 5\r\n"
)
"""What Prometheus asks with."""


@dataclass(frozen=True, kw_only=True)
class Scraped:
    """What a page has answered."""

    status: int
    text: str
    shown: bytes
    """The certificate of who answered, in DER."""
    is_kept: bool
    """Whether the next scrape may go over the same connection."""


def observer_of(state: Path, name: str, out: Path, valid_days: int = 365) -> ObserverFiles:
    """Let an observer into the mesh of a state directory."""
    with OwnerClient(state) as owner:
        return invite_observer(owner, name, valid_days, out)


def trusting(authority: bytes) -> ssl.SSLContext:
    """Return how somebody connects who knows the mesh's authority and shows nothing."""
    context = ssl.create_default_context(cadata=authority.decode("ascii"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def observing(files: ObserverFiles) -> ssl.SSLContext:
    """Return how an observer connects."""
    context = trusting(files.authority.read_bytes())
    context.load_cert_chain(files.certificate, files.key)
    return context


def showing(identity: Identity, directory: Path) -> ssl.SSLContext:
    """Return how somebody connects who has this identity. Args: directory: where its files go for that."""
    context = trusting(identity.authority)
    keyed = directory / "keyed.pem"
    keyed.write_bytes(identity.own.key + identity.own.certificate)
    context.load_cert_chain(keyed)
    return context


class Scraping:
    """One connection to a page, which is kept for the next scrape, as Prometheus keeps it. Use as a context manager."""

    def __init__(self, port: int, context: ssl.SSLContext, name: str = METRICS_NAME) -> None:
        """Raises: OSError: nobody listens, or is not believed."""
        plain = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS)
        try:
            self.connection, self._name = context.wrap_socket(plain, server_hostname=name), name
        except BaseException:
            plain.close()
            raise

    def scrape(self, token: str = "", more: str = "") -> Scraped:
        """Return what the page answers. Args: more: headers. Raises: OSError: nothing."""
        credentials = f"Authorization: Bearer {token}\r\n" if token else ""
        self.connection.sendall(f"GET /metrics HTTP/1.1\r\nHost: {self._name}\r\n{credentials}{more}\r\n".encode())
        with http.client.HTTPResponse(self.connection) as answer:
            answer.begin()
            content = answer.read()
            text = (gzip.decompress(content) if answer.getheader("Content-Encoding") == "gzip" else content).decode()
            is_kept = not answer.will_close
        shown = self.connection.getpeercert(binary_form=True) or b""
        return Scraped(status=answer.status, text=text, shown=shown, is_kept=is_kept)

    def __enter__(self) -> Scraping:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()


def scrape(port: int, context: ssl.SSLContext, token: str = "", name: str = METRICS_NAME) -> Scraped:
    """Return what the page of a port answers over TLS. Raises: OSError: nothing."""
    with Scraping(port, context, name) as scraping:
        return scraping.scrape(token)
