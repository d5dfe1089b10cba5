from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ObservedState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBSERVED_STATE_UNSPECIFIED: _ClassVar[ObservedState]
    OBSERVED_STATE_WAITING: _ClassVar[ObservedState]
    OBSERVED_STATE_READING: _ClassVar[ObservedState]
    OBSERVED_STATE_ANSWERING: _ClassVar[ObservedState]
OBSERVED_STATE_UNSPECIFIED: ObservedState
OBSERVED_STATE_WAITING: ObservedState
OBSERVED_STATE_READING: ObservedState
OBSERVED_STATE_ANSWERING: ObservedState

class OverviewRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OverviewResponse(_message.Message):
    __slots__ = ("mesh_name", "nodes", "requests", "most_requests", "tokens_per_second", "open_model", "memory", "rounds_per_second")
    MESH_NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MOST_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    OPEN_MODEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    mesh_name: str
    nodes: _containers.RepeatedCompositeFieldContainer[ObservedNode]
    requests: _containers.RepeatedCompositeFieldContainer[ObservedRequest]
    most_requests: int
    tokens_per_second: float
    open_model: str
    memory: ObservedMemory
    rounds_per_second: float
    def __init__(self, mesh_name: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[ObservedNode, _Mapping]]] = ..., requests: _Optional[_Iterable[_Union[ObservedRequest, _Mapping]]] = ..., most_requests: _Optional[int] = ..., tokens_per_second: _Optional[float] = ..., open_model: _Optional[str] = ..., memory: _Optional[_Union[ObservedMemory, _Mapping]] = ..., rounds_per_second: _Optional[float] = ...) -> None: ...

class ObservedNode(_message.Message):
    __slots__ = ("name", "silent_seconds", "is_up", "model", "rank", "world_size", "memory", "read_bytes_per_second", "round_seconds", "last_share", "rounds_over", "frames_failed", "rounds_port")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    IS_UP_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ROUND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_SHARE_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_OVER_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FAILED_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_PORT_FIELD_NUMBER: _ClassVar[int]
    name: str
    silent_seconds: float
    is_up: bool
    model: str
    rank: int
    world_size: int
    memory: ObservedMemory
    read_bytes_per_second: float
    round_seconds: float
    last_share: float
    rounds_over: str
    frames_failed: bool
    rounds_port: int
    def __init__(self, name: _Optional[str] = ..., silent_seconds: _Optional[float] = ..., is_up: _Optional[bool] = ..., model: _Optional[str] = ..., rank: _Optional[int] = ..., world_size: _Optional[int] = ..., memory: _Optional[_Union[ObservedMemory, _Mapping]] = ..., read_bytes_per_second: _Optional[float] = ..., round_seconds: _Optional[float] = ..., last_share: _Optional[float] = ..., rounds_over: _Optional[str] = ..., frames_failed: _Optional[bool] = ..., rounds_port: _Optional[int] = ...) -> None: ...

class ObservedMemory(_message.Message):
    __slots__ = ("rss_bytes", "budget_bytes", "machine_bytes", "window_bytes", "resident_bytes", "kv_bytes", "kv_budget_bytes", "page_cache_bytes")
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    MACHINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAGE_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    rss_bytes: int
    budget_bytes: int
    machine_bytes: int
    window_bytes: int
    resident_bytes: int
    kv_bytes: int
    kv_budget_bytes: int
    page_cache_bytes: int
    def __init__(self, rss_bytes: _Optional[int] = ..., budget_bytes: _Optional[int] = ..., machine_bytes: _Optional[int] = ..., window_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., kv_budget_bytes: _Optional[int] = ..., page_cache_bytes: _Optional[int] = ...) -> None: ...

