from protos.shardmesh.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Activations(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATIONS_UNSPECIFIED: _ClassVar[Activations]
    ACTIVATIONS_FLOAT32: _ClassVar[Activations]
    ACTIVATIONS_INT8: _ClassVar[Activations]

class BlockKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLOCK_KIND_UNSPECIFIED: _ClassVar[BlockKind]
    BLOCK_KIND_ATTENTION: _ClassVar[BlockKind]
    BLOCK_KIND_FFN: _ClassVar[BlockKind]
ACTIVATIONS_UNSPECIFIED: Activations
ACTIVATIONS_FLOAT32: Activations
ACTIVATIONS_INT8: Activations
BLOCK_KIND_UNSPECIFIED: BlockKind
BLOCK_KIND_ATTENTION: BlockKind
BLOCK_KIND_FFN: BlockKind

class RoundsRequest(_message.Message):
    __slots__ = ("call_id", "open_session", "run_block", "change_sequences", "load_norms", "run_layers")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_SESSION_FIELD_NUMBER: _ClassVar[int]
    RUN_BLOCK_FIELD_NUMBER: _ClassVar[int]
    CHANGE_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    LOAD_NORMS_FIELD_NUMBER: _ClassVar[int]
    RUN_LAYERS_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    open_session: OpenSession
    run_block: RunBlock
    change_sequences: SequenceChanges
    load_norms: LoadNorms
    run_layers: RunLayers
    def __init__(self, call_id: _Optional[int] = ..., open_session: _Optional[_Union[OpenSession, _Mapping]] = ..., run_block: _Optional[_Union[RunBlock, _Mapping]] = ..., change_sequences: _Optional[_Union[SequenceChanges, _Mapping]] = ..., load_norms: _Optional[_Union[LoadNorms, _Mapping]] = ..., run_layers: _Optional[_Union[RunLayers, _Mapping]] = ...) -> None: ...

class RoundsResponse(_message.Message):
    __slots__ = ("ready_nanoseconds", "call_id", "session_opened", "block_result", "sequences_changed", "failure", "norms_loaded", "layers_result")
    READY_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_OPENED_FIELD_NUMBER: _ClassVar[int]
    BLOCK_RESULT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_CHANGED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    NORMS_LOADED_FIELD_NUMBER: _ClassVar[int]
    LAYERS_RESULT_FIELD_NUMBER: _ClassVar[int]
    ready_nanoseconds: int
    call_id: int
    session_opened: SessionOpened
    block_result: BlockResult
    sequences_changed: SequencesChanged
    failure: Failure
    norms_loaded: NormsLoaded
    layers_result: LayersResult
    def __init__(self, ready_nanoseconds: _Optional[int] = ..., call_id: _Optional[int] = ..., session_opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., block_result: _Optional[_Union[BlockResult, _Mapping]] = ..., sequences_changed: _Optional[_Union[SequencesChanged, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., norms_loaded: _Optional[_Union[NormsLoaded, _Mapping]] = ..., layers_result: _Optional[_Union[LayersResult, _Mapping]] = ...) -> None: ...

class OpenSession(_message.Message):
    __slots__ = ("protocol_version", "model_identity", "plan_digest", "rank", "weights_dtype", "memory_bytes", "wire_dtype", "activations")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DTYPE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    WIRE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    model_identity: str
    plan_digest: str
    rank: int
    weights_dtype: str
    memory_bytes: int
    wire_dtype: _tensor_pb2.TensorDtype
    activations: Activations
    def __init__(self, protocol_version: _Optional[int] = ..., model_identity: _Optional[str] = ..., plan_digest: _Optional[str] = ..., rank: _Optional[int] = ..., weights_dtype: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., wire_dtype: _Optional[_Union[_tensor_pb2.TensorDtype, str]] = ..., activations: _Optional[_Union[Activations, str]] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("incarnation", "kv_budget_bytes", "thread_count", "process_id", "uses_memory", "takes_packed", "activations")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    KV_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    THREAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    USES_MEMORY_FIELD_NUMBER: _ClassVar[int]
    TAKES_PACKED_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    kv_budget_bytes: int
    thread_count: int
    process_id: int
    uses_memory: bool
    takes_packed: bool
    activations: Activations
    def __init__(self, incarnation: _Optional[int] = ..., kv_budget_bytes: _Optional[int] = ..., thread_count: _Optional[int] = ..., process_id: _Optional[int] = ..., uses_memory: _Optional[bool] = ..., takes_packed: _Optional[bool] = ..., activations: _Optional[_Union[Activations, str]] = ...) -> None: ...

class SequenceChanges(_message.Message):
    __slots__ = ("closed", "opened")
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    closed: _containers.RepeatedScalarFieldContainer[int]
    opened: _containers.RepeatedCompositeFieldContainer[OpenSequence]
    def __init__(self, closed: _Optional[_Iterable[int]] = ..., opened: _Optional[_Iterable[_Union[OpenSequence, _Mapping]]] = ...) -> None: ...

class OpenSequence(_message.Message):
    __slots__ = ("sequence_id", "position_capacity", "request_id")
    SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    sequence_id: int
    position_capacity: int
    request_id: str
    def __init__(self, sequence_id: _Optional[int] = ..., position_capacity: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class SequenceRefused(_message.Message):
    __slots__ = ("sequence_id", "failure")
    SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    sequence_id: int
    failure: Failure
    def __init__(self, sequence_id: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class SequencesChanged(_message.Message):
    __slots__ = ("refused",)
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    refused: _containers.RepeatedCompositeFieldContainer[SequenceRefused]
    def __init__(self, refused: _Optional[_Iterable[_Union[SequenceRefused, _Mapping]]] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("sequence_id", "first_position", "row_count", "rotary_length")
    SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_POSITION_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROTARY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    sequence_id: int
    first_position: int
    row_count: int
    rotary_length: int
    def __init__(self, sequence_id: _Optional[int] = ..., first_position: _Optional[int] = ..., row_count: _Optional[int] = ..., rotary_length: _Optional[int] = ...) -> None: ...

class RunBlock(_message.Message):
    __slots__ = ("sweep_id", "layer", "kind", "segments", "input", "changes", "tells_waits")
    SWEEP_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    TELLS_WAITS_FIELD_NUMBER: _ClassVar[int]
    sweep_id: int
    layer: int
    kind: BlockKind
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    input: _tensor_pb2.Tensor
    changes: SequenceChanges
    tells_waits: bool
    def __init__(self, sweep_id: _Optional[int] = ..., layer: _Optional[int] = ..., kind: _Optional[_Union[BlockKind, str]] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., changes: _Optional[_Union[SequenceChanges, _Mapping]] = ..., tells_waits: _Optional[bool] = ...) -> None: ...

class BlockResult(_message.Message):
    __slots__ = ("partial", "compute_nanoseconds", "tile_wait_nanoseconds", "refused", "handling_nanoseconds", "queue_nanoseconds", "core_wait_nanoseconds", "starved_nanoseconds")
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    TILE_WAIT_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HANDLING_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    CORE_WAIT_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    STARVED_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    partial: _tensor_pb2.Tensor
    compute_nanoseconds: int
    tile_wait_nanoseconds: int
    refused: _containers.RepeatedCompositeFieldContainer[SequenceRefused]
    handling_nanoseconds: int
    queue_nanoseconds: int
    core_wait_nanoseconds: int
    starved_nanoseconds: int
    def __init__(self, partial: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., compute_nanoseconds: _Optional[int] = ..., tile_wait_nanoseconds: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[SequenceRefused, _Mapping]]] = ..., handling_nanoseconds: _Optional[int] = ..., queue_nanoseconds: _Optional[int] = ..., core_wait_nanoseconds: _Optional[int] = ..., starved_nanoseconds: _Optional[int] = ...) -> None: ...

class LoadNorms(_message.Message):
    __slots__ = ("attention_norms", "ffn_norms", "output_biases", "down_biases")
    ATTENTION_NORMS_FIELD_NUMBER: _ClassVar[int]
    FFN_NORMS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BIASES_FIELD_NUMBER: _ClassVar[int]
    DOWN_BIASES_FIELD_NUMBER: _ClassVar[int]
    attention_norms: _tensor_pb2.Tensor
    ffn_norms: _tensor_pb2.Tensor
    output_biases: _tensor_pb2.Tensor
    down_biases: _tensor_pb2.Tensor
    def __init__(self, attention_norms: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., ffn_norms: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., output_biases: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., down_biases: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class NormsLoaded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RunLayers(_message.Message):
    __slots__ = ("sweep_id", "first_layer", "layer_count", "segments", "input", "changes", "tells_waits")
    SWEEP_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_LAYER_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    TELLS_WAITS_FIELD_NUMBER: _ClassVar[int]
    sweep_id: int
    first_layer: int
    layer_count: int
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    input: _tensor_pb2.Tensor
    changes: SequenceChanges
    tells_waits: bool
    def __init__(self, sweep_id: _Optional[int] = ..., first_layer: _Optional[int] = ..., layer_count: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., changes: _Optional[_Union[SequenceChanges, _Mapping]] = ..., tells_waits: _Optional[bool] = ...) -> None: ...

class LayersResult(_message.Message):
    __slots__ = ("output", "layer_count", "compute_nanoseconds", "tile_wait_nanoseconds", "refused", "handling_nanoseconds", "queue_nanoseconds", "core_wait_nanoseconds", "starved_nanoseconds")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    TILE_WAIT_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HANDLING_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    CORE_WAIT_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    STARVED_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    output: _tensor_pb2.Tensor
    layer_count: int
    compute_nanoseconds: int
    tile_wait_nanoseconds: int
    refused: _containers.RepeatedCompositeFieldContainer[SequenceRefused]
    handling_nanoseconds: int
    queue_nanoseconds: int
    core_wait_nanoseconds: int
    starved_nanoseconds: int
    def __init__(self, output: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., layer_count: _Optional[int] = ..., compute_nanoseconds: _Optional[int] = ..., tile_wait_nanoseconds: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[SequenceRefused, _Mapping]]] = ..., handling_nanoseconds: _Optional[int] = ..., queue_nanoseconds: _Optional[int] = ..., core_wait_nanoseconds: _Optional[int] = ..., starved_nanoseconds: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("status", "reason", "message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    reason: str
    message: str
    def __init__(self, status: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("protocol_version", "model_identity", "plan_digest", "rank", "incarnation", "process_id", "rss_bytes", "peak_rss_bytes", "pss_bytes", "window_bytes", "resident_bytes", "peak_weight_bytes", "kv_bytes", "read_bytes", "compute_nanoseconds", "tile_wait_nanoseconds", "open_sequence_count", "weights_dtype", "direct_path", "checksum_nanoseconds", "kv_budget_bytes", "page_cache_bytes", "cached_read_bytes", "rounds_port")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    PSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    TILE_WAIT_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_SEQUENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIRECT_PATH_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    KV_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAGE_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHED_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_PORT_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    model_identity: str
    plan_digest: str
    rank: int
    incarnation: int
    process_id: int
    rss_bytes: int
    peak_rss_bytes: int
    pss_bytes: int
    window_bytes: int
    resident_bytes: int
    peak_weight_bytes: int
    kv_bytes: int
    read_bytes: int
    compute_nanoseconds: int
    tile_wait_nanoseconds: int
    open_sequence_count: int
    weights_dtype: str
    direct_path: str
    checksum_nanoseconds: int
    kv_budget_bytes: int
    page_cache_bytes: int
    cached_read_bytes: int
    rounds_port: int
    def __init__(self, protocol_version: _Optional[int] = ..., model_identity: _Optional[str] = ..., plan_digest: _Optional[str] = ..., rank: _Optional[int] = ..., incarnation: _Optional[int] = ..., process_id: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., peak_rss_bytes: _Optional[int] = ..., pss_bytes: _Optional[int] = ..., window_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., peak_weight_bytes: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., read_bytes: _Optional[int] = ..., compute_nanoseconds: _Optional[int] = ..., tile_wait_nanoseconds: _Optional[int] = ..., open_sequence_count: _Optional[int] = ..., weights_dtype: _Optional[str] = ..., direct_path: _Optional[str] = ..., checksum_nanoseconds: _Optional[int] = ..., kv_budget_bytes: _Optional[int] = ..., page_cache_bytes: _Optional[int] = ..., cached_read_bytes: _Optional[int] = ..., rounds_port: _Optional[int] = ...) -> None: ...
