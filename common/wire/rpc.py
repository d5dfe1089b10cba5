"""Between our errors and gRPC's statuses, and how channels and servers are set up. The only place that translates.

Covers: error to status and back, channel and server options with their reasons, listening.
Does not cover: the errors themselves (errors.py), certificates, how addresses are written (addresses.py).

A ShardmeshError travels as its status, its message and its reason (trailing metadata key `shardmesh-reason`).
Any other exception travels as INTERNAL with an id that stands in the log, never with its text.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import grpc

from common.errors import (
    AddressInUse,
    InputError,
    InternalError,
    NodeFault,
    NodeLost,
    NodeTimeout,
    ResourceError,
    ShardmeshError,
    all_error_classes,
)
from common.program.logs import entry
from common.program.passing_threads import PassingThreads
from common.wire.addresses import grpc_address, host_port, is_loopback, split_host_port
from common.wire.broken_calls import in_words
from common.wording import plain

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger(__name__)

WRONG_CLOCK = ("certificate is not yet valid", "certificate has expired")
"""What gRPC says of a peer's certificate. A device without a battery for its clock starts in the past."""
PROTOCOL_VERSION = 3
"""Of the messages in protos/; a node refuses a coordinator that speaks another one."""
REASON_KEY = "shardmesh-reason"
MAX_MESSAGE_BYTES = 64 << 20
"""Longest message either way: a prefill chunk is kept far below (common/model/sweep_size.py)."""
LOOKAHEAD_BYTES = 4 << 20
"""So much a peer may send of a call before it waits."""
STREAMS_OF_A_CONNECTION = 64
"""Calls of one connection that a server hears of at once; more wait at the caller's end, or are refused there."""
BEGIN_SECONDS = 10.0
"""From a connection to what HTTP/2 begins with. Behind a gate TLS is over by then."""
CALLER_PING_SECONDS, FROZEN_SECONDS = 20.0, 300.0
"""How often a server asks whether a caller is there, and how long the answer may take: it waits behind what he sends,
and 4 MB take so long over the slowest link of a load. For a frozen program its system answers, but not this."""
PING_SECONDS = 2.0
"""How often an idle or waiting connection is probed, and how long an answer may take."""

MAX_SOCKET_PATH_BYTES = 103
"""macOS has room for 104 with the final zero, Linux for 108."""

_BY_REASON = {cls.reason: cls for cls in all_error_classes()}
_MAX_TEXT = 500
"""Letters of a message; percent-encoded they take up to 12 bytes each, and a trailer may have 8,192 bytes."""

Method = TypeVar("Method", bound=Callable[..., Any])
Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, kw_only=True)
class Status:
    """An error as it travels."""

    code: str
    reason: str
    message: str


def status_of(error: Exception) -> Status:
    """Return how an error travels; what is not ours is logged under an id and sent without its text."""
    if isinstance(error, ShardmeshError):
        return Status(code=error.status, reason=error.reason, message=_one_line(str(error)))
    error_id = secrets.token_hex(4)
    log.error("%s", entry("internal error", error_id=error_id), exc_info=error)
    return Status(
        code="INTERNAL", reason=InternalError.reason, message=f"internal error {error_id}; the log there says more"
    )


def error_from(status: Status, peer: str) -> ShardmeshError:
    """Return the error that a peer's status means; `peer` names it for a person.

    A reason we know gives its class; an INTERNAL error of a peer is the peer's fault, not ours.
    """
    text = _one_line(status.message)
    message = f"{peer}: {text}"
    cls = _BY_REASON.get(status.reason)
    if cls is not None and cls is not InternalError:
        return cls(message)
    if status.code == "UNAVAILABLE" and any(words in text for words in WRONG_CLOCK):
        return NodeLost(f"{peer} shows a certificate that is not good at the time that this device's clock says, "
                        f"{time.strftime('%Y-%m-%d %H:%M')}; set the clocks of both (timedatectl)")  # fmt: skip
    if not status.reason:  # gRPC's own, or a peer's that is not of ours
        text = in_words(text)
        message = f"{peer}: {text}"
    if status.code == "UNAVAILABLE" or status.code == "CANCELLED":
        return NodeLost(f"{peer} is gone ({text or 'the connection broke'})")
    if status.code == "DEADLINE_EXCEEDED":
        return NodeTimeout(f"{peer} did not answer in time")
    if status.code == "RESOURCE_EXHAUSTED":
        return ResourceError(message)
    return NodeFault(message)


def error_from_rpc(error: grpc.RpcError, peer: str) -> ShardmeshError:
    """Return the error that a failed gRPC call means."""
    code = error.code().name if hasattr(error, "code") and error.code() is not None else "UNKNOWN"
    metadata = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    trailing = cast("tuple[tuple[str, str | bytes], ...]", metadata or ())
    reason = next((str(value) for key, value in trailing if key == REASON_KEY), "")
    details = (error.details() or "") if hasattr(error, "details") else str(error)
    return error_from(Status(code=code, reason=reason, message=details), peer)


@contextmanager
def failures_of(peer: str) -> Iterator[None]:
    """Turn a gRPC call that fails inside into the error that it means."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, peer) from error


def _one_line(text: str) -> str:
    """Return what a peer is told, or told us: one line, printable, and short enough for a gRPC trailer."""
    return plain(text[: 4 * _MAX_TEXT])[:_MAX_TEXT]


def abort_with(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End an RPC on the server with the status of `error`."""
    status = status_of(error)
    context.set_trailing_metadata(((REASON_KEY, status.reason),))
    context.abort(grpc.StatusCode[status.code], status.message)
    raise InternalError("abort returned")


