"""`shardnode join TOKEN`: from a token to a certificate and a config file. The key never leaves the device.

Covers: finding the coordinator that made the token, asking it, writing what the daemon needs.
Does not cover: the daemon (run.py, membership.py), the other end (coordinator/membership/joining.py).
"""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.compute.device_speeds import DeviceSpeeds
from common.errors import DiskFull, InputError, NodeError, NodeLost, NodeTimeout, NotTrusted
from common.machine.durable_files import replace_private
from common.machine.state_directory import check_directory, check_own, state_directory
from common.trust.certificates import (
    COORDINATOR,
    KeyedCertificate,
    KeyedRequest,
    PeerName,
    check_name,
    check_pair,
    fingerprint,
    mesh_of,
)
from common.trust.identity import (
    JOINING_KEY_FILE,
    Identity,
    forget_key,
    has_identity,
    load_identity,
    not_written,
    save_identity,
    stored_request,
)
from common.trust.join_token import JoinToken, parse_token
from common.trust.tls import CONNECT_SECONDS, channel_to_authority, read_authority
from common.wire.addresses import host_port, split_host_port
from common.wire.rpc import failures_of
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc
from shardnode.membership.device_facts import device_facts

CONFIG_FILE, IDENTITY_DIRECTORY = "shardnode.toml", "identity"
LIMIT_SECONDS = 10.0
"""For the answer of a coordinator that has shown who it is."""
FIND_SECONDS, LEAST_SECONDS = 15.0, 1.0
"""For all addresses to show who they are, and the least that the last ones have of it."""
ANNOUNCED_SECONDS = 2.0
"""For each address that somebody has announced: a home network is quick, and anybody may announce sixteen."""


@dataclass(frozen=True, kw_only=True)
class JoinedMesh:
    """What came of joining."""

    mesh: str
    name: str
    config: Path


def default_data_directory() -> Path:
    """Return where a node keeps identity and slices."""
    return state_directory("node")


def name_of_this_device() -> str:
    """Return the host's name as a node may be called."""
    name = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")[:40].strip("-")
    return name or "node"


def join_mesh(
    token_text: str, name: str, data_directory: Path, listen: str, metrics_listen: str = ""
) -> JoinedMesh:  # fmt: skip
    """Join the mesh that a token is for and write identity and config into the data directory.

    Wherever it breaks off, the same command goes on: the key is stored before it is shown to anybody, and to who asks
    again with it the coordinator gives the same certificate. That key goes last: while it is there, nothing is done.
    Raises: InputError: token, name or directory; DiskFull; TokenRefused, NameTaken: what the coordinator answers;
    NotTrusted: another coordinator answers; NodeError: none does.
    """
    token = parse_token(token_text)
    check_name(name)
    for address in filter(None, (listen, metrics_listen)):
        split_host_port(address)
    check_own(data_directory)
    check_directory(data_directory, has_keys=False)
    check_directory(data_directory / IDENTITY_DIRECTORY)
    directory, config = data_directory / IDENTITY_DIRECTORY, data_directory / CONFIG_FILE
    if (before := _joined_before(directory, config, token)) is not None:
        return before
    asked = _asked(data_directory, directory)
    address, authority, response = _ask_one_of(token, mesh_pb2.JoinRequest(
        secret=token.secret, name=name, certificate_request=asked.request,
        device=device_facts(data_directory, DeviceSpeeds()),
    ))  # fmt: skip
    own = KeyedCertificate(key=asked.key, certificate=response.certificate)
    check_pair(own)
    coordinator = host_port(split_host_port(address)[0], response.mesh_port)
    try:
        save_identity(directory, Identity(authority=authority, own=own))
        values = {"coordinator": coordinator, "listen": listen, "data-dir": str(data_directory)}
        if metrics_listen:
            values["metrics-listen"] = metrics_listen
        _write_config(config, values)
    except DiskFull as error:
        raise DiskFull(f"{error}: the token stays good for this device, and the same command goes on from here"
                       ) from error  # fmt: skip
    forget_key(directory / JOINING_KEY_FILE)
    return JoinedMesh(mesh=mesh_of(authority), name=name, config=config)


