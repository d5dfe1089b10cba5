"""Reads a `.gguf` file as a checkpoint: Hugging Face names, rows in Hugging Face order, quantized tensors as float32.

Covers: models in several parts, dequantizing some rows at a time (the `gguf` package does it), and undoing the row
order of interleaved rotary embeddings.
Does not cover: the header (gguf_file.py), metadata (gguf_metadata.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from common.errors import CheckpointError, UnsupportedModel
from common.model.model_spec import ModelSpec
from common.weights.encodings import ENCODINGS, is_encoded
from common.weights.model_encodings import MATRICES, LayerEncodings, ModelEncodings
from common.weights.stored_numbers import Bytes, Stored
from coordinator.checkpoints.gguf_file import GgufTensor, read_gguf_parts
from coordinator.checkpoints.gguf_metadata import family_from_gguf, spec_from_gguf
from coordinator.checkpoints.gguf_numbers import dequantize
from coordinator.checkpoints.identity import matrix_dtype, model_identity, settled_spec
from coordinator.checkpoints.lean_gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from coordinator.checkpoints.matrix_names import tensor_of
from coordinator.checkpoints.source_tensor import SourceTensor, checked_rows, read_into, read_stored_rows
from coordinator.checkpoints.tensor_names import EMBEDDING, FINAL_NORM, HEAD, MATRIX, check_tensors

StoredRows = TypeVar("StoredRows", Stored, Bytes)

ROPE_FREQUENCY_FACTORS = "rope_freqs.weight"

_DEQUANTIZED_BYTES = 512 << 10
"""Dequantizing makes several copies, which stay in the processor's cache for this much float32 output at a time."""

_PLAIN = {
    GGMLQuantizationType.F32: "float32",
    GGMLQuantizationType.F16: "float16",
    GGMLQuantizationType.BF16: "bfloat16",
}
_NOT_QUANTIZED = frozenset(
    GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")
)
_OUTER_NAMES = {"token_embd": EMBEDDING, "output_norm": FINAL_NORM, "output": HEAD}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d{1,6})\.([a-z_]+)\.(weight|bias)")
_ROTATED = re.compile(r"model\.layers\.\d+\.self_attn\.[qk]_proj\.(weight|bias)")