def guarded(method: Method) -> Method:
    """Turn an exception of a servicer's method into its status."""

    @functools.wraps(method)
    def answering(self: object, request: object, context: grpc.ServicerContext) -> object:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 - the edge of an RPC; abort_with logs what is not ours
            abort_with(context, error)

    return cast("Method", answering)


def guarded_stream(
    context: grpc.ServicerContext, requests: Iterable[Request], handle: Callable[[Request], Response]
) -> Iterator[Response]:
    """Answer each request of a stream in turn; an exception of either becomes the status."""
    coming = iter(requests)
    while True:
        try:
            request = next(coming)
        except (StopIteration, grpc.RpcError):  # he has said all, or has gone
            return
        except ShardmeshError as error:
            abort_with(context, error)
        try:
            response = handle(request)
        except Exception as error:  # noqa: BLE001 - the edge of an RPC; abort_with logs what is not ours
            abort_with(context, error)
        yield response


def channel_options(ping_timeout_seconds: float = PING_SECONDS) -> list[tuple[str, int]]:
    """Return the options of every channel.

    Args: ping_timeout_seconds: how long a ping's answer may take; a ping waits behind what is being sent, so on a slow
    link that carries megabytes it needs longer, and something else has to find a frozen peer.
    """
    ping_milliseconds = int(PING_SECONDS * 1000)
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A frozen peer's kernel still acknowledges: only the answer to an HTTP/2 ping tells, and on grpc 1.85
        # keepalive_timeout alone leaves ping_timeout at 60 s.
        ("grpc.keepalive_time_ms", ping_milliseconds),
        ("grpc.keepalive_timeout_ms", ping_milliseconds),
        ("grpc.http2.ping_timeout_ms", int(ping_timeout_seconds * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Bandwidth probing cost a third of the speed of large messages and nothing was gained.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Not the least pause between two tries, as its name says, but how long each may take: with 100 ms a peer that
        # is far away, slow or busy was given up before its handshake was over.
        ("grpc.min_reconnect_backoff_ms", 5000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.enable_http_proxy", 0),
    ]


def server_options() -> list[tuple[str, int]]:
    """Return the options of every server."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Each call takes a worker for a moment, be it to be refused.
        ("grpc.max_concurrent_streams", STREAMS_OF_A_CONNECTION),
        ("grpc.server_handshake_timeout_ms", int(BEGIN_SECONDS * 1000)),
        ("grpc.keepalive_time_ms", int(CALLER_PING_SECONDS * 1000)),
        ("grpc.http2.ping_timeout_ms", int(FROZEN_SECONDS * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        # Without this a second server binds the same port and both believe that they own it.
        ("grpc.so_reuseport", 0),
        # The pings above must not be taken for abuse.
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.bdp_probe", 0),
        # A sender waits for room once per window; of 64 KB, the usual one, that was most of the time of a load.
        ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
    ]


def make_server(worker_count: int, *interceptors: grpc.ServerInterceptor) -> grpc.Server:
    """Return a server that works on at most `worker_count` calls at once and refuses more."""
    pool = cast("ThreadPoolExecutor", PassingThreads(worker_count, "rpc"))  # gRPC only submits
    return grpc.server(
        pool, options=server_options(), maximum_concurrent_rpcs=worker_count, interceptors=list(interceptors)
    )  # fmt: skip


def check_listen_address(address: str, *, insecure: bool) -> None:
    """Refuse to listen without TLS where other devices could reach us. Not to be asked where there is TLS.

    Raises: InputError: not an address, or neither loopback, a Unix socket nor `insecure`.
    """
    if address.startswith("unix:"):
        return
    host, _ = split_host_port(address)
    if insecure or is_loopback(host):
        return
    raise InputError(f"{address} can be reached by other devices and this node has not joined a mesh, so there is "
                     "no TLS; join one (`shardnode join`), listen on 127.0.0.1 or unix:/path, or pass --insecure on a "
                     "network that you trust")  # fmt: skip


def bind(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> str:
    """Listen on `address` and return it with the port that it got. Args: credentials: of TLS; without, in plain.

    Raises: AddressInUse: another process has it, or it is not ours to listen on; InputError: no address, or no socket
    can lie there.
    """
    if address.startswith("unix:"):
        _check_socket_path(address.removeprefix("unix:"))
    place = grpc_address(address)
    try:
        port = server.add_insecure_port(place) if credentials is None else server.add_secure_port(place, credentials)
    except RuntimeError as error:
        raise AddressInUse(f"cannot listen on {address}: another process has this address, or it is not this "
                           "device's; choose another one") from error  # fmt: skip
    if address.startswith("unix:"):
        return address
    return host_port(split_host_port(address)[0], port)


def _check_socket_path(path: str) -> None:
    """Raise InputError, with the reason that gRPC does not tell, when no Unix socket can be made at `path`."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise InputError(f"cannot listen on {path}: a Unix socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes; "
                         "choose a shorter one")  # fmt: skip
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise InputError(f"cannot listen on {path}: there is no directory {os.path.dirname(path)}; make it first")
