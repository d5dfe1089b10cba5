"""The services that every gRPC server of ours has beside its own: standard health, and reflection.

Covers: who may ask them, where a server has a check for that. Does not cover: who that is (common/trust/tls.py).
Source: grpc.health.v1 and grpc.reflection.v1alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from common.wire.rpc import abort_with, guarded

CheckCaller = Callable[[grpc.ServicerContext], None]


class StandardServices:
    """Health and reflection of one server."""

    def __init__(self, server: grpc.Server, *service_names: str, check_caller: CheckCaller | None = None) -> None:
        """Add both to a server that has not started.

        Args: service_names: of its own services, in full; check_caller: raises NotTrusted for who may not even ask
        these; without it everybody may who reaches the server.
        """
        self._service_names = service_names
        check = check_caller or (lambda context: None)
        self._health = _Health(check)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server  # its stubs have no types
        add_reflection(_Reflection(check, names), server)

    def serving(self) -> None:
        """Say from now on that the server and each of its services is there."""
        for name in ("", *self._service_names):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def draining(self) -> None:
        """Say from now on that nothing is; for good."""
        self._health.enter_graceful_shutdown()


class _Health(health.HealthServicer):
    def __init__(self, check_caller: CheckCaller) -> None:
        super().__init__()
        self._check_caller = check_caller

    @guarded
    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name is the contract's
        self._check_caller(context)
        return super().Check(request, context)

    def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name is the contract's
        self._refuse_strangers(context)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask for one service")  # the library has none, and logs a bug

    def Watch(  # noqa: N802 - the name is the contract's
        self, request: Any, context: Any, send_response_callback: Any = None
    ) -> Any:
        self._refuse_strangers(context)
        return super().Watch(request, context, send_response_callback)

    def _refuse_strangers(self, context: Any) -> None:
        """Do as `guarded` does, for methods with another argument, or with an end of their own."""
        try:
            self._check_caller(context)
        except Exception as error:  # noqa: BLE001 - the edge of an RPC; abort_with logs what is not ours
            abort_with(context, error)


class _Reflection(reflection.ReflectionServicer):
    def __init__(self, check_caller: CheckCaller, service_names: tuple[str, ...]) -> None:
        super().__init__(service_names)
        self._check_caller = check_caller

    @guarded
    def ServerReflectionInfo(  # noqa: N802 - the name is the contract's
        self, request_iterator: Any, context: Any
    ) -> Any:
        self._check_caller(context)
        return super().ServerReflectionInfo(request_iterator, context)
