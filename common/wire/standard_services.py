"""The services that every gRPC server of ours has beside its own: standard health, and reflection.

Source: grpc.health.v1 and grpc.reflection.v1alpha.
"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection


class StandardServices:
    """Health and reflection of one server."""

    def __init__(self, server: grpc.Server, *service_names: str) -> None:
        """Add both to a server that has not started. Args: service_names: of its own services, in full."""
        self._service_names = service_names
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    def serving(self) -> None:
        """Say from now on that the server and each of its services is there."""
        for name in ("", *self._service_names):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def draining(self) -> None:
        """Say from now on that nothing is; for good."""
        self._health.enter_graceful_shutdown()
