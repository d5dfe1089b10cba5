"""Serves a registry of Prometheus series over HTTP on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import AddressInUse, InputError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

HOST = "127.0.0.1"


def check_metrics_port(port: int) -> None:
    """Raise InputError unless there is such a port."""
    if not 0 <= port <= 65535:
        raise InputError(f"--metrics-port is {port}; it must be from 0 to 65535")


class MetricsPage:
    """A /metrics page in a thread of its own."""

    def __init__(self, registry: CollectorRegistry, port: int) -> None:
        """Listen on loopback; port 0 lets the system choose. Raises: InputError: no such port; AddressInUse."""
        from prometheus_client import start_http_server  # as slow as the rest of what flags need

        check_metrics_port(port)
        try:
            self._server, self._thread = start_http_server(port, addr=HOST, registry=registry)
        except OSError as error:
            raise AddressInUse(f"cannot serve metrics on {HOST}:{port}: {error.strerror}; choose another "
                               "--metrics-port") from error  # fmt: skip
        self.port = int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
