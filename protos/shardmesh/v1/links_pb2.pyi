from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EchoRequest(_message.Message):
    __slots__ = ("payload", "reply_bytes")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    REPLY_BYTES_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    reply_bytes: int
    def __init__(self, payload: _Optional[bytes] = ..., reply_bytes: _Optional[int] = ...) -> None: ...

class MeasureDeviceRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MeasureDeviceResponse(_message.Message):
    __slots__ = ("memory_bytes_per_second", "disk_bytes_per_second", "arithmetic_per_second")
    MEMORY_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ARITHMETIC_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    memory_bytes_per_second: float
    disk_bytes_per_second: float
    arithmetic_per_second: float
    def __init__(self, memory_bytes_per_second: _Optional[float] = ..., disk_bytes_per_second: _Optional[float] = ..., arithmetic_per_second: _Optional[float] = ...) -> None: ...

class EchoResponse(_message.Message):
    __slots__ = ("payload", "rounds_port")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_PORT_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    rounds_port: int
    def __init__(self, payload: _Optional[bytes] = ..., rounds_port: _Optional[int] = ...) -> None: ...
