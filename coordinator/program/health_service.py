"""The coordinator's gRPC listener: standard health and reflection at --master-ip:--master-port.

Does not cover: inference over gRPC, and nodes that join; both come with the coordinator daemon.
"""

from __future__ import annotations

from common.wire.rpc import bind, check_listen_address, make_server
from common.wire.standard_services import StandardServices

WORKER_COUNT = 4


class HealthService:
    """Answers SERVING while it lives."""

    def __init__(self, address: str) -> None:
        """Listen. Raises: InputError: not a loopback address; AddressInUse."""
        check_listen_address(address, insecure=False)
        self._server = make_server(WORKER_COUNT)
        standard = StandardServices(self._server)
        self.address = bind(self._server, address)
        self._server.start()
        standard.serving()

    def close(self) -> None:
        self._server.stop(0).wait()