class ObservedRequest(_message.Message):
    __slots__ = ("request_id", "model", "state", "prompt_token_count", "read_token_count", "answer_token_count", "most_answer_tokens", "tokens_per_second", "age_seconds")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    READ_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MOST_ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    state: ObservedState
    prompt_token_count: int
    read_token_count: int
    answer_token_count: int
    most_answer_tokens: int
    tokens_per_second: float
    age_seconds: float
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., state: _Optional[_Union[ObservedState, str]] = ..., prompt_token_count: _Optional[int] = ..., read_token_count: _Optional[int] = ..., answer_token_count: _Optional[int] = ..., most_answer_tokens: _Optional[int] = ..., tokens_per_second: _Optional[float] = ..., age_seconds: _Optional[float] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("seconds",)
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    def __init__(self, seconds: _Optional[float] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("model", "seconds_ago", "sweep_count", "observed_seconds", "sweep_seconds", "token_count", "parts", "nodes", "halved_bytes_gain_seconds", "wire_dtype", "own_starved_share")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SECONDS_AGO_FIELD_NUMBER: _ClassVar[int]
    SWEEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SWEEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    HALVED_BYTES_GAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WIRE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    OWN_STARVED_SHARE_FIELD_NUMBER: _ClassVar[int]
    model: str
    seconds_ago: float
    sweep_count: int
    observed_seconds: float
    sweep_seconds: float
    token_count: float
    parts: _containers.RepeatedCompositeFieldContainer[ExplainedPart]
    nodes: _containers.RepeatedCompositeFieldContainer[ExplainedNode]
    halved_bytes_gain_seconds: float
    wire_dtype: str
    own_starved_share: float
    def __init__(self, model: _Optional[str] = ..., seconds_ago: _Optional[float] = ..., sweep_count: _Optional[int] = ..., observed_seconds: _Optional[float] = ..., sweep_seconds: _Optional[float] = ..., token_count: _Optional[float] = ..., parts: _Optional[_Iterable[_Union[ExplainedPart, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[ExplainedNode, _Mapping]]] = ..., halved_bytes_gain_seconds: _Optional[float] = ..., wire_dtype: _Optional[str] = ..., own_starved_share: _Optional[float] = ...) -> None: ...

class ExplainedPart(_message.Message):
    __slots__ = ("node", "cause", "seconds")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    node: str
    cause: str
    seconds: float
    def __init__(self, node: _Optional[str] = ..., cause: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class ExplainedNode(_message.Message):
    __slots__ = ("node", "processor_seconds", "core_wait_seconds", "disk_seconds", "queue_seconds", "byte_count", "gains", "round_trip_seconds", "bytes_per_second", "rounds_over", "frames_failed", "rounds_port")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CORE_WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DISK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    GAINS_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_OVER_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FAILED_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_PORT_FIELD_NUMBER: _ClassVar[int]
    node: str
    processor_seconds: float
    core_wait_seconds: float
    disk_seconds: float
    queue_seconds: float
    byte_count: float
    gains: _containers.RepeatedCompositeFieldContainer[ExplainedPart]
    round_trip_seconds: float
    bytes_per_second: float
    rounds_over: str
    frames_failed: bool
    rounds_port: int
    def __init__(self, node: _Optional[str] = ..., processor_seconds: _Optional[float] = ..., core_wait_seconds: _Optional[float] = ..., disk_seconds: _Optional[float] = ..., queue_seconds: _Optional[float] = ..., byte_count: _Optional[float] = ..., gains: _Optional[_Iterable[_Union[ExplainedPart, _Mapping]]] = ..., round_trip_seconds: _Optional[float] = ..., bytes_per_second: _Optional[float] = ..., rounds_over: _Optional[str] = ..., frames_failed: _Optional[bool] = ..., rounds_port: _Optional[int] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("seconds",)
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    def __init__(self, seconds: _Optional[float] = ...) -> None: ...

class TraceResponse(_message.Message):
    __slots__ = ("sweeps", "dropped_sweep_count")
    SWEEPS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_SWEEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    sweeps: _containers.RepeatedCompositeFieldContainer[TracedSweep]
    dropped_sweep_count: int
    def __init__(self, sweeps: _Optional[_Iterable[_Union[TracedSweep, _Mapping]]] = ..., dropped_sweep_count: _Optional[int] = ...) -> None: ...

class TracedSweep(_message.Message):
    __slots__ = ("model", "sweep_id", "started_seconds", "head_started_seconds", "finished_seconds", "rows", "rounds")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SWEEP_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HEAD_STARTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    sweep_id: int
    started_seconds: float
    head_started_seconds: float
    finished_seconds: float
    rows: _containers.RepeatedCompositeFieldContainer[TracedRows]
    rounds: _containers.RepeatedCompositeFieldContainer[TracedRound]
    def __init__(self, model: _Optional[str] = ..., sweep_id: _Optional[int] = ..., started_seconds: _Optional[float] = ..., head_started_seconds: _Optional[float] = ..., finished_seconds: _Optional[float] = ..., rows: _Optional[_Iterable[_Union[TracedRows, _Mapping]]] = ..., rounds: _Optional[_Iterable[_Union[TracedRound, _Mapping]]] = ...) -> None: ...

class TracedRows(_message.Message):
    __slots__ = ("request_id", "row_count")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    row_count: int
    def __init__(self, request_id: _Optional[str] = ..., row_count: _Optional[int] = ...) -> None: ...

class TracedRound(_message.Message):
    __slots__ = ("kind", "layer", "layer_count", "row_count", "started_seconds", "sent_seconds", "finished_seconds", "parts")
    KIND_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    STARTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    layer: int
    layer_count: int
    row_count: int
    started_seconds: float
    sent_seconds: float
    finished_seconds: float
    parts: _containers.RepeatedCompositeFieldContainer[TracedPart]
    def __init__(self, kind: _Optional[str] = ..., layer: _Optional[int] = ..., layer_count: _Optional[int] = ..., row_count: _Optional[int] = ..., started_seconds: _Optional[float] = ..., sent_seconds: _Optional[float] = ..., finished_seconds: _Optional[float] = ..., parts: _Optional[_Iterable[_Union[TracedPart, _Mapping]]] = ...) -> None: ...

class TracedPart(_message.Message):
    __slots__ = ("node", "arrived_seconds", "compute_nanoseconds", "tile_wait_nanoseconds", "queue_nanoseconds", "core_wait_nanoseconds", "sent_bytes", "received_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    TILE_WAIT_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    CORE_WAIT_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: str
    arrived_seconds: float
    compute_nanoseconds: int
    tile_wait_nanoseconds: int
    queue_nanoseconds: int
    core_wait_nanoseconds: int
    sent_bytes: int
    received_bytes: int
    def __init__(self, node: _Optional[str] = ..., arrived_seconds: _Optional[float] = ..., compute_nanoseconds: _Optional[int] = ..., tile_wait_nanoseconds: _Optional[int] = ..., queue_nanoseconds: _Optional[int] = ..., core_wait_nanoseconds: _Optional[int] = ..., sent_bytes: _Optional[int] = ..., received_bytes: _Optional[int] = ...) -> None: ...