class GgufCheckpoint:
    """A `Checkpoint` (checkpoint.py) of one GGUF model; holds no file open."""

    def __init__(self, path: Path) -> None:
        """Read and check the headers of a file and of the parts after it.

        Raises: CheckpointError, UnsupportedModel: see read_gguf_header, spec_from_gguf and check_tensors.
        """
        parts = read_gguf_parts(path)
        family = family_from_gguf(parts[0].metadata)
        stored = [_source_tensor(part.path, tensor) for part in parts for tensor in part.tensors]
        tensors = [tensor for tensor in stored if tensor.stored_name != ROPE_FREQUENCY_FACTORS]
        factors = _frequency_factors(stored)
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        embedding_row_count = shapes.get(EMBEDDING, (0,))[0]
        self.spec = spec_from_gguf(family, parts[0].metadata, frozenset(shapes), factors, embedding_row_count)
        self._interleaved = family.gguf_interleaved_rotary
        self._tensors = check_tensors(self.spec, tensors, str(path))
        self.spec = settled_spec(self.spec, self._tensors, self.read_rows)
        self.dtype = matrix_dtype(self._tensors)
        self.encodings = _encodings(self.spec, self._tensors)
        quantized = {tensor.encoding for name, tensor in self._tensors.items() if MATRIX.fullmatch(name)}
        self.widened = tuple(sorted(quantized - {kind.name for kind in _PLAIN} - {*map(str.upper, ENCODINGS)}))
        self.identity = model_identity(self.spec, self._tensors, self.read_rows)

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor.shape

    def place(self, name: str) -> str:
        return self._tensors[name].place

    def read(self, name: str) -> Stored:
        return self.read_rows(name, 0, self._tensors[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int) -> Stored:
        tensor = self._tensors[name]
        start, stop = checked_rows(tensor, start, stop)
        if not self._interleaved or not _ROTATED.fullmatch(name):
            return _read_file_rows(tensor, start, stop)
        # Rows of one head are permuted among themselves: read whole heads, put them in order, cut.
        head_size = self.spec.head_size
        first, last = start // head_size * head_size, -(-stop // head_size) * head_size
        heads = halves_first(_read_file_rows(tensor, first, last), head_size)
        return heads if len(heads) == stop - start else heads[start - first : stop - first].copy()

    def read_blocks(self, name: str, start: int, stop: int) -> Bytes:
        tensor = self._tensors[name]
        start, stop = checked_rows(tensor, start, stop)
        if not self._interleaved or not _ROTATED.fullmatch(name):
            return _read_raw_rows(tensor, start, stop)
        head_size = self.spec.head_size
        first, last = start // head_size * head_size, -(-stop // head_size) * head_size
        return halves_first(_read_raw_rows(tensor, first, last), head_size)[start - first : stop - first]

    def close(self) -> None:
        """Nothing is open between two reads."""


def _encodings(spec: ModelSpec, tensors: Mapping[str, SourceTensor]) -> ModelEncodings | None:
    """Return what slices can keep of the file's encodings; of others a matrix becomes float32, as it was before."""

    def encoding(name: str) -> str:
        tensor = tensors[name]
        own = tensor.encoding.lower()
        return own if is_encoded(own) else tensor.dtype

    layers = tuple(
        LayerEncodings(**{matrix: encoding(tensor_of(matrix, layer)) for matrix in MATRICES})
        for layer in range(spec.layer_count)
    )
    head = EMBEDDING if spec.tied_embeddings else HEAD
    found = ModelEncodings(layers=layers, embedding=encoding(EMBEDDING), head=encoding(head))
    return found if any(is_encoded(name) for name in found.names()) else None


def halves_first(rows: StoredRows, head_size: int) -> StoredRows:
    """Return rows of whole heads with each head's rotary pairs moved apart: first all first halves, then all second.

    Args: rows: [head_count * head_size, ...] with row 2i and 2i+1 of a head forming pair i.
    Returns: a new tensor of the same shape with rows i and i + head_size / 2 of a head forming pair i.
    """
    pairs = rows.reshape(-1, head_size // 2, 2, *rows.shape[1:])
    parted = np.empty_like(rows)
    parted.reshape(-1, 2, head_size // 2, *rows.shape[1:])[...] = pairs.swapaxes(1, 2)
    return parted


def _frequency_factors(stored: list[SourceTensor]) -> tuple[float, ...]:
    for tensor in stored:
        if tensor.stored_name == ROPE_FREQUENCY_FACTORS:
            if tensor.encoding != "F32" or len(tensor.shape) != 1 or tensor.shape[0] > 1 << 16:
                raise CheckpointError(f"{tensor.place} is not a list of float32 numbers")
            factors = tuple(read_stored_rows(tensor, 0, tensor.shape[0]).tolist())
            if not all(0 < factor < float("inf") for factor in factors):
                raise CheckpointError(f"{tensor.place} has a factor that is not positive and finite")
            return factors
    return ()


def _source_tensor(path: Path, tensor: GgufTensor) -> SourceTensor:
    dtype = _PLAIN.get(tensor.encoding, tensor.encoding.name)
    if tensor.encoding not in _NOT_QUANTIZED:
        dtype = "float32"
        if not _can_dequantize(tensor.encoding):
            raise UnsupportedModel(f"{path}: '{tensor.name}' is quantized as {tensor.encoding.name}, which cannot be "
                                   "read; use another quantization of this model")  # fmt: skip
    return SourceTensor(
        name=_hugging_face_name(tensor.name),
        shape=tensor.shape,
        dtype=dtype,
        encoding=tensor.encoding.name,
        path=path,
        offset_bytes=tensor.offset_bytes,
        size_bytes=tensor.size_bytes,
        stored_name=tensor.name,
    )


def _hugging_face_name(name: str) -> str:
    """Return the name in Hugging Face's words; one that has none stays, and check_tensors refuses it."""
    outer, dot, kind = name.rpartition(".")
    if dot and kind == "weight" and outer in _OUTER_NAMES:
        return _OUTER_NAMES[outer]
    match = _LAYER_NAME.fullmatch(name)
    if match is None or match[2] not in _LAYER_NAMES:
        return name
    return f"model.layers.{int(match[1])}.{_LAYER_NAMES[match[2]]}.{match[3]}"


@cache
def _can_dequantize(encoding: GGMLQuantizationType) -> bool:
    """Tell whether the `gguf` package can dequantize this encoding: one empty block shows it."""
    _, block_bytes = GGML_QUANT_SIZES[encoding]
    try:
        dequantize(np.zeros((1, block_bytes), dtype=np.uint8), encoding)
    except NotImplementedError:
        return False
    return True


def _read_raw_rows(tensor: SourceTensor, start: int, stop: int) -> Bytes:
    """Return rows as the file has them."""
    rows = np.empty((stop - start, tensor.row_bytes), np.uint8)
    read_into(tensor.path, tensor.offset_bytes + start * tensor.row_bytes, rows.reshape(-1).data)
    return rows


def _read_file_rows(tensor: SourceTensor, start: int, stop: int) -> Stored:
    """Return rows in the file's order, float32 when they are quantized."""
    encoding = GGMLQuantizationType[tensor.encoding]
    if encoding in _PLAIN:
        return read_stored_rows(tensor, start, stop)
    rows = np.empty((stop - start, *tensor.shape[1:]), dtype=np.float32)
    step = max(1, _DEQUANTIZED_BYTES // (rows.itemsize * max(1, rows[:1].size)))
    for first in range(start, stop, step):
        last = min(first + step, stop)
        # As one row: of several the package takes 16 at a time, which costs twice the processor time.
        stored = np.empty((1, (last - first) * tensor.row_bytes), dtype=np.uint8)
        read_into(tensor.path, tensor.offset_bytes + first * tensor.row_bytes, stored.reshape(-1).data)
        with np.errstate(all="ignore"):  # a block whose scale is no number gives more of them, which slicing refuses
            values = dequantize(stored, encoding)
        rows[first - start : last - start] = values.reshape(last - first, *tensor.shape[1:])
    return rows