def _joined_before(directory: Path, config: Path, token: JoinToken) -> JoinedMesh | None:
    """Return what an attempt has come to that broke off at its very end; None: there is something to do.

    Raises: InputError: this device has joined a mesh, and nothing broke off.
    """
    joining = directory / JOINING_KEY_FILE
    if not has_identity(directory):
        return None
    if joining.exists():
        with suppress(InputError, NotTrusted):  # damaged: it is asked for again
            identity = load_identity(directory)
            is_same = fingerprint(identity.authority) == token.authority_fingerprint
            if is_same and config.exists() and identity.own.key == joining.read_bytes():
                forget_key(joining)
                return JoinedMesh(mesh=identity.peer.mesh, name=identity.peer.name, config=config)
        return None
    start = f"start it with shardnode --config {config}, or " if config.exists() else ""
    raise InputError(f"this device belongs to a mesh already ({directory}); {start}remove that directory to join "
                     "another")  # fmt: skip


def _asked(data_directory: Path, directory: Path) -> KeyedRequest:
    """Return the key that this device joins with, stored, and its request. Raises: InputError, DiskFull."""
    # Here and not at the top: cryptography takes 10 MB, of which a member that has joined would have nothing.
    from common.trust.signing import keyed_request

    try:
        for made in (data_directory, directory):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(data_directory, error) from error
    return stored_request(directory / JOINING_KEY_FILE, keyed_request)


def _ask_one_of(token: JoinToken, request: mesh_pb2.JoinRequest) -> tuple[str, bytes, mesh_pb2.JoinResponse]:
    """Return which address of a token's has let this device in, by which authority, and how.

    All of them have FIND_SECONDS together to show who they are, each its share of what is left: whoever answers slowly
    at one takes nothing from those after it. So does who passes a coordinator's words on and then falls silent.
    Raises: TokenRefused, NameTaken, InputError: what the coordinator says; NotTrusted: another one answers; NodeError.
    """
    until = time.monotonic() + FIND_SECONDS
    failures: list[NodeError | NotTrusted] = []
    for tried, address in enumerate(token.addresses):
        share = max(LEAST_SECONDS, (until - time.monotonic()) / (len(token.addresses) - tried))
        try:
            authority = read_authority(address, token.authority_fingerprint, min(CONNECT_SECONDS, share))
            return address, authority, _ask(address, authority, request)
        except (NodeLost, NodeTimeout, NotTrusted) as error:  # another one may be the one that this device reaches
            failures.append(error)
    if failures:
        raise next((failure for failure in failures if isinstance(failure, NotTrusted)), failures[0])
    address, authority = _announced(token)
    return address, authority, _ask(address, authority, request)


def _announced(token: JoinToken) -> tuple[str, bytes]:
    """Return where the coordinator of a token without addresses answers, and its authority. Raises: NodeLost."""
    # Here and not at the top: zeroconf takes 4 MB, of which a member that has joined would have nothing.
    from shardnode.membership.discovery import announced_addresses

    until = time.monotonic() + FIND_SECONDS
    for address in announced_addresses():
        limit = min(ANNOUNCED_SECONDS, until - time.monotonic())
        with suppress(NodeError, NotTrusted):  # anybody may announce anything; the token's hash decides
            return address, read_authority(address, token.authority_fingerprint, limit)
    raise NodeLost("the token names no address, and no coordinator of its mesh is found on this network; does it run "
                   "and listen here (--master-ip 0.0.0.0)? A token with addresses works across networks"
                   )  # fmt: skip


def _ask(address: str, authority: bytes, request: mesh_pb2.JoinRequest) -> mesh_pb2.JoinResponse:
    mesh = mesh_of(authority)
    expected = PeerName(mesh=mesh, role=COORDINATOR, name=mesh)
    with channel_to_authority(address, authority, expected) as channel:
        try:
            with failures_of(f"the coordinator at {address}"):
                stub = mesh_pb2_grpc.JoinServiceStub(channel)
                response: mesh_pb2.JoinResponse = stub.Join(request, timeout=LIMIT_SECONDS)
                return response
        except (NodeLost, NodeTimeout) as error:  # it may have let this device in, or not
            raise type(error)(f"{error}; type the same command again: the token stays good for this device") from error


def _write_config(path: Path, values: dict[str, str]) -> None:
    # A JSON string is a TOML string, whatever is in it.
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    text = "# Options of shardnode, by the names of its flags; a flag on the command line goes before.\n"
    try:
        replace_private(path, (text + "\n".join(lines) + "\n").encode())
    except OSError as error:
        raise not_written(path.parent, error) from error
