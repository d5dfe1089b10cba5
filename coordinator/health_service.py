"""The coordinator's gRPC listener: standard health and reflection at --master-ip:--master-port.

Does not cover: inference over gRPC, and nodes that join; both come with the coordinator daemon.
"""

from __future__ import annotations

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.rpc import bind, check_listen_address, make_server

WORKER_COUNT = 4


class HealthService:
    """Answers SERVING while it lives."""

    def __init__(self, address: str) -> None:
        """Listen. Raises: InputError: not a loopback address; AddressInUse."""
        check_listen_address(address, insecure=False)
        self._server = make_server(WORKER_COUNT)
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        reflection.enable_server_reflection((health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.address = bind(self._server, address)
        self._server.start()
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        self._server.stop(0).wait()
