from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListSlicesRequest(_message.Message):
    __slots__ = ("with_kept_tiles",)
    WITH_KEPT_TILES_FIELD_NUMBER: _ClassVar[int]
    with_kept_tiles: bool
    def __init__(self, with_kept_tiles: _Optional[bool] = ...) -> None: ...

class ListSlicesResponse(_message.Message):
    __slots__ = ("slices", "served_slice_id", "free_bytes", "trouble", "slice_format", "kept_tiles")
    SLICES_FIELD_NUMBER: _ClassVar[int]
    SERVED_SLICE_ID_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    SLICE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEPT_TILES_FIELD_NUMBER: _ClassVar[int]
    slices: _containers.RepeatedCompositeFieldContainer[HeldSlice]
    served_slice_id: str
    free_bytes: int
    trouble: str
    slice_format: int
    kept_tiles: _containers.RepeatedCompositeFieldContainer[KeptTiles]
    def __init__(self, slices: _Optional[_Iterable[_Union[HeldSlice, _Mapping]]] = ..., served_slice_id: _Optional[str] = ..., free_bytes: _Optional[int] = ..., trouble: _Optional[str] = ..., slice_format: _Optional[int] = ..., kept_tiles: _Optional[_Iterable[_Union[KeptTiles, _Mapping]]] = ...) -> None: ...

class KeptTiles(_message.Message):
    __slots__ = ("model_identity", "byte_count")
    MODEL_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    model_identity: str
    byte_count: int
    def __init__(self, model_identity: _Optional[str] = ..., byte_count: _Optional[int] = ...) -> None: ...

class HeldSlice(_message.Message):
    __slots__ = ("slice_id", "byte_count", "is_whole")
    SLICE_ID_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_WHOLE_FIELD_NUMBER: _ClassVar[int]
    slice_id: str
    byte_count: int
    is_whole: bool
    def __init__(self, slice_id: _Optional[str] = ..., byte_count: _Optional[int] = ..., is_whole: _Optional[bool] = ...) -> None: ...

class OfferSliceRequest(_message.Message):
    __slots__ = ("description", "verify")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    description: bytes
    verify: bool
    def __init__(self, description: _Optional[bytes] = ..., verify: _Optional[bool] = ...) -> None: ...

class OfferSliceResponse(_message.Message):
    __slots__ = ("slice_id", "is_whole", "files", "packs")
    SLICE_ID_FIELD_NUMBER: _ClassVar[int]
    IS_WHOLE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    PACKS_FIELD_NUMBER: _ClassVar[int]
    slice_id: str
    is_whole: bool
    files: _containers.RepeatedCompositeFieldContainer[ArrivedFile]
    packs: _containers.RepeatedCompositeFieldContainer[LackingPack]
    def __init__(self, slice_id: _Optional[str] = ..., is_whole: _Optional[bool] = ..., files: _Optional[_Iterable[_Union[ArrivedFile, _Mapping]]] = ..., packs: _Optional[_Iterable[_Union[LackingPack, _Mapping]]] = ...) -> None: ...

class LackingPack(_message.Message):
    __slots__ = ("name", "byte_count", "tiles")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    name: str
    byte_count: int
    tiles: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., byte_count: _Optional[int] = ..., tiles: _Optional[_Iterable[int]] = ...) -> None: ...

class ArrivedFile(_message.Message):
    __slots__ = ("name", "byte_count", "digests")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    byte_count: int
    digests: FileDigests
    def __init__(self, name: _Optional[str] = ..., byte_count: _Optional[int] = ..., digests: _Optional[_Union[FileDigests, _Mapping]] = ...) -> None: ...

class FileDigests(_message.Message):
    __slots__ = ("sha256", "tile_sha256")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TILE_SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    tile_sha256: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sha256: _Optional[str] = ..., tile_sha256: _Optional[_Iterable[str]] = ...) -> None: ...

class SendFileRequest(_message.Message):
    __slots__ = ("start", "chunk", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: FileStart
    chunk: bytes
    end: FileDigests
    def __init__(self, start: _Optional[_Union[FileStart, _Mapping]] = ..., chunk: _Optional[bytes] = ..., end: _Optional[_Union[FileDigests, _Mapping]] = ...) -> None: ...

class FileStart(_message.Message):
    __slots__ = ("slice_id", "name", "first_byte")
    SLICE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_BYTE_FIELD_NUMBER: _ClassVar[int]
    slice_id: str
    name: str
    first_byte: int
    def __init__(self, slice_id: _Optional[str] = ..., name: _Optional[str] = ..., first_byte: _Optional[int] = ...) -> None: ...

class SendFileResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PublishSliceRequest(_message.Message):
    __slots__ = ("slice_id",)
    SLICE_ID_FIELD_NUMBER: _ClassVar[int]
    slice_id: str
    def __init__(self, slice_id: _Optional[str] = ...) -> None: ...

class PublishSliceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServeSliceRequest(_message.Message):
    __slots__ = ("slice_id",)
    SLICE_ID_FIELD_NUMBER: _ClassVar[int]
    slice_id: str
    def __init__(self, slice_id: _Optional[str] = ...) -> None: ...

class ServeSliceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveSliceRequest(_message.Message):
    __slots__ = ("slice_id", "keep_tiles", "model_identity")
    SLICE_ID_FIELD_NUMBER: _ClassVar[int]
    KEEP_TILES_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    slice_id: str
    keep_tiles: bool
    model_identity: str
    def __init__(self, slice_id: _Optional[str] = ..., keep_tiles: _Optional[bool] = ..., model_identity: _Optional[str] = ...) -> None: ...

class RemoveSliceResponse(_message.Message):
    __slots__ = ("free_bytes",)
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    free_bytes: int
    def __init__(self, free_bytes: _Optional[int] = ...) -> None: ...
