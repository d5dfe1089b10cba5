from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadModelRequest(_message.Message):
    __slots__ = ("path", "name", "nodes", "split_strategy", "weights_dtype", "verify")
    PATH_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SPLIT_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DTYPE_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    name: str
    nodes: _containers.RepeatedScalarFieldContainer[str]
    split_strategy: str
    weights_dtype: str
    verify: bool
    def __init__(self, path: _Optional[bytes] = ..., name: _Optional[str] = ..., nodes: _Optional[_Iterable[str]] = ..., split_strategy: _Optional[str] = ..., weights_dtype: _Optional[str] = ..., verify: _Optional[bool] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("accepted", "told", "planned", "progress", "arrivals")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    PLANNED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_FIELD_NUMBER: _ClassVar[int]
    accepted: LoadAccepted
    told: str
    planned: LoadPlanned
    progress: LoadProgress
    arrivals: LoadArrivals
    def __init__(self, accepted: _Optional[_Union[LoadAccepted, _Mapping]] = ..., told: _Optional[str] = ..., planned: _Optional[_Union[LoadPlanned, _Mapping]] = ..., progress: _Optional[_Union[LoadProgress, _Mapping]] = ..., arrivals: _Optional[_Union[LoadArrivals, _Mapping]] = ...) -> None: ...

class LoadAccepted(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class LoadPlanned(_message.Message):
    __slots__ = ("nodes", "description", "prediction")
    NODES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedScalarFieldContainer[str]
    description: bytes
    prediction: bytes
    def __init__(self, nodes: _Optional[_Iterable[str]] = ..., description: _Optional[bytes] = ..., prediction: _Optional[bytes] = ...) -> None: ...

class LoadProgress(_message.Message):
    __slots__ = ("node", "arrived_bytes", "total_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: str
    arrived_bytes: int
    total_bytes: int
    def __init__(self, node: _Optional[str] = ..., arrived_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class LoadArrivals(_message.Message):
    __slots__ = ("arrivals",)
    ARRIVALS_FIELD_NUMBER: _ClassVar[int]
    arrivals: _containers.RepeatedCompositeFieldContainer[LoadArrival]
    def __init__(self, arrivals: _Optional[_Iterable[_Union[LoadArrival, _Mapping]]] = ...) -> None: ...

class LoadArrival(_message.Message):
    __slots__ = ("node", "sent_bytes", "total_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: str
    sent_bytes: int
    total_bytes: int
    def __init__(self, node: _Optional[str] = ..., sent_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class CancelLoadRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelLoadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("missed_nodes",)
    MISSED_NODES_FIELD_NUMBER: _ClassVar[int]
    missed_nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, missed_nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class ListLoadsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListLoadsResponse(_message.Message):
    __slots__ = ("loads",)
    LOADS_FIELD_NUMBER: _ClassVar[int]
    loads: _containers.RepeatedCompositeFieldContainer[LoadStanding]
    def __init__(self, loads: _Optional[_Iterable[_Union[LoadStanding, _Mapping]]] = ...) -> None: ...

class LoadStanding(_message.Message):
    __slots__ = ("name", "is_under_way", "failure", "arrived_bytes", "total_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_UNDER_WAY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_under_way: bool
    failure: str
    arrived_bytes: int
    total_bytes: int
    def __init__(self, name: _Optional[str] = ..., is_under_way: _Optional[bool] = ..., failure: _Optional[str] = ..., arrived_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...
