from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Device(_message.Message):
    __slots__ = ("version", "protocol_version", "core_count", "memory_bytes", "free_memory_bytes", "free_disk_bytes", "memory_bytes_per_second", "disk_bytes_per_second", "arithmetic_per_second", "program_bytes", "budget_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CORE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ARITHMETIC_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol_version: int
    core_count: int
    memory_bytes: int
    free_memory_bytes: int
    free_disk_bytes: int
    memory_bytes_per_second: float
    disk_bytes_per_second: float
    arithmetic_per_second: float
    program_bytes: int
    budget_bytes: int
    def __init__(self, version: _Optional[str] = ..., protocol_version: _Optional[int] = ..., core_count: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., free_memory_bytes: _Optional[int] = ..., free_disk_bytes: _Optional[int] = ..., memory_bytes_per_second: _Optional[float] = ..., disk_bytes_per_second: _Optional[float] = ..., arithmetic_per_second: _Optional[float] = ..., program_bytes: _Optional[int] = ..., budget_bytes: _Optional[int] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("secret", "name", "certificate_request", "device")
    SECRET_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    secret: bytes
    name: str
    certificate_request: bytes
    device: Device
    def __init__(self, secret: _Optional[bytes] = ..., name: _Optional[str] = ..., certificate_request: _Optional[bytes] = ..., device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("certificate", "mesh_port", "mesh_name")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    MESH_PORT_FIELD_NUMBER: _ClassVar[int]
    MESH_NAME_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    mesh_port: int
    mesh_name: str
    def __init__(self, certificate: _Optional[bytes] = ..., mesh_port: _Optional[int] = ..., mesh_name: _Optional[str] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("device", "listen", "rank", "model_identity", "metrics", "sent_at_seconds", "round_trip_seconds", "authorities_digest", "members")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LISTEN_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AUTHORITIES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    device: Device
    listen: str
    rank: int
    model_identity: str
    metrics: str
    sent_at_seconds: float
    round_trip_seconds: float
    authorities_digest: bytes
    members: SignedMembers
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ..., listen: _Optional[str] = ..., rank: _Optional[int] = ..., model_identity: _Optional[str] = ..., metrics: _Optional[str] = ..., sent_at_seconds: _Optional[float] = ..., round_trip_seconds: _Optional[float] = ..., authorities_digest: _Optional[bytes] = ..., members: _Optional[_Union[SignedMembers, _Mapping]] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("interval_seconds", "observers", "members", "authorities")
    INTERVAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OBSERVERS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    interval_seconds: float
    observers: GoodObservers
    members: SignedMembers
    authorities: bytes
    def __init__(self, interval_seconds: _Optional[float] = ..., observers: _Optional[_Union[GoodObservers, _Mapping]] = ..., members: _Optional[_Union[SignedMembers, _Mapping]] = ..., authorities: _Optional[bytes] = ...) -> None: ...

class SignedMembers(_message.Message):
    __slots__ = ("content", "signature")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    signature: bytes
    def __init__(self, content: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class GoodObservers(_message.Message):
    __slots__ = ("serials", "authority")
    SERIALS_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    serials: _containers.RepeatedScalarFieldContainer[str]
    authority: bytes
    def __init__(self, serials: _Optional[_Iterable[str]] = ..., authority: _Optional[bytes] = ...) -> None: ...

class RenewCertificateRequest(_message.Message):
    __slots__ = ("certificate_request", "authority_fingerprint")
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    authority_fingerprint: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ..., authority_fingerprint: _Optional[bytes] = ...) -> None: ...

class RenewCertificateResponse(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class RenewEndedRequest(_message.Message):
    __slots__ = ("certificate", "certificate_request")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    certificate_request: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., certificate_request: _Optional[bytes] = ...) -> None: ...

class RenewEndedResponse(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class InviteRequest(_message.Message):
    __slots__ = ("lifetime_seconds", "without_addresses")
    LIFETIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    lifetime_seconds: int
    without_addresses: bool
    def __init__(self, lifetime_seconds: _Optional[int] = ..., without_addresses: _Optional[bool] = ...) -> None: ...

class InviteResponse(_message.Message):
    __slots__ = ("token", "notes")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    token: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, token: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class InviteObserverRequest(_message.Message):
    __slots__ = ("name", "certificate_request", "valid_days")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    VALID_DAYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    certificate_request: bytes
    valid_days: int
    def __init__(self, name: _Optional[str] = ..., certificate_request: _Optional[bytes] = ..., valid_days: _Optional[int] = ...) -> None: ...

class InviteObserverResponse(_message.Message):
    __slots__ = ("certificate", "authority", "certificate_ends")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_ENDS_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    authority: bytes
    certificate_ends: int
    def __init__(self, certificate: _Optional[bytes] = ..., authority: _Optional[bytes] = ..., certificate_ends: _Optional[int] = ...) -> None: ...

class RemoveNodeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveNodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RotateAuthorityRequest(_message.Message):
    __slots__ = ("begin", "leave_behind")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    LEAVE_BEHIND_FIELD_NUMBER: _ClassVar[int]
    begin: bool
    leave_behind: bool
    def __init__(self, begin: _Optional[bool] = ..., leave_behind: _Optional[bool] = ...) -> None: ...

class RotateAuthorityResponse(_message.Message):
    __slots__ = ("waiting", "is_done")
    WAITING_FIELD_NUMBER: _ClassVar[int]
    IS_DONE_FIELD_NUMBER: _ClassVar[int]
    waiting: _containers.RepeatedScalarFieldContainer[str]
    is_done: bool
    def __init__(self, waiting: _Optional[_Iterable[str]] = ..., is_done: _Optional[bool] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "mesh_name", "coordinator_address", "observers")
    NODES_FIELD_NUMBER: _ClassVar[int]
    MESH_NAME_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OBSERVERS_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    mesh_name: str
    coordinator_address: str
    observers: _containers.RepeatedCompositeFieldContainer[Observer]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., mesh_name: _Optional[str] = ..., coordinator_address: _Optional[str] = ..., observers: _Optional[_Iterable[_Union[Observer, _Mapping]]] = ...) -> None: ...

class Observer(_message.Message):
    __slots__ = ("name", "certificate_ends")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_ENDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    certificate_ends: int
    def __init__(self, name: _Optional[str] = ..., certificate_ends: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "device", "address", "silent_seconds", "certificate_ends", "rank", "model_identity", "metrics")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_ENDS_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    name: str
    device: Device
    address: str
    silent_seconds: float
    certificate_ends: int
    rank: int
    model_identity: str
    metrics: str
    def __init__(self, name: _Optional[str] = ..., device: _Optional[_Union[Device, _Mapping]] = ..., address: _Optional[str] = ..., silent_seconds: _Optional[float] = ..., certificate_ends: _Optional[int] = ..., rank: _Optional[int] = ..., model_identity: _Optional[str] = ..., metrics: _Optional[str] = ...) -> None: ...
